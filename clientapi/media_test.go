package clientapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

// request makes a request with headers of its own.
func request(t *testing.T, u *testserver.User, method, path string, body io.Reader, header ...string) *testserver.Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, u.Server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if u.Token != "" {
		req.Header.Set("Authorization", "Bearer "+u.Token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := shapes.Do(t, http.DefaultClient, req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	a := &testserver.Answer{Status: res.StatusCode, Header: res.Header}
	if a.Raw, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return a
}

// upload stores a file and returns server and ID of its mxc URI, with a slash between.
func upload(t *testing.T, u *testserver.User, kind, name string, content []byte) string {
	t.Helper()
	a := request(t, u, "POST", "/_matrix/media/v3/upload?filename="+url.QueryEscape(name), bytes.NewReader(content), "Content-Type", kind)
	text := string(a.Raw)
	place, ok := strings.CutPrefix(text, `{"content_uri":"mxc://`)
	if a.Status != 200 || !ok {
		t.Fatalf("upload: %d %s", a.Status, text)
	}
	return strings.TrimSuffix(place, `"}`)
}

const download = "/_matrix/client/v1/media/download/"

func TestMediaOverHTTP(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_MEDIA_MAX_UPLOAD_BYTES=3000000"}})
		alice, bob := s.Register("alice"), s.Register("bob")
		t.Run("content", func(t *testing.T) { testContent(t, alice, bob) })
		t.Run("headers", func(t *testing.T) { testHeaders(t, alice) })
		t.Run("bounds", func(t *testing.T) { testBounds(t, s, alice) })
		t.Run("reserved", func(t *testing.T) { testReserved(t, alice, bob) })
		t.Run("redirects", func(t *testing.T) { testRedirects(t, alice) })
		t.Run("large bodies", func(t *testing.T) { testLargeBodies(t, alice) })
		t.Run("hostile paths", func(t *testing.T) { testPaths(t, alice) })
		t.Run("thumbnails", func(t *testing.T) { testThumbnails(t, alice) })
		t.Run("no previews", func(t *testing.T) { testNoPreviews(t, alice) })
	})
}

func testContent(t *testing.T, alice, bob *testserver.User) {
	proof.Of(t, "ME-02")
	content := make([]byte, 2_500_000)
	rand.Read(content)
	place := upload(t, alice, "application/octet-stream", "a \"file\".bin", content)
	a := request(t, bob, "GET", download+place, nil)
	if a.Status != 200 || sha256.Sum256(a.Raw) != sha256.Sum256(content) {
		t.Fatalf("download: %d, %d bytes", a.Status, len(a.Raw))
	}
	etag := a.Header.Get("ETag")
	if etag == "" || !strings.Contains(a.Header.Get("Cache-Control"), "immutable") || strings.Contains(a.Header.Get("Cache-Control"), "public") {
		t.Errorf("headers %v", a.Header)
	}
	if a = request(t, bob, "GET", download+place, nil, "If-None-Match", etag); a.Status != 304 || len(a.Raw) != 0 {
		t.Errorf("asked again: %d, %d bytes", a.Status, len(a.Raw))
	}
	if a = request(t, bob, "GET", download+place, nil, "Range", "bytes=100-199"); a.Status != 206 || !bytes.Equal(a.Raw, content[100:200]) {
		t.Errorf("a part: %d, %d bytes", a.Status, len(a.Raw))
	}
	if a = request(t, bob, "GET", download+place, nil, "Range", "bytes=0-0,2-2,4-4,100-199"); a.Status != 200 || !bytes.Equal(a.Raw, content) {
		t.Errorf("many parts at once: %d, %d bytes", a.Status, len(a.Raw))
	}
	if a = request(t, bob, "GET", download+place, nil, "Range", "bytes=9999999-"); a.Status != 416 {
		t.Errorf("a part that is not there: %d", a.Status)
	}
	if a = request(t, bob, "HEAD", download+place, nil); a.Status != 200 || a.Header.Get("Content-Length") != "2500000" || len(a.Raw) != 0 {
		t.Errorf("HEAD: %d %v", a.Status, a.Header)
	}
	// The old operations are frozen for those without a token.
	nobody := alice.Server.Nobody()
	for _, path := range []string{"download/" + place, "thumbnail/" + place + "?width=1&height=1"} {
		nobody.Refused(401, "M_MISSING_TOKEN", "GET", "/_matrix/client/v1/media/"+path, nil)
		nobody.Refused(404, "M_NOT_FOUND", "GET", "/_matrix/media/v3/"+path, nil)
		nobody.Refused(404, "M_NOT_FOUND", "GET", "/_matrix/media/r0/"+path, nil)
	}
	for _, path := range []string{place, place + "/by-name.bin"} {
		nobody.Refused(404, "M_NOT_FOUND", "GET", "/_matrix/media/v3/download/"+path, nil)
		if a = bob.Must("GET", "/_matrix/media/v3/download/"+path, nil); !bytes.Equal(a.Raw, content) {
			t.Errorf("the old operation, with a token: %d bytes", len(a.Raw))
		}
	}
	if how := a.Header.Get("Content-Disposition"); how != "attachment; filename=by-name.bin" {
		t.Errorf("by another name: %q", how)
	}
	nobody.Refused(401, "M_MISSING_TOKEN", "POST", "/_matrix/media/v3/upload", []byte("x"))
}

