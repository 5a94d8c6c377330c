package federation_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

func upload(t *testing.T, u *testserver.User, content []byte) (place string) {
	t.Helper()
	uri, _ := u.Must("POST", "/_matrix/media/v3/upload?filename=x.bin", content).Body["content_uri"].(string)
	place, ok := strings.CutPrefix(uri, "mxc://")
	if !ok {
		t.Fatalf("uploaded to %q", uri)
	}
	return place
}

// TestContentBetweenServers brings a file and a thumbnail of it from one server to a user of another.
func TestContentBetweenServers(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		a, b := testserver.Pair(t, testserver.Options{Engine: engine})
		alice, bob := a.Register("alice"), b.Register("bob")
		content := make([]byte, 1_000_000)
		rand.Read(content)
		place := upload(t, alice, content)
		const base = "/_matrix/client/v1/media/"
		got := bob.Must("GET", base+"download/"+place, nil)
		if !bytes.Equal(got.Raw, content) || !strings.Contains(got.Header.Get("Content-Disposition"), "x.bin") {
			t.Errorf("%d bytes, %v", len(got.Raw), got.Header)
		}
		bob.Refused(404, "M_NOT_FOUND", "GET", "/_matrix/media/v3/download/"+string(a.Name)+"/other?allow_remote=false", nil)
		bob.Refused(404, "M_NOT_FOUND", "GET", base+"download/"+string(a.Name)+"/none", nil)
		bob.Refused(400, "M_UNKNOWN", "GET", base+"thumbnail/"+place+"?width=9&height=9", nil)

		// What is not uploaded yet is waited for, across both servers.
		uri, _ := alice.Must("POST", "/_matrix/media/v1/create", nil).Body["content_uri"].(string)
		bob.Refused(504, "M_NOT_YET_UPLOADED", "GET", base+"download/"+strings.TrimPrefix(uri, "mxc://")+"?timeout_ms=1", nil)

		var picture bytes.Buffer
		if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 400, 400))); err != nil {
			t.Fatal(err)
		}
		place = upload(t, alice, picture.Bytes())
		thumb := bob.Must("GET", base+"thumbnail/"+place+"?width=96&height=96&method=crop", nil)
		if img, _, err := image.Decode(bytes.NewReader(thumb.Raw)); err != nil || img.Bounds().Dx() != 96 {
			t.Errorf("thumbnail %v, %v", thumb.Header, err)
		}
		a.Kill()
		if again := bob.Must("GET", base+"download/"+place, nil); !bytes.Equal(again.Raw, picture.Bytes()) {
			t.Error("the copy did not outlive its server")
		}
	})
}

// partsOf are the parts of a multipart answer.
func partsOf(t *testing.T, a peer.Answer) (parts []string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" {
		t.Fatalf("%d with the type %q: %s", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	for r := multipart.NewReader(bytes.NewReader(a.Body), params["boundary"]); ; {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(data))
	}
}

// TestContentOfServersWithoutTheNewOperations fetches from a server that has the old operations alone: it is asked for what
// is its own, without our signature, after it said that it does not know the new ones.
func TestContentOfServersWithoutTheNewOperations(t *testing.T) {
	proof.Of(t, "FD-20")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		ca := peer.NewCA(t)
		s := testserver.Start(t, testserver.Options{Engine: engine, CA: ca})
		p := peer.New(t, ca, peer.Options{})
		p.Handle("GET", "/_matrix/media/v3/download/{server}/{id}", func(*peer.Call) peer.Reply {
			return peer.Reply{Header: map[string]string{"Content-Type": "text/plain"}, Body: []byte("of old")}
		})
		got := s.Register("alice").Must("GET", fmt.Sprintf("/_matrix/client/v1/media/download/%s/old", p.Name), nil)
		if string(got.Raw) != "of old" {
			t.Errorf("%q", got.Raw)
		}
		asked, old := p.Calls(peer.V1+"/media/download/"), p.Calls("/_matrix/media/v3/download/")
		if len(asked) != 1 || len(old) != 1 {
			t.Fatalf("asked %d times by the new operation and %d by the old", len(asked), len(old))
		}
		u, err := url.Parse(old[0].URI)
		if err != nil || u.Path != fmt.Sprintf("/_matrix/media/v3/download/%s/old", p.Name) || u.Query().Get("allow_remote") != "false" || old[0].Header.Get("Authorization") != "" {
			t.Errorf("asked %s with %q (%v)", old[0].URI, old[0].Header.Get("Authorization"), err)
		}
	})
}

