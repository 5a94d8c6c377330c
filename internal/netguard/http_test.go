package netguard

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"conclave/internal/testserver/proof"
)

func fetch(t *testing.T, o HTTPOptions, url string, limit int64) ([]byte, error) {
	t.Helper()
	client := NewDialer(prefixes("127.0.0.0/8", "::1/128"), nil).HTTPClient(o)
	defer client.CloseIdleConnections()
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return ReadAll(response, limit)
}

func TestReadAllIsBounded(t *testing.T) {
	mux := http.NewServeMux()
	serve := func(path string, encoding string, body []byte, length bool) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Errorf("compression was asked for: %q", r.Header.Get("Accept-Encoding"))
			}
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			if !length {
				w.(http.Flusher).Flush()
			}
			_, _ = w.Write(body)
		})
	}
	text := bytes.Repeat([]byte("x"), 1000)
	serve("/exact", "", text, true)
	serve("/long", "", append(text, 'x'), true)
	serve("/long-chunked", "", append(text, 'x'), false)
	serve("/gzip", "gzip", packed(t, text), true)
	serve("/bomb", "gzip", packed(t, make([]byte, 10<<20)), false)
	serve("/damaged", "gzip", packed(t, text)[:15], true)
	serve("/no-gzip", "gzip", text, true)
	serve("/brotli", "br", text, true)
	serve("/twice", "gzip, gzip", text, true)
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]error{
		"/exact": nil, "/gzip": nil, "/long": ErrTooLarge, "/long-chunked": ErrTooLarge, "/bomb": ErrTooLarge,
		"/brotli": ErrEncoding, "/twice": ErrEncoding, "/damaged": io.ErrUnexpectedEOF, "/no-gzip": gzip.ErrHeader,
	} {
		data, err := fetch(t, HTTPOptions{}, server.URL+path, 1000)
		if !errors.Is(err, want) || (want == nil && !bytes.Equal(data, text)) {
			t.Errorf("%s: %d bytes, %v, want %v", path, len(data), err, want)
		}
	}
}

func packed(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A body that stops, one that drips, and one without end: each is given up.
func TestSlowAndEndlessBodies(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/stops", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/drips", func(w http.ResponseWriter, r *http.Request) {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			_, err := io.WriteString(w, "a")
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, test := range []struct {
		path string
		o    HTTPOptions
		want error
	}{
		{"/stops", HTTPOptions{Idle: 50 * time.Millisecond}, ErrTooSlow},
		{"/drips", HTTPOptions{Idle: time.Second / 20, MinRate: 1 << 20}, ErrTooSlow},
		{"/drips", HTTPOptions{Total: 100 * time.Millisecond}, context.DeadlineExceeded},
		{"/endless", HTTPOptions{}, ErrTooLarge},
	} {
		began := time.Now()
		_, err := fetch(t, test.o, server.URL+test.path, 1<<20)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.path, err, test.want)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s took %v", test.path, took)
		}
	}
}

func TestRedirects(t *testing.T) {
	proof.Of(t, "O02")
	var seen []string
	record := func(r *http.Request) {
		seen = append(seen, fmt.Sprintf("%s auth=%q referer=%q", r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Referer")))
	}
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { record(r) }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record(r)
		http.Redirect(w, r, map[string]string{
			"/own": "/other", "/other": other.URL + "/landed", "/loop": "/loop", "/inside": "http://169.254.169.254/latest",
		}[r.URL.Path], http.StatusFound)
	}))
	defer server.Close()
	do := func(redirects int, path string) (*http.Response, error) {
		seen = nil
		client := NewDialer(prefixes("127.0.0.0/8"), nil).HTTPClient(HTTPOptions{Redirects: redirects})
		defer client.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "canary")
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		return response, err
	}
	if response, err := do(0, "/own"); err != nil || response.StatusCode != http.StatusFound || len(seen) != 1 {
		t.Errorf("by default no redirect is followed: %v, %q", err, seen)
	}
	if response, err := do(1, "/loop"); err != nil || response.StatusCode != http.StatusFound || len(seen) != 2 {
		t.Errorf("one redirect is one: %v, %q", err, seen)
	}
	want := []string{`/own auth="canary" referer=""`, `/other auth="canary" referer=""`, `/landed auth="" referer=""`}
	if _, err := do(3, "/own"); err != nil || strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("%v, saw %q, want %q", err, seen, want)
	}
	if _, err := do(3, "/inside"); !errors.Is(err, ErrDenied) {
		t.Errorf("a redirect inside: %v", err)
	}
}

func TestRedirectNeverLeavesHTTPS(t *testing.T) {
	reached := false
	plainServer := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer plainServer.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plainServer.URL, http.StatusMovedPermanently))
	defer secure.Close()
	trusted := secure.Client().Transport.(*http.Transport).TLSClientConfig
	client := NewDialer(prefixes("127.0.0.0/8"), nil).HTTPClient(HTTPOptions{Redirects: 3, TLS: trusted})
	defer client.CloseIdleConnections()
	response, err := client.Get(secure.URL)
	if err != nil || response.StatusCode != http.StatusMovedPermanently || reached {
		t.Errorf("%v, reached the plain server: %v", err, reached)
	}
	if err == nil {
		_ = response.Body.Close()
	}
}

func TestClientGoesThroughTheDialerAndNoProxy(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	client := NewDialer(nil, nil).HTTPClient(HTTPOptions{})
	if response, err := client.Get(server.URL); !errors.Is(err, ErrDenied) {
		t.Errorf("loopback without leave: %v, %v", response, err)
	}
	if client.Transport.(*watched).next.(*http.Transport).Proxy != nil {
		t.Error("a proxy would connect for us, unchecked")
	}
}
