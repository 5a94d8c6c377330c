package media

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/netguard"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// site is a web site of a test, on loopback.
type site struct {
	*httptest.Server
	mux  *http.ServeMux
	mu   sync.Mutex
	seen []*http.Request
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{mux: http.NewServeMux()}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		s.mu.Unlock()
		s.mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections() // some handlers end with their request alone
		s.Close()
	})
	return s
}

func (s *site) port() string { return s.URL[strings.LastIndexByte(s.URL, ':')+1:] }

// asked is how often a path was asked for, "" for all.
func (s *site) asked(path string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		if path == "" || r.URL.Path == path {
			n++
		}
	}
	return n
}

// requests are all that came.
func (s *site) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// page serves a fixed answer under a path.
func (s *site) page(path, kind, body string) {
	s.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	})
}

// noNames is a resolver that asks nobody: no question of a test leaves the machine.
var noNames = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no names") }}

// browsing lets a world look at pages. Of private addresses only allow may be reached, and only ports beside 80 and 443.
func (w *world) browsing(trust *tls.Config, ports []string, allow ...string) {
	w.t.Helper()
	var prefixes []netip.Prefix
	for _, text := range allow {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	client := netguard.NewDialer(prefixes, noNames).HTTPClient(netguard.HTTPOptions{TLS: trust, Total: time.Minute, Idle: time.Minute})
	w.t.Cleanup(client.CloseIdleConnections)
	w.options.Web = client
	w.options.Config.URLPreviews.Ports = ports
	w.restart()
}

func (w *world) preview(address string) (Preview, error) {
	return w.Preview(w.t.Context(), PreviewQuery{URL: address, User: 1})
}

const htmlUTF8 = "text/html; charset=utf-8"

func TestPreviews(t *testing.T) {
	proof.Of(t, "ME-07", "O07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w, s := newWorld(t, db), newSite(t)
		_, err := w.preview(s.URL)
		wantCode(t, err, 404, "M_UNRECOGNIZED") // off unless somebody hands in the web
		w.browsing(nil, []string{s.port()}, "127.0.0.1/32")

		turned := oriented(asJPEG(t, quarters(40, 20)), 6, binary.BigEndian)
		var moving bytes.Buffer
		still := image.NewPaletted(image.Rect(0, 0, 6, 4), color.Palette{color.Black, color.White})
		must(t, gif.EncodeAll(&moving, &gif.GIF{Image: []*image.Paletted{still, still}, Delay: []int{1, 1}}))
		pictures := map[string][]byte{"/p.png": asPNG(t, quarters(48, 36)), "/p.jpg": turned, "/p.gif": moving.Bytes()}
		for path, data := range pictures {
			s.page(path, "application/octet-stream", string(data)) // its bytes say what it is
			s.page("/named"+path, "image/png", string(data))
			s.page("/page"+path, htmlUTF8, `<meta property=og:title content=x><meta property=og:image:alt content=alt><meta property=og:image content="`+path+`">`)
		}
		s.page("/plain/page", htmlUTF8, "<title>Words</title>")
		s.page("/empty", htmlUTF8, "")
		for _, hop := range []string{"1", "2", "3"} {
			s.mux.Handle("/hop"+hop+"/", http.StripPrefix("/hop"+hop, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				to := map[string]string{"1": "", "2": "/hop1", "3": "/hop2"}[hop]
				http.Redirect(w, r, to+r.URL.Path+"#fragment", http.StatusFound)
			})))
		}
		picture := func(kind string, width, height int, path string) Preview {
			return Preview{"og:image:type": "image/" + kind, "og:image:width": width, "og:image:height": height, "matrix:image:size": int64(len(pictures[path]))}
		}
		with := func(p Preview) Preview {
			p["og:title"], p["og:image:alt"] = "x", "alt"
			return p
		}
		for path, want := range map[string]Preview{
			"/page/p.png": with(picture("png", 48, 36, "/p.png")), "/page/p.jpg": with(picture("jpeg", 20, 40, "/p.jpg")), "/page/p.gif": with(picture("gif", 6, 4, "/p.gif")),
			"/named/p.png": picture("png", 48, 36, "/p.png"), "/named/p.jpg": picture("jpeg", 20, 40, "/p.jpg"),
			"/plain/page": {"og:title": "Words"}, "/empty": {}, "/hop3/plain/page": {"og:title": "Words"}, "/hop1/page/p.png#x": with(picture("png", 48, 36, "/p.png")),
		} {
			got, err := w.preview(s.URL + path)
			must(t, err)
			told := maps.Clone(got)
			delete(told, "og:image")
			if !maps.Equal(told, want) {
				t.Errorf("%s: %v, want %v", path, told, want)
			}
			uri, there := got["og:image"].(string)
			if there != (want["og:image:type"] != nil) {
				t.Errorf("%s: picture %q", path, uri)
			}
			if there {
				id, ours := strings.CutPrefix(uri, "mxc://"+string(us)+"/")
				data, c, err := w.read(Query{Server: us, ID: id})
				if !ours || err != nil || int64(len(data)) != want["matrix:image:size"] || c.Type != want["og:image:type"] {
					t.Errorf("%s: %q has %d bytes, %v", path, uri, len(data), err)
				}
			}
		}
		if n, err := Verify(t.Context(), db, w.options.Config, w.options.Log, true, func(f store.Finding) { t.Error(f) }); err != nil || n != 6 {
			t.Errorf("%d files are verified, %v", n, err)
		}
	})
}