// TestServersThatLieAboutContent asks a hostile server for content, and looks at what that leaves (threats M05).
func TestServersThatLieAboutContent(t *testing.T) {
	proof.Of(t, "FD-20", "ME-06", "M05")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		ca := peer.NewCA(t)
		s := testserver.Start(t, testserver.Options{Engine: engine, CA: ca, Env: []string{"CONCLAVE_MEDIA_MAX_UPLOAD_BYTES=100000"}})
		p := peer.New(t, ca, peer.Options{})
		alice := s.Register("alice")
		us := peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
		endless := func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "multipart/mixed; boundary=b")
			_, _ = w.Write([]byte("--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\n"))
			for range 10_000 {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}
		parts := func(rest string) peer.Reply {
			return peer.Reply{
				Header: map[string]string{"Content-Type": "multipart/mixed; boundary=b"},
				Body:   []byte("--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n" + rest),
			}
		}
		for name, c := range map[string]struct {
			reply  peer.Reply
			status int
			code   string
		}{
			"endless":        {peer.Reply{Write: endless}, 502, "M_TOO_LARGE"},
			"too large":      {parts("\r\n" + strings.Repeat("x", 100_001) + "\r\n--b--\r\n"), 502, "M_TOO_LARGE"},
			"cut off":        {parts("\r\nhalf"), 502, "M_UNKNOWN"},
			"not multipart":  {peer.Reply{Body: []byte("{}")}, 502, "M_UNKNOWN"},
			"to a file":      {parts("Location: file:///etc/passwd\r\n\r\n\r\n--b--\r\n"), 502, "M_UNKNOWN"},
			"to itself":      {parts("Location: https://" + string(p.Name) + "/loop\r\n\r\n\r\n--b--\r\n"), 502, "M_UNKNOWN"},
			"refused":        {peer.Refuse(403, "M_FORBIDDEN"), 502, "M_UNKNOWN"},
			"broken":         {peer.Refuse(500, "M_UNKNOWN"), 502, "M_UNKNOWN"},
			"not there":      {peer.Refuse(404, "M_NOT_FOUND"), 404, "M_NOT_FOUND"},
			"not there yet":  {peer.Refuse(504, "M_NOT_YET_UPLOADED"), 504, "M_NOT_YET_UPLOADED"},
			"one part alone": {peer.Reply{Header: map[string]string{"Content-Type": "multipart/mixed; boundary=b"}, Body: []byte("--b\r\n\r\n{}\r\n--b--\r\n")}, 502, "M_UNKNOWN"},
		} {
			p.Handle("GET", "/_matrix/federation/v1/media/download/{id}", func(*peer.Call) peer.Reply { return c.reply })
			id := strings.ReplaceAll(name, " ", "-")
			alice.Refused(c.status, c.code, "GET", fmt.Sprintf("/_matrix/client/v1/media/download/%s/%s", p.Name, id), nil)
		}
		for _, folder := range []string{"pending", "files"} {
			if left, err := os.ReadDir(filepath.Join(s.DataDir(), "media", folder)); err != nil || len(left) != 0 {
				t.Errorf("%s has %v, %v", folder, left, err)
			}
		}
		// What it says of its content is not believed where it would do harm.
		p.Handle("GET", "/_matrix/federation/v1/media/download/{id}", func(*peer.Call) peer.Reply {
			return parts("Content-Type: text/html\r\nContent-Disposition: inline; filename=\"../../x.html\"\r\n\r\n<script>\r\n--b--\r\n")
		})
		a := alice.Must("GET", fmt.Sprintf("/_matrix/client/v1/media/download/%s/html", p.Name), nil)
		if string(a.Raw) != "<script>" || !strings.HasPrefix(a.Header.Get("Content-Disposition"), "attachment") {
			t.Errorf("%q, %v", a.Raw, a.Header)
		}
		// And it gets what it is entitled to, in two parts, and nothing without its signature.
		place := upload(t, alice, []byte("given"))
		_, id, _ := strings.Cut(place, "/")
		path := "/_matrix/federation/v1/media/download/" + id
		got := p.Do(t, us, "GET", path, nil)
		if parts := partsOf(t, got); len(parts) != 2 || parts[0] != "{}" || parts[1] != "given" {
			t.Errorf("%d with the parts %q", got.Status, parts)
		}
		var picture bytes.Buffer
		if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 400, 400))); err != nil {
			t.Fatal(err)
		}
		_, drawn, _ := strings.Cut(upload(t, alice, picture.Bytes()), "/")
		small := partsOf(t, p.Do(t, us, "GET", peer.V1+"/media/thumbnail/"+drawn+"?width=96&height=96&method=crop", nil))
		if len(small) != 2 || small[0] != "{}" {
			t.Fatalf("a thumbnail in the parts %q", small)
		}
		if img, _, err := image.Decode(strings.NewReader(small[1])); err != nil || img.Bounds().Dx() != 96 {
			t.Errorf("a thumbnail that is none: %v", err)
		}
		if got = p.Do(t, us, "GET", "/_matrix/federation/v1/media/download/..%2fsigning.key", nil); got.Status != 404 {
			t.Errorf("%d %s", got.Status, got.Body)
		}
		if got = p.Do(t, us, "GET", "/_matrix/federation/v1/media/thumbnail/"+id+"?width=1&height=1", nil); got.Status != 400 {
			t.Errorf("%d %s", got.Status, got.Body)
		}
		if got = p.DoWith(t, us, "GET", path, nil, http.Header{}); got.Status != 401 {
			t.Errorf("without a signature: %d %s", got.Status, got.Body)
		}
	})
}
