package federation

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

func mixed(parts string) peer.Reply {
	return peer.Reply{Header: map[string]string{"Content-Type": "multipart/mixed; boundary=b"}, Body: []byte(strings.ReplaceAll(parts, "\n", "\r\n"))}
}

func fetchMedia(t *testing.T, c *Client, p *peer.Peer, limit int64) (*Media, string, error) {
	t.Helper()
	m, err := c.GetContent(t.Context(), MediaRequest{Server: p.Name, ID: "id", MaxBytes: limit})
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = m.Body.Close() }()
	data, err := io.ReadAll(m.Body)
	return m, string(data), err
}

func TestMedia(t *testing.T) {
	proof.Of(t, "FD-20")
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went to the place that content was redirected to")
		}
		w.Header().Set("Content-Type", "image/gif")
		_, _ = w.Write([]byte("elsewhere"))
	}))
	other.TLS = tlsFor(ca, t)
	other.StartTLS()
	t.Cleanup(other.Close)
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	const path = "/_matrix/federation/v1/media/download/{id}"
	for name, want := range map[string]struct {
		reply   peer.Reply
		content string // "" means an error
	}{
		"two parts":        {mixed("--b\nContent-Type: application/json\n\n{}\n--b\nContent-Type: text/plain\nContent-Disposition: inline; filename=x\n\nhello\n--b--\n"), "hello"},
		"a location":       {mixed("--b\nContent-Type: application/json\n\n{}\n--b\nLocation: " + elsewhere + "/x\n\n\n--b--\n"), "elsewhere"},
		"a plain location": {mixed("--b\nContent-Type: application/json\n\n{}\n--b\nLocation: " + strings.Replace(elsewhere, "https", "http", 1) + "\n\n\n--b--\n"), ""},
		"a file location":  {mixed("--b\n\n{}\n--b\nLocation: file:///etc/passwd\n\n\n--b--\n"), ""},
		"one part":         {mixed("--b\nContent-Type: application/json\n\n{}\n--b--\n"), ""},
		"three parts":      {mixed("--b\nContent-Type: application/json\n\n{}\n--b\n\nhello\n--b\n\nmore\n--b--\n"), ""},
		"no JSON":          {mixed("--b\nContent-Type: application/json\n\nx\n--b\n\nhello\n--b--\n"), ""},
		"not multipart":    {peer.Reply{Header: map[string]string{"Content-Type": "text/plain"}, Body: []byte("hello")}, ""},
		"no boundary":      {peer.Reply{Header: map[string]string{"Content-Type": "multipart/mixed"}, Body: []byte("hello")}, ""},
		"too large":        {mixed("--b\n\n{}\n--b\n\n" + strings.Repeat("x", 2000) + "\n--b--\n"), ""},
		"cut off":          {mixed("--b\n\n{}\n--b\n\nhel"), ""},
		"not found":        {peer.Refuse(404, "M_NOT_FOUND"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			p.Handle("GET", path, func(*peer.Call) peer.Reply { return want.reply })
			_, got, err := fetchMedia(t, c, p, 1000)
			if want.content == "" {
				if err == nil {
					t.Errorf("got %q", got)
				}
				return
			}
			if err != nil || got != want.content {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if len(p.Calls("/_matrix/media/")) != 0 {
		t.Error("the old operation was asked although the new one is known")
	}
}

func TestMediaFallsBackToTheOldOperation(t *testing.T) {
	proof.Of(t, "FD-20")
	ca := peer.NewCA(t)
	c := testClient(t, ca, nil)
	p := trusting(t, ca, c, peer.Options{})
	p.Handle("GET", "/_matrix/media/v3/thumbnail/{server}/{id}", func(*peer.Call) peer.Reply {
		return peer.Reply{Header: map[string]string{"Content-Type": "image/png"}, Body: []byte("small")}
	})
	m, err := c.GetContent(t.Context(), MediaRequest{Server: p.Name, ID: "id", MaxBytes: 100, Thumbnail: &Thumbnail{Width: 32, Height: 16, Method: "crop"}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(m.Body)
	if err != nil || string(data) != "small" || m.ContentType != "image/png" {
		t.Errorf("%q %q %v", data, m.ContentType, err)
	}
	_ = m.Body.Close()
	want := fmt.Sprintf("/_matrix/media/v3/thumbnail/%s/id?allow_remote=false&animated=false&height=16&method=crop&width=32", p.Name)
	if got := p.Calls("/_matrix/media/")[0]; got.URI != want || got.Header.Get("Authorization") != "" {
		t.Errorf("asked %s with %q", got.URI, got.Header.Get("Authorization"))
	}
	p.Stop()
	if _, err = c.GetContent(t.Context(), MediaRequest{Server: p.Name, ID: "id", MaxBytes: 100}); err == nil {
		t.Error("content came from a server that is gone")
	}
	var e *Error
	if !errors.As(err, &e) || !e.Retryable() {
		t.Errorf("error %v", err)
	}
}