// TestWhatASiteLearns shows that nothing of the person who asks is sent on but a language, and not even that as it came.
func TestWhatASiteLearns(t *testing.T) {
	proof.Of(t, "O06", "O07")
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
	s.mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "who", Value: "you", Path: "/"})
		http.Redirect(w, r, "/page?token=x", http.StatusFound)
	})
	s.page("/page", htmlUTF8, `<meta property=og:image content=/none>`)
	for sent, want := range map[string]string{
		"": "", "de": "de", "de-CH, de;q=0.9,en;q=0.8, *;q=0.1": "de-CH,de;q=0.9,en;q=0.8,*;q=0.1",
		"de\r\nX: y": "", "de;q=2": "", "x y;z": "", strings.Repeat("de,", 50) + "de": "", "de,,en": "", "tracking-of-somebody-by-letters": "tracking-of-somebody-by-letters",
	} {
		before := len(s.requests())
		_, err := w.Preview(t.Context(), PreviewQuery{URL: s.URL + "/set", User: 1, Language: sent})
		must(t, err)
		for _, r := range s.requests()[before:] {
			got := r.Header.Clone()
			if len(got) > 3 || got.Get("User-Agent") != previewAgent || got.Get("Accept") == "" || got.Get("Accept-Language") != want || len(got["Accept-Language"]) > 1 {
				t.Errorf("with %q, %s is asked with %q", sent, r.URL.Path, got)
			}
		}
	}
}

func TestAddressesOfPreviews(t *testing.T) {
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
	_, err := w.preview("")
	wantCode(t, err, 400, "M_MISSING_PARAM")
	for _, address := range []string{
		"x", "//127.0.0.1/", "http:127.0.0.1", "http:///x", "ftp://127.0.0.1/", "file:///etc/passwd", "javascript:alert(1)", "data:text/html,x", "HTTPS://", "http://[::1", "http://a b/",
		"http://127.0.0.1:22/", "http://127.0.0.1:8008/", "http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://user@127.0.0.1/", "http://user:pass@127.0.0.1/", "http://@127.0.0.1/",
		"http://127.0.0.1/\x00", "http://127.0.0.1/\n", "http://127.0.0.1/%zz", "http://127.0.0.1/" + strings.Repeat("a", maxPageURL),
	} {
		if _, err := w.preview(address); err == nil {
			t.Errorf("%q has a preview", address)
		} else {
			wantCode(t, err, 400, "M_INVALID_PARAM")
		}
	}
	// One page is one page, however its address is spelled.
	s.page("/", htmlUTF8, "<title>x</title>")
	for _, address := range []string{s.URL, s.URL + "/", s.URL + "/#a", strings.Replace(s.URL, "http", "HTTP", 1)} {
		told, err := w.preview(address)
		if err != nil || told["og:title"] != "x" {
			t.Errorf("%q: %v, %v", address, told, err)
		}
	}
	if n := s.asked(""); n != 1 {
		t.Errorf("%d requests for one page", n)
	}
	for address, want := range map[string]string{"HTTP://EXAMPLE.org:80": "http://example.org/", "https://a:443/B?c#d": "https://a/B?c", "http://a:443/": "http://a:443/"} {
		if u, err := w.previews.parse(address); err != nil || u.String() != want {
			t.Errorf("%q is remembered as %v, %v", address, u, err)
		}
	}
}

