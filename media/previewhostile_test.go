package media

import (
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// Ways of answering badly. Each begins with what head says, under a content type.

// pour writes as much as anybody takes, and counts it.
func pour(sent *atomic.Int64, kind, head string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, err := io.WriteString(w, head)
		for part := []byte(strings.Repeat(" ", 64<<10)); err == nil && r.Context().Err() == nil; {
			var n int
			n, err = w.Write(part)
			sent.Add(int64(n))
		}
	}
}

// drip writes a byte now and then, never idle for long.
func drip(kind, head string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, head)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
			}
		}
	}
}

// bomb writes zeros without end, packed to a thousandth.
func bomb(kind, head string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, err := io.WriteString(z, head)
		for part := make([]byte, 1<<20); err == nil && r.Context().Err() == nil; {
			_, err = z.Write(part)
		}
	}
}

// headers answers with some headers and a body that may not fit them.
func headers(body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

func redirect(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusFound)
	}
}

// hostile makes a world that looks at a site, both with shorter patience than in life.
func hostile(t *testing.T, patience time.Duration) (*world, *site) {
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
	w.previews.time = patience
	return w, s
}

// refused wants the one answer that does not say why, in good time.
func (w *world) refused(address string) {
	w.t.Helper()
	began := time.Now()
	told, err := w.preview(address)
	if err == nil {
		w.t.Errorf("%s has a preview: %v", address, told)
		return
	}
	wantCode(w.t, err, 502, "M_UNKNOWN")
	if err.Error() != errNoPreview().Error() {
		w.t.Errorf("%s tells %q", address, err)
	}
	if took := time.Since(began); took > w.previews.time+5*time.Second {
		w.t.Errorf("%s took %s", address, took)
	}
}

// titled wants a preview that has a title x and no picture, in good time.
func (w *world) titled(address string) {
	w.t.Helper()
	began := time.Now()
	told, err := w.preview(address)
	if err != nil || told["og:title"] != "x" || told["og:image"] != nil {
		w.t.Errorf("%s: %v, %v", address, told, err)
	}
	if took := time.Since(began); took > w.previews.time+5*time.Second {
		w.t.Errorf("%s took %s", address, took)
	}
}

const (
	beginPNG = "\x89PNG\r\n\x1a\n"
	titleX   = "<title>x</title>"
)

// bad are the ways to answer of which no preview comes, by path.
func bad(s *site, sent *atomic.Int64) map[string]http.HandlerFunc {
	dead := httptest.NewServer(nil)
	dead.Close()
	typed := func(kind, body string, header ...string) http.HandlerFunc {
		return headers(body, append([]string{"Content-Type", kind}, header...)...)
	}
	return map[string]http.HandlerFunc{
		"/loop": redirect("/loop"), "/nowhere": redirect(""), "/odd": redirect("http://[::1"), "/script": redirect("javascript:alert(1)"),
		"/file": redirect("file:///etc/passwd"), "/gopher": redirect("gopher://127.0.0.1/"), "/dead": redirect(dead.URL), "/port": redirect("http://127.0.0.1:1/"),
		"/credentials": redirect(strings.Replace(s.URL, "//", "//user:pass@", 1) + "/hop0"), "/long": redirect("/hop0?" + strings.Repeat("a", maxPageURL)),
		"/hop4": redirect("/hop3"), "/endless.pdf": pour(sent, "application/pdf", "%PDF"), "/endless.png": pour(sent, "image/png", beginPNG),
		"/bomb.png": bomb("image/png", beginPNG), "/bomb.zip": bomb("application/zip", ""),
		"/brotli": typed(htmlUTF8, titleX, "Content-Encoding", "br"), "/twice": typed(htmlUTF8, titleX, "Content-Encoding", "gzip, gzip"),
		"/no_gzip": typed(htmlUTF8, titleX, "Content-Encoding", "gzip"), "/headers": typed(htmlUTF8, titleX, "X", strings.Repeat("x", 1<<20)),
		"/json": typed("application/json", titleX), "/no_type": typed("", titleX), "/odd_type": typed("text/html/x", titleX),
		"/cut_short": typed(htmlUTF8, "<html>", "Content-Length", "99"), "/announced": typed("image/png", beginPNG, "Content-Length", "99999999"),
		"/huge.png": typed("image/png", string(claimedPNG(50_000, 50_000))), "/line.png": typed("image/png", string(claimedPNG(20_000, 1))),
		"/svg": typed("image/svg+xml", `<svg xmlns="http://www.w3.org/2000/svg"/>`), "/html.png": typed("image/png", "<script>"), "/empty.png": typed("image/png", ""),
		"/endless.gif": typed("image/gif", "GIF89a\xff\xff\xff\xff\x00\x00\x00"),
		"/aborts":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"/error":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"/choice":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMultipleChoices) },
	}
}

