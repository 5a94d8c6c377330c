package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func built() *site {
	return newSite(fstest.MapFS{
		".keep":                 {Data: []byte("keep")},
		"index.html":            {Data: []byte("<!doctype html><title>Conclave</title>")},
		"icon.svg":              {Data: []byte("<svg/>")},
		"assets/app-1a2b.js":    {Data: []byte(strings.Repeat("export {};", 50))},
		"assets/app-1a2b.js.br": {Data: []byte("brotli")},
		"assets/app-1a2b.js.gz": {Data: []byte("gzip form")},
	})
}

func ask(t *testing.T, s http.Handler, method, target string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

func TestWhatEachPathAnswers(t *testing.T) {
	for _, c := range []struct {
		path        string
		status      int
		contentType string
		cache       string
	}{
		{"/", 200, "text/html; charset=utf-8", "no-store"},
		{"/index.html", 200, "text/html; charset=utf-8", "no-store"},
		{"/settings", 200, "text/html; charset=utf-8", "no-store"},
		{"/room/!abc:example.org", 200, "text/html; charset=utf-8", "no-store"},
		{"/icon.svg", 200, "image/svg+xml", "no-cache"},
		{"/assets/app-1a2b.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"/assets/app-gone.js", 404, "text/plain; charset=utf-8", "no-store"},
		{"/assets/app-1a2b.js.br", 404, "text/plain; charset=utf-8", "no-store"},
		{"/assets", 200, "text/html; charset=utf-8", "no-store"},
		{"/assets/none", 404, "text/plain; charset=utf-8", "no-store"},
		{"/favicon.ico", 404, "text/plain; charset=utf-8", "no-store"},
		{"/.keep", 404, "text/plain; charset=utf-8", "no-store"},
		{"/_matrix/client/v3/none", 404, "text/plain; charset=utf-8", "no-store"},
		{"/../../etc/passwd", 200, "text/html; charset=utf-8", "no-store"},
	} {
		got := ask(t, built(), "GET", c.path)
		if got.StatusCode != c.status || got.Header.Get("Content-Type") != c.contentType || got.Header.Get("Cache-Control") != c.cache {
			t.Errorf("%s: %d %q %q, want %d %q %q", c.path, got.StatusCode, got.Header.Get("Content-Type"), got.Header.Get("Cache-Control"), c.status, c.contentType, c.cache)
		}
	}
}

// Every answer, errors too, bears the whole policy: a page that could be made to run script is one that could use keys.
func TestEveryAnswerIsUnderThePolicy(t *testing.T) {
	for _, path := range []string{"/", "/icon.svg", "/assets/app-1a2b.js", "/none.txt"} {
		h := ask(t, built(), "GET", path).Header
		csp := h.Get("Content-Security-Policy")
		for _, directive := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self';", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, directive) {
				t.Errorf("%s: the policy lacks %q: %s", path, directive, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "data:") {
			t.Errorf("%s: the policy has a hole: %s", path, csp)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestSmallestAcceptedForm(t *testing.T) {
	for accept, want := range map[string]string{
		"":                          "",
		"identity":                  "",
		"gzip, deflate":             "gzip",
		"gzip, deflate, br, zstd":   "br",
		"br;q=0, gzip;q=0.5":        "gzip",
		"gzip;q=0, br;q=0.000":      "",
		"brotli, xgzip, gzip/evil ": "",
	} {
		got := ask(t, built(), "GET", "/assets/app-1a2b.js", "Accept-Encoding", accept)
		if coding := got.Header.Get("Content-Encoding"); coding != want || got.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: %q, want %q", accept, coding, want)
		}
	}
}

func TestHeadAndUnchanged(t *testing.T) {
	head := ask(t, built(), "HEAD", "/assets/app-1a2b.js")
	if head.StatusCode != 200 || head.ContentLength != 500 {
		t.Errorf("HEAD: %d with length %d", head.StatusCode, head.ContentLength)
	}
	etag := ask(t, built(), "GET", "/icon.svg").Header.Get("ETag")
	if got := ask(t, built(), "GET", "/icon.svg", "If-None-Match", etag); got.StatusCode != http.StatusNotModified {
		t.Errorf("the same file again: %d", got.StatusCode)
	}
	if got := ask(t, built(), "GET", "/", "If-None-Match", "*"); got.StatusCode != 200 {
		t.Errorf("the page is always sent: %d", got.StatusCode)
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE"} {
		got := ask(t, built(), method, "/")
		if got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, got.StatusCode)
		}
	}
}

// A fresh clone has only the placeholder: the server runs, and says what to do.
func TestWithoutTheClient(t *testing.T) {
	s := newSite(fstest.MapFS{".keep": {Data: []byte("keep")}})
	if got := ask(t, s, "GET", "/"); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a client: %d", got.StatusCode)
	}
	if got := ask(t, Handler(), "GET", "/none.txt"); got.StatusCode != http.StatusNotFound {
		t.Errorf("the embedded site: %d", got.StatusCode)
	}
}
