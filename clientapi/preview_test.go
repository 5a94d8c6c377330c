package clientapi_test

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// previewPaths are where previews of links are, and were.
var previewPaths = []string{"/_matrix/client/v1/media/preview_url", "/_matrix/media/v3/preview_url", "/_matrix/media/r0/preview_url"}

func previewOf(path, address string) string { return path + "?url=" + url.QueryEscape(address) }

// testNoPreviews: a server that was not told to make previews makes none, and asks nobody.
func testNoPreviews(t *testing.T, alice *testserver.User) {
	proof.Of(t, "O07")
	site, asked := webSite(t, "127.0.0.1", nil)
	for _, path := range previewPaths {
		alice.Server.Nobody().Refused(401, "M_MISSING_TOKEN", "GET", previewOf(path, site), nil)
		alice.Refused(404, "M_UNRECOGNIZED", "GET", previewOf(path, site), nil)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the site had %d connections", n)
	}
}

// webSite serves pages on an address of loopback and counts connections.
func webSite(t *testing.T, host string, pages map[string]string) (address string, connections *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int64)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, body, _ := strings.Cut(pages[r.URL.Path], "\n")
		w.Header().Set("Content-Type", kind)
		if kind == "location" {
			w.Header().Set("Location", body)
			w.WriteHeader(http.StatusFound)
		}
		_, _ = w.Write([]byte(body))
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, connections
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// TestPreviewsOverHTTP: one address of loopback stands for the web, another for the network inside, which other outgoing
// connections may reach (network.allow_private) and previews may not.
func TestPreviewsOverHTTP(t *testing.T) {
	testserver.Each(t, func(t *testing.T, engine string) {
		inside, reached := webSite(t, "127.0.0.2", map[string]string{"/": "text/html\n<title>inside</title>"})
		var picture bytes.Buffer
		if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 48, 36))); err != nil {
			t.Fatal(err)
		}
		site, _ := webSite(t, "127.0.0.1", map[string]string{
			"/page":     `text/html; charset=utf-8` + "\n" + `<head><title>t</title><meta property="og:title" content="A &lt;b&gt; post"><meta name=description content="Words."><meta property="og:image" content="/p.png?secret-of-alice"></head>`,
			"/p.png":    "image/png\n" + picture.String(),
			"/empty":    "text/html\n",
			"/binary":   "application/octet-stream\nx",
			"/inside":   "location\n" + inside,
			"/metadata": "location\nhttp://169.254.169.254/latest/meta-data",
		})
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{
			"CONCLAVE_URL_PREVIEWS_ENABLED=true", "CONCLAVE_URL_PREVIEWS_ALLOW_PRIVATE=127.0.0.1/32", "CONCLAVE_URL_PREVIEWS_PORTS=" + portOf(site) + "," + portOf(inside),
		}})
		alice, bob := s.Register("alice"), s.Register("bob")
		testPreviewShape(t, alice, bob, site, picture.Bytes())
		testPreviewRefusals(t, alice, site, inside)
		if n := reached.Load(); n != 0 {
			t.Errorf("the inside was reached %d times", n)
		}
		// Neither what people link to nor whom they ask stands in the log.
		text, err := os.ReadFile(s.LogFile())
		if err != nil || bytes.Contains(text, []byte("secret-of-alice")) || bytes.Contains(text, []byte(":"+portOf(site))) {
			t.Errorf("the log tells of a page: %v", err)
		}
	})
}

func testPreviewShape(t *testing.T, alice, bob *testserver.User, site string, picture []byte) {
	proof.Of(t, "ME-07")
	for _, path := range previewPaths {
		body := alice.Must("GET", previewOf(path, site+"/page?secret-of-alice")+"&ts=1510610716656", nil).Body
		mxc, _ := body["og:image"].(string)
		place, ours := strings.CutPrefix(mxc, "mxc://")
		delete(body, "og:image")
		want := fmt.Sprint(testserver.JSON{
			"og:title": "A <b> post", "og:description": "Words.", "og:image:type": "image/png", "og:image:width": 48., "og:image:height": 36., "matrix:image:size": float64(len(picture)),
		})
		if got := fmt.Sprint(body); got != want || !strings.HasPrefix(place, string(alice.Server.Name)+"/") || !ours {
			t.Errorf("%s: %s %q, want %s", path, got, mxc, want)
		}
		a := request(t, bob, "GET", download+place, nil)
		if a.Status != 200 || !bytes.Equal(a.Raw, picture) || a.Header.Get("Content-Type") != "image/png" {
			t.Errorf("the picture: %d %q, %d bytes", a.Status, a.Header.Get("Content-Type"), len(a.Raw))
		}
		if a = request(t, bob, "GET", "/_matrix/client/v1/media/thumbnail/"+place+"?width=32&height=32&method=crop", nil); a.Status != 200 {
			t.Errorf("its thumbnail: %d %s", a.Status, a.Raw)
		}
		if a = alice.Must("GET", previewOf(path, site+"/empty"), nil); string(a.Raw) != "{}" {
			t.Errorf("of an empty page: %s", a.Raw)
		}
	}
}

func testPreviewRefusals(t *testing.T, alice *testserver.User, site, inside string) {
	proof.Of(t, "O01", "O02", "O07")
	const path = "/_matrix/client/v1/media/preview_url"
	for _, old := range previewPaths {
		alice.Server.Nobody().Refused(401, "M_MISSING_TOKEN", "GET", previewOf(old, site+"/page"), nil)
		alice.Refused(400, "M_MISSING_PARAM", "GET", old, nil)
	}
	alice.Refused(400, "M_INVALID_PARAM", "GET", previewOf(path, site+"/page")+"&ts=yesterday", nil)
	for _, address := range []string{"page", "file:///etc/passwd", "http://user:pass@127.0.0.1/", "http://127.0.0.1:22/"} {
		alice.Refused(400, "M_INVALID_PARAM", "GET", previewOf(path, address), nil)
	}
	// Whatever is wrong with a page, the answer is the same.
	answers := map[string]bool{}
	for _, address := range []string{
		site + "/binary", site + "/none", site + "/inside", site + "/metadata", inside, strings.Replace(inside, "127.0.0.2", "[::ffff:127.0.0.2]", 1), "http://127.0.0.3/", "http://10.0.0.1/",
		"https" + strings.TrimPrefix(site, "http"),
	} {
		a, err := alice.Do("GET", previewOf(path, address), nil)
		if err != nil || a.Status != 502 || a.Body["errcode"] != "M_UNKNOWN" {
			t.Errorf("%s: %v %s, %v", address, a.Status, a.Raw, err)
		}
		answers[string(a.Raw)] = true
	}
	if len(answers) != 1 {
		t.Errorf("there are %d answers: %v", len(answers), answers)
	}
}

// TestOurClientAsksForNoPreviews: a client that asked would tell the server what a sealed room links to.
func TestOurClientAsksForNoPreviews(t *testing.T) {
	proof.Of(t, "O07")
	read := 0
	err := filepath.WalkDir("../web/src", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".ts" && filepath.Ext(path) != ".tsx" {
			return err
		}
		read++
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("preview_url")) {
			t.Errorf("%s asks for previews", path)
		}
		return err
	})
	if err != nil || read < 50 {
		t.Errorf("%d files of the client were read: %v", read, err)
	}
}