// TestHostileSites is threats O07 and O05: sites that give too much, packed, in circles or something else. All end within
// their bounds, with one answer that does not say why, and no file stays of them.
func TestHostileSites(t *testing.T) {
	proof.Of(t, "O05", "O07")
	w, s := hostile(t, PreviewTime)
	var sent atomic.Int64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i, to := range []string{"/hop0", "/hop1", "/hop2"} {
		s.mux.Handle(fmt.Sprint("/hop", i+1), redirect(to))
	}
	s.page("/hop0", htmlUTF8, titleX)
	w.titled(s.URL + "/hop3")
	for path, h := range bad(s, &sent) {
		s.mux.HandleFunc(path, h)
		w.refused(s.URL + path)
		s.page("/with"+path, htmlUTF8, titleX+`<meta property=og:image content="`+path+`">`)
		w.titled(s.URL + "/with" + path) // a picture that fails does not cost the page its preview
	}
	w.refused(s.URL + "/none")
	for i, text := range []string{"data:image/png;base64,AAAA", "ftp://a/", "http://u:p@127.0.0.1/", "http://127.0.0.1:22/", "http://[::1", "//", "", strings.Repeat("a", maxPageURL-10)} {
		path := fmt.Sprint("/address", i)
		s.page(path, htmlUTF8, titleX+`<meta property=og:image content="`+text+`">`)
		w.titled(s.URL + path)
	}
	// What the head of a page says counts, however much comes after it.
	for path, h := range map[string]http.HandlerFunc{
		"/ok1": pour(&sent, htmlUTF8, titleX), "/ok2": pour(&sent, htmlUTF8, titleX+"<body>"), "/ok3": bomb(htmlUTF8, titleX),
		"/ok7": pour(&sent, "text/html", titleX), "/ok8": bomb("application/xhtml+xml", titleX+"<script>"),
		"/ok4": drip(htmlUTF8, titleX+"<body>"+strings.Repeat(" ", 8<<10)), "/ok5": headers(titleX+strings.Repeat("<div>", 100_000), "Content-Type", htmlUTF8),
		"/ok6": headers(titleX+strings.Repeat(`<meta property="og:site_name" content="y">`, 10_000), "Content-Type", htmlUTF8),
	} {
		s.mux.HandleFunc(path, h)
		w.titled(s.URL + path)
	}
	runtime.ReadMemStats(&after)
	w.files(0)
	if n := s.asked("/loop"); n != 2*(1+previewHops) {
		t.Errorf("%d requests in circles", n)
	}
	if n := sent.Load() >> 20; n > 100 {
		t.Errorf("%d MiB were read of what has no end", n)
	}
	if made := int64(after.Sys-before.Sys) >> 20; made > 100 {
		t.Errorf("the process grew by %d MiB", made)
	}
}

// TestSlowSites is the part of threats O07 and O04 about time: one deadline holds for a page, its redirects and its
// picture, whatever comes in how slowly.
func TestSlowSites(t *testing.T) {
	proof.Of(t, "O07")
	w, s := hostile(t, 300*time.Millisecond)
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for path, h := range map[string]http.HandlerFunc{
		"/silent": silent, "/drip": drip(htmlUTF8, titleX), "/drip.png": drip("image/png", beginPNG), "/to_drip": redirect("/drip"),
	} {
		s.mux.HandleFunc(path, h)
		w.refused(s.URL + path)
	}
	// A page comes in time, its picture does not. The page does not either where this machine stands still for so long.
	var told Preview
	var err error
	for i := range 10 {
		path := fmt.Sprint("/with", i)
		s.page(path, htmlUTF8, titleX+`<meta property=og:image content=/drip.png>`)
		if told, err = w.preview(s.URL + path); err == nil {
			break
		}
	}
	if err != nil || told["og:title"] != "x" || told["og:image"] != nil {
		t.Errorf("a page with a slow picture: %v, %v", told, err)
	}
	w.files(0)
}