// testRedirects asks with every word about redirects: the content itself is what comes. A server may redirect who allows it,
// and this one never does: where its files are is nobody's to know.
func testRedirects(t *testing.T, alice *testserver.User) {
	proof.Of(t, "ME-08")
	place := upload(t, alice, "text/plain", "x.txt", []byte("here"))
	for _, query := range []string{"", "?allow_redirect=false", "?allow_redirect=true"} {
		for _, path := range []string{download, "/_matrix/media/v3/download/"} {
			if a := request(t, alice, "GET", path+place+query, nil); a.Status != 200 || string(a.Raw) != "here" || a.Header.Get("Location") != "" {
				t.Errorf("%s%s: %d %q", path, query, a.Status, a.Raw)
			}
		}
	}
}

// testLargeBodies sends what is larger than a request may be, in the content type of a form, to operations that read JSON.
func testLargeBodies(t *testing.T, alice *testserver.User) {
	proof.Of(t, "M08")
	for _, path := range []string{"/_matrix/client/v3/createRoom", "/_matrix/client/v3/login", "/_matrix/client/v3/keys/upload", uploads} {
		body := struct{ io.Reader }{io.LimitReader(endless{}, 64<<20)}
		req, err := http.NewRequestWithContext(t.Context(), "POST", alice.Server.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+alice.Token)
		req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			continue // the server has closed the connection while the client still sent
		}
		_ = res.Body.Close()                                // only the status counts
		if res.StatusCode != 413 && res.StatusCode != 412 { // 412: the version of tus is missing, and the body is not read
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	alice.Must("GET", "/_matrix/client/v3/account/whoami", nil)
}

func testHeaders(t *testing.T, alice *testserver.User) {
	proof.Of(t, "ME-04", "M02")
	for _, c := range []struct{ sent, kind, how string }{
		{"text/html", "text/html", "attachment"},
		{"image/svg+xml", "image/svg+xml", "attachment"},
		{"application/xhtml+xml", "application/xhtml+xml", "attachment"},
		{"application/pdf", "application/pdf", "attachment"},
		{"text/javascript", "text/javascript", "attachment"},
		{"image/png", "image/png", "inline"},
		{"IMAGE/PNG", "image/png", "inline"},
		{"text/plain; charset=utf-8", "text/plain; charset=utf-8", "inline"},
		{"image/png, text/html", "application/octet-stream", "attachment"},
		{"image", "application/octet-stream", "attachment"},
		{"", "application/octet-stream", "attachment"},
	} {
		name := "naïve \"x\"; <b>.html"
		place := upload(t, alice, c.sent, name, []byte("<script>alert(1)</script>"))
		a := request(t, alice, "GET", download+place, nil)
		how, params, err := mime.ParseMediaType(a.Header.Get("Content-Disposition"))
		if err != nil || how != c.how || params["filename"] != name || a.Header.Get("Content-Type") != c.kind {
			t.Errorf("%q came back as %q, %q", c.sent, a.Header.Get("Content-Type"), a.Header.Get("Content-Disposition"))
		}
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*",
		} {
			if a.Header.Get(header) != want {
				t.Errorf("%s: %q", header, a.Header.Get(header))
			}
		}
		if csp := a.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox; default-src 'none'") {
			t.Errorf("policy %q", csp)
		}
		a = request(t, alice, "GET", download+place+"/"+url.PathEscape("other name.txt"), nil)
		if _, params, _ := mime.ParseMediaType(a.Header.Get("Content-Disposition")); params["filename"] != "other name.txt" {
			t.Errorf("by another name: %q", a.Header.Get("Content-Disposition"))
		}
	}
	// A name without a header that it could write is left out.
	place := upload(t, alice, "text/plain", "", []byte("x"))
	a := request(t, alice, "GET", download+place+"/a%0d%0aSet-Cookie:%20x", nil)
	if a.Status != 200 || a.Header.Get("Content-Disposition") != "inline" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("%d %v", a.Status, a.Header)
	}
}