func TestPreviewsAreRemembered(t *testing.T) {
	proof.Of(t, "ME-07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w, s := newWorld(t, db), newSite(t)
		w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
		var broken atomic.Bool
		s.page("/p.png", "image/png", string(asPNG(t, quarters(8, 8))))
		s.mux.HandleFunc("/flaky.png", func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			http.Redirect(w, r, "/p.png", http.StatusFound)
		})
		s.page("/page", htmlUTF8, "<title>x</title><meta property=og:image content=/flaky.png>")
		picture := func() string {
			told, err := w.preview(s.URL + "/page")
			if err != nil || told["og:title"] != "x" {
				t.Errorf("%v, %v", told, err)
			}
			uri, _ := told["og:image"].(string)
			return uri
		}
		wantAsked := func(path string, n int) {
			t.Helper()
			if got := s.asked(path); got != n {
				t.Errorf("%s was asked for %d times, want %d", path, got, n)
			}
		}
		first := picture()
		w.pass(previewLife - time.Minute)
		if again := picture(); first == "" || again != first {
			t.Errorf("%q, then %q", first, again)
		}
		wantAsked("/page", 1)
		w.pass(2 * time.Minute)
		second := picture()
		wantAsked("/page", 2)
		// A preview whose picture was given up is not told any more.
		row, err := w.row(t.Context(), Query{Server: us, ID: second[strings.LastIndexByte(second, '/')+1:]})
		must(t, err)
		_, err = w.forget(t.Context(), *row)
		must(t, err)
		if third := picture(); third == "" || third == second {
			t.Errorf("after %q was given up: %q", second, third)
		}
		wantAsked("/page", 3)
		// A picture that did not come is tried again soon; what failed is believed for a minute.
		broken.Store(true)
		w.pass(2 * previewLife)
		if uri := picture(); uri != "" {
			t.Errorf("a broken picture is %q", uri)
		}
		picture()
		wantAsked("/page", 4)
		broken.Store(false)
		w.pass(previewRetry + time.Second)
		if picture() == "" {
			t.Error("the picture is there again")
		}
		for range 2 {
			_, err = w.preview(s.URL + "/none")
			wantCode(t, err, 502, "M_UNKNOWN")
		}
		wantAsked("/none", 1)
		w.pass(previewRetry + time.Second)
		_, err = w.preview(s.URL + "/none")
		wantCode(t, err, 502, "M_UNKNOWN")
		wantAsked("/none", 2)
	})
}

// TestPicturesOfPreviewsStayWithinTheirBound shows that they share the room of other servers' contents, and leave an
// upload alone.
func TestPicturesOfPreviewsStayWithinTheirBound(t *testing.T) {
	proof.Of(t, "O07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w, s := newWorld(t, db), newSite(t)
		w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
		own := w.upload(random(1 << 20))
		data := append(asPNG(t, quarters(8, 8)), random(1<<19)...)
		s.page("/", "image/png", string(data))
		w.copies = 3 * int64(len(data))
		for i := range 8 {
			if _, err := w.preview(fmt.Sprint(s.URL, "/", i)); err != nil {
				t.Error(err)
			}
			w.pass(2 * time.Hour)
		}
		if n := len(w.tree()); n < 2 || n > 4 {
			t.Errorf("%d files are kept", n)
		}
		if _, _, err := w.read(Query{Server: us, ID: own}); err != nil {
			t.Errorf("an upload had to go: %v", err)
		}
	})
}