// TestPreviewsStayWithTLS shows that a redirect never leads from https to http, and that certificates are checked.
func TestPreviewsStayWithTLS(t *testing.T) {
	proof.Of(t, "O02")
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	s.page("/", htmlUTF8, titleX)
	mux := http.NewServeMux()
	mux.Handle("/down", redirect(s.URL))
	mux.Handle("/page", headers(titleX, "Content-Type", htmlUTF8))
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are meant to fail
	secure.StartTLS()
	defer secure.Close()
	s.mux.Handle("/up", redirect(secure.URL+"/page"))
	ports := []string{s.port(), secure.URL[strings.LastIndexByte(secure.URL, ':')+1:]}
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	w.browsing(&tls.Config{RootCAs: roots}, ports, "127.0.0.1/32")
	w.titled(secure.URL + "/page")
	w.titled(s.URL + "/up")
	w.refused(secure.URL + "/down")
	if n := s.asked("/"); n != 0 {
		t.Errorf("the plain site was asked %d times", n)
	}
	w.browsing(nil, ports, "127.0.0.1/32")
	w.refused(secure.URL + "/page")
}

// TestPreviewsReachNothingInside is threats O07 and O01 to O03: whatever spells an inner address, as the page, as the
// target of a redirect or as the picture of a page, nothing arrives there, and the answer is as for a site that is down.
func TestPreviewsReachNothingInside(t *testing.T) {
	proof.Of(t, "O01", "O02", "O07")
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	var reached atomic.Int64
	listener, err := net.Listen("tcp4", "127.0.0.2:0") // one address of loopback stands for the outside, this one for the inside
	must(t, err)
	inside := httptest.NewUnstartedServer(nil)
	_ = inside.Listener.Close()
	inside.Listener = listener
	inside.Config.ConnState = func(net.Conn, http.ConnState) { reached.Add(1) }
	inside.Start()
	defer inside.Close()
	port := inside.URL[strings.LastIndexByte(inside.URL, ':')+1:]
	w.browsing(nil, []string{s.port(), port}, "127.0.0.1/32")
	forms := strings.Fields(`127.0.0.2 127.0.2 127.2 0177.0.0.2 0x7f.0.0.2 0x7f000002 2130706434 017700000002 127.0.0.002 0.0.0.0 0 [::] [::1] [::ffff:127.0.0.2] [::ffff:7f00:2]
		[::127.0.0.2] [64:ff9b::127.0.0.2] [64:ff9b:1::7f00:2] [2002:7f00:2::] [2001:0:7f00:2::] [2001::80ff:fffd] [::ffff:127.0.0.2%25lo] [fe80::1%25lo] [fe80::1] [fc00::1] [fec0::1]
		10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 192.168.0.1 198.18.0.1 224.0.0.1 255.255.255.255 [::ffff:169.254.169.254] [2002:a9fe:a9fe::1] [ff02::1] 127.255.255.254`)
	for i, form := range forms {
		for _, scheme := range []string{"http", "https"} {
			target := scheme + "://" + form + ":" + port + "/"
			path := fmt.Sprintf("/%s%d", scheme, i)
			s.mux.Handle("/to"+path, redirect(target))
			s.page("/with"+path, htmlUTF8, titleX+`<meta property=og:image content="`+target+`">`)
			w.refused(target)
			w.refused(s.URL + "/to" + path)
			w.titled(s.URL + "/with" + path)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the inside was reached %d times", n)
	}
	// The test can fail: with leave the inside is there.
	w.browsing(nil, []string{port}, "127.0.0.2/32")
	w.refused(inside.URL)
	if reached.Load() == 0 {
		t.Error("the inside cannot be reached at all")
	}
}