func testBounds(t *testing.T, s *testserver.Server, alice *testserver.User) {
	if a := alice.Must("GET", "/_matrix/client/v1/media/config", nil); a.Body["m.upload.size"] != float64(3_000_000) {
		t.Errorf("config %s", a.Raw)
	}
	alice.Must("GET", "/_matrix/media/v3/config", nil)
	before := tree(t, s)
	alice.Refused(413, "M_TOO_LARGE", "POST", "/_matrix/media/v3/upload", make([]byte, 3_000_001))
	alice.Refused(400, "M_INVALID_PARAM", "POST", "/_matrix/media/v3/upload?filename=a%00b", []byte("x"))
	// Without a length, and longer than allowed.
	body := io.LimitReader(endless{}, 4_000_000)
	if a := request(t, alice, "POST", "/_matrix/media/v3/upload", struct{ io.Reader }{body}); a.Status != 413 {
		t.Errorf("without a length: %d %s", a.Status, a.Raw)
	}
	// A client that goes away in the middle leaves nothing, and who announces more than it sends neither.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nhalf", alice.Token)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 4") {
		t.Errorf("half an upload: %q, %v", answer, err)
	}
	if after := tree(t, s); after != before {
		t.Errorf("the store changed from\n%s to\n%s", before, after)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// tree lists the files of a server's media store.
func tree(t *testing.T, s *testserver.Server) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(filepath.Join(s.DataDir(), "media"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			fmt.Fprintln(&list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

func testReserved(t *testing.T, alice, bob *testserver.User) {
	proof.Of(t, "ME-03")
	a := alice.Must("POST", "/_matrix/media/v1/create", nil)
	uri, _ := a.Body["content_uri"].(string)
	place := strings.TrimPrefix(uri, "mxc://")
	if _, ok := a.Body["unused_expires_at"].(float64); !ok || place == uri {
		t.Fatalf("create: %s", a.Raw)
	}
	bob.Refused(504, "M_NOT_YET_UPLOADED", "GET", download+place+"?timeout_ms=0", nil)
	bob.Refused(400, "M_INVALID_PARAM", "GET", download+place+"?timeout_ms=soon", nil)
	bob.Refused(403, "M_FORBIDDEN", "PUT", "/_matrix/media/v3/upload/"+place, []byte("x"))
	got := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", bob.Server.URL+download+place+"?timeout_ms=50000", nil)
		req.Header.Set("Authorization", "Bearer "+bob.Token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close() //nolint:errcheck // it is read
		raw, _ := io.ReadAll(res.Body)
		got <- string(raw)
	}()
	alice.Must("PUT", "/_matrix/media/v3/upload/"+place, []byte("later"))
	if text := <-got; text != "later" {
		t.Errorf("who waited got %q", text)
	}
	alice.Refused(409, "M_CANNOT_OVERWRITE_MEDIA", "PUT", "/_matrix/media/v3/upload/"+place, []byte("again"))
	alice.Refused(404, "M_NOT_FOUND", "PUT", "/_matrix/media/v3/upload/"+string(alice.Server.Name)+"/unknown", []byte("x"))
}

func testPaths(t *testing.T, alice *testserver.User) {
	proof.Of(t, "ME-01", "M01")
	before := tree(t, alice.Server)
	defer func() {
		if after := tree(t, alice.Server); after != before {
			t.Errorf("the store changed from\n%s to\n%s", before, after)
		}
	}()
	for _, id := range []string{"..%2f..%2fsigning.key", "%2e%2e", "a%00b", "..%5c..", "․․", "%ff", strings.Repeat("a", 300), "a%252fb", "x.y"} {
		for _, server := range []string{string(alice.Server.Name), "..%2f..", "%00", "them.test:x", "[::1"} {
			for _, path := range []string{download, "/_matrix/client/v1/media/thumbnail/", "/_matrix/media/v3/download/"} {
				a := request(t, alice, "GET", path+server+"/"+id+"?width=1&height=1", nil)
				if a.Status != 404 && a.Status != 400 {
					t.Errorf("GET %s%s/%s: %d %s", path, server, id, a.Status, a.Raw)
				}
			}
		}
	}
}

func testThumbnails(t *testing.T, alice *testserver.User) {
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 500, 250))); err != nil {
		t.Fatal(err)
	}
	place := upload(t, alice, "image/png", "x.png", picture.Bytes())
	a := request(t, alice, "GET", "/_matrix/client/v1/media/thumbnail/"+place+"?width=90&height=90&method=crop&animated=true", nil)
	img, format, err := image.Decode(bytes.NewReader(a.Raw))
	if err != nil || format != "jpeg" || img.Bounds().Dx() != 96 || img.Bounds().Dy() != 96 || a.Header.Get("Content-Type") != "image/jpeg" {
		t.Errorf("%d, %s, %v", a.Status, format, err)
	}
	bare := strings.TrimPrefix(request(t, alice, "GET", "/_matrix/media/v3/thumbnail/"+place+"?width=90&height=90&method=crop", nil).Header.Get("Content-Type"), "image/")
	if bare != "jpeg" {
		t.Errorf("the old operation, with a token: %q", bare)
	}
	if how, _, _ := mime.ParseMediaType(a.Header.Get("Content-Disposition")); how != "inline" {
		t.Errorf("disposition %q", a.Header.Get("Content-Disposition"))
	}
	for _, query := range []string{"", "?width=1", "?width=0&height=1", "?width=1&height=x", "?width=1&height=1&method=stretch"} {
		alice.Refused(400, "M_INVALID_PARAM", "GET", "/_matrix/client/v1/media/thumbnail/"+place+query, nil)
	}
	text := upload(t, alice, "image/png", "x.png", []byte("no picture"))
	alice.Refused(400, "M_UNKNOWN", "GET", "/_matrix/client/v1/media/thumbnail/"+text+"?width=1&height=1", nil)
}