// TestPreviewsAtOnce shows how many are made at a time: one for all who want the same, few for one user, few in all.
func TestPreviewsAtOnce(t *testing.T) {
	proof.Of(t, "O07")
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
	w.previews.wait, w.previews.time = time.Minute, time.Minute
	goOn := make(chan struct{})
	var now, most atomic.Int64
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-goOn
		now.Add(-1)
		w.Header().Set("Content-Type", htmlUTF8)
	})
	var group sync.WaitGroup
	ask := func(user store.UserNID, page int) {
		group.Go(func() {
			if _, err := w.Preview(context.Background(), PreviewQuery{URL: fmt.Sprintf("%s/%d", s.URL, page), User: user}); err != nil {
				t.Errorf("user %d, page %d: %v", user, page, err)
			}
		})
	}
	begun := func(n int) {
		t.Helper()
		wait.Until(t, fmt.Sprint(n, " previews under way"), func() bool {
			w.previews.places.mu.Lock()
			defer w.previews.places.mu.Unlock()
			return w.previews.places.taken == n
		})
	}
	for page := range previewsEach {
		ask(1, page)
	}
	begun(previewsEach)
	_, err := w.Preview(t.Context(), PreviewQuery{URL: s.URL + "/more", User: 1})
	wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
	for page := range 20 {
		ask(1, page%previewsEach) // under way already
	}
	for page := previewsEach; page < previewsInAll; page++ {
		ask(store.UserNID(2+page/previewsEach), page)
	}
	begun(previewsInAll)
	_, err = w.Preview(t.Context(), PreviewQuery{URL: s.URL + "/more", User: 99})
	wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
	wait.Until(t, "the workers' requests", func() bool { return now.Load() == previewWorkers })
	// Who goes does not make room for more: the work goes on.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Preview(ctx, PreviewQuery{URL: s.URL + "/0", User: 1}); err == nil {
		t.Error("who has gone got an answer")
	}
	begun(previewsInAll)
	close(goOn)
	group.Wait()
	if n := s.asked(""); n != previewsInAll || most.Load() != previewWorkers {
		t.Errorf("%d requests, %d at a time", n, most.Load())
	}
	begun(0)
	_, err = w.Preview(t.Context(), PreviewQuery{URL: s.URL + "/more", User: 1})
	must(t, err)
}

// TestNobodyWaitsLongForAPreview: who gets no worker in time is told to come again.
func TestNobodyWaitsLongForAPreview(t *testing.T) {
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
	w.previews.wait = time.Millisecond
	s.page("/", htmlUTF8, "")
	for range previewWorkers {
		w.previews.workers <- struct{}{}
	}
	_, err := w.preview(s.URL)
	wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
	<-w.previews.workers
	w.previews.wait = time.Minute // so that a place and the end of a millisecond are not there at once
	if _, err = w.preview(s.URL); err != nil || len(w.previews.workers) != previewWorkers-1 {
		t.Errorf("%d workers are busy: %v", len(w.previews.workers), err)
	}
}

// TestPreviewsAreCharged shows that what is fetched counts for who has it fetched, also where nothing comes of it.
func TestPreviewsAreCharged(t *testing.T) {
	w, s := newWorld(t, dbtest.Open(t, "sqlite")), newSite(t)
	w.browsing(nil, []string{s.port()}, "127.0.0.1/32")
	s.page("/", "image/png", strings.Repeat("no picture", 10_000))
	w.allowance.charge(1, allowanceBytes-50_000)
	_, err := w.preview(s.URL + "/a")
	wantCode(t, err, 502, "M_UNKNOWN")
	_, err = w.preview(s.URL + "/b")
	wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
	_, err = w.Preview(t.Context(), PreviewQuery{URL: s.URL + "/b", User: 2})
	wantCode(t, err, 502, "M_UNKNOWN")
}
