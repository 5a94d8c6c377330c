package clientapi_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // as tus has it
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/s3"
)

const uploads = "/_matrix/client/unstable/im.conclave.media/upload"

// tus makes a request of the tus protocol.
func tus(t *testing.T, u *testserver.User, method, path string, body []byte, header ...string) *testserver.Answer {
	t.Helper()
	header = append(header, "Tus-Resumable", "1.0.0")
	if method == "PATCH" {
		header = append([]string{"Content-Type", "application/offset+octet-stream"}, header...)
	}
	a := request(t, u, method, path, bytes.NewReader(body), header...)
	if a.Header.Get("Tus-Resumable") != "1.0.0" {
		t.Errorf("%s %s: an answer without the version of tus", method, path)
	}
	return a
}

// announce creates an upload and returns its path.
func announce(t *testing.T, u *testserver.User, length int, header ...string) string {
	t.Helper()
	a := tus(t, u, "POST", uploads, nil, append(header, "Upload-Length", strconv.Itoa(length))...)
	if a.Status != 201 || !strings.HasPrefix(a.Header.Get("Location"), uploads+"/") || a.Header.Get("Upload-Expires") == "" {
		t.Fatalf("announcing %d bytes: %d %s %v", length, a.Status, a.Raw, a.Header)
	}
	return a.Header.Get("Location")
}

// offset asks how many bytes of an upload are durable.
func offset(t *testing.T, u *testserver.User, path string) int {
	t.Helper()
	a := tus(t, u, "HEAD", path, nil)
	n, err := strconv.Atoi(a.Header.Get("Upload-Offset"))
	if a.Status != 200 || err != nil || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("HEAD: %d %v", a.Status, a.Header)
	}
	return n
}

func wantStatus(t *testing.T, what string, a *testserver.Answer, status int) {
	t.Helper()
	if a.Status != status {
		t.Errorf("%s: %d %s, want %d", what, a.Status, a.Raw, status)
	}
}

func TestResumableUploads(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		env := []string{"CONCLAVE_MEDIA_MAX_UPLOAD_BYTES=1000000", "CONCLAVE_MEDIA_MAX_RESUMABLE_BYTES=50000000"}
		if engine == "postgres" { // the one on a folder, the other in a bucket
			env = append(env, s3.Start(t).Env()...)
		}
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: env})
		alice, bob := s.Register("alice"), s.Register("bob")
		t.Run("whole", func(t *testing.T) { testWholeUpload(t, alice, bob) })
		t.Run("checksums", func(t *testing.T) { testChecksums(t, alice) })
		t.Run("interrupted", func(t *testing.T) { testInterrupted(t, alice) })
		t.Run("refusals", func(t *testing.T) { testUploadRefusals(t, alice) })
		s.Stop()
		if out, ok := s.Run("verify", "-full"); !ok {
			t.Errorf("afterwards: %s", out)
		}
	})
}

func testWholeUpload(t *testing.T, alice, bob *testserver.User) {
	content := make([]byte, 20_000_003) // more than a piece, and not a whole number of anything
	rand.Read(content)
	sum := sha256.Sum256(content)
	meta := "filename " + base64.StdEncoding.EncodeToString([]byte("a film.webm")) + ",filetype " + base64.StdEncoding.EncodeToString([]byte("video/webm")) +
		",sha256 " + base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(sum[:]))) + ",other"
	path := announce(t, alice, len(content), "Upload-Metadata", meta)
	at := 0
	for _, end := range []int{1, 1, 5_000_000, 5_000_001, 19_999_999, len(content)} {
		if got := offset(t, alice, path); got != at {
			t.Fatalf("%d bytes are durable, want %d", got, at)
		}
		a := tus(t, alice, "PATCH", path, content[at:end], "Upload-Offset", strconv.Itoa(at))
		if a.Status != 204 || a.Header.Get("Upload-Offset") != strconv.Itoa(end) {
			t.Fatalf("bytes %d to %d: %d %s %v", at, end, a.Status, a.Raw, a.Header)
		}
		at = end
		wantStatus(t, "an offset before the end", tus(t, alice, "PATCH", path, []byte("x"), "Upload-Offset", strconv.Itoa(at-1)), 409)
		if uri := a.Header.Get("Im-Conclave-Content-Uri"); (uri != "") != (end == len(content)) {
			t.Errorf("after %d bytes the content is %q", end, uri)
		}
		// Somebody else's upload is nobody's.
		for _, method := range []string{"HEAD", "GET", "PATCH", "DELETE"} {
			wantStatus(t, method+" of somebody else", tus(t, bob, method, path, nil, "Upload-Offset", strconv.Itoa(at)), 404)
		}
	}
	a := tus(t, alice, "HEAD", path, nil)
	uri := a.Header.Get("Im-Conclave-Content-Uri")
	place, ok := strings.CutPrefix(uri, "mxc://")
	if !ok || a.Header.Get("Upload-Length") != strconv.Itoa(len(content)) || !strings.Contains(a.Header.Get("Upload-Metadata"), "filename YSBmaWxtLndlYm0=") {
		t.Errorf("HEAD of the complete upload: %v", a.Header)
	}
	if got := alice.Must("GET", path, nil).Body["content_uri"]; got != uri {
		t.Errorf("GET names %v, HEAD %q", got, uri)
	}
	got := request(t, bob, "GET", download+place, nil)
	if sha256.Sum256(got.Raw) != sum || got.Header.Get("Content-Type") != "video/webm" {
		t.Errorf("%d bytes of %s came back", len(got.Raw), got.Header.Get("Content-Type"))
	}
	if _, params, _ := mime.ParseMediaType(got.Header.Get("Content-Disposition")); params["filename"] != "a film.webm" {
		t.Errorf("disposition %q", got.Header.Get("Content-Disposition"))
	}
	if part := request(t, bob, "GET", download+place, nil, "Range", "bytes=16777210-16777229"); part.Status != 206 || !bytes.Equal(part.Raw, content[16777210:16777230]) {
		t.Errorf("a part across two pieces: %d, %d bytes", part.Status, len(part.Raw))
	}
	wantStatus(t, "ending what is complete", tus(t, alice, "DELETE", path, nil), 409)
}

func testChecksums(t *testing.T, alice *testserver.User) {
	first, second := []byte("first bytes,"), []byte("and second ones")
	path := announce(t, alice, len(first)+len(second))
	one, two := sha1.Sum(first), sha256.Sum256(second) //nolint:gosec // as tus has it
	sent := func(body []byte, at int, algorithm string, sum []byte) *testserver.Answer {
		return tus(t, alice, "PATCH", path, body, "Upload-Offset", strconv.Itoa(at), "Upload-Checksum", algorithm+" "+base64.StdEncoding.EncodeToString(sum))
	}
	wantStatus(t, "sha1", sent(first, 0, "sha1", one[:]), 204)
	wantStatus(t, "other bytes", sent(first, len(first), "sha256", two[:]), 460)
	wantStatus(t, "an unknown algorithm", sent(second, len(first), "crc32", two[:4]), 400)
	wantStatus(t, "half a sum", sent(second, len(first), "sha256", two[:4]), 400)
	if got := offset(t, alice, path); got != len(first) {
		t.Errorf("%d bytes are durable, want %d", got, len(first))
	}
	a := sent(second, len(first), "sha256", two[:])
	if a.Status != 204 {
		t.Fatalf("the right bytes: %d %s", a.Status, a.Raw)
	}
	place := strings.TrimPrefix(a.Header.Get("Im-Conclave-Content-Uri"), "mxc://")
	if got := request(t, alice, "GET", download+place, nil); string(got.Raw) != string(first)+string(second) {
		t.Errorf("came back as %q", got.Raw)
	}
	// The whole has other bytes than were announced.
	path = announce(t, alice, 4, "Upload-Metadata", "sha256 "+base64.StdEncoding.EncodeToString([]byte(hex.EncodeToString(two[:]))))
	wantStatus(t, "another file", tus(t, alice, "PATCH", path, []byte("evil"), "Upload-Offset", "0"), 460)
	wantStatus(t, "afterwards", tus(t, alice, "HEAD", path, nil), 404)
}

// testInterrupted sends a part of a request and breaks off, or stops without going away.
func testInterrupted(t *testing.T, alice *testserver.User) {
	content := make([]byte, 700_000)
	rand.Read(content)
	path := announce(t, alice, len(content))
	begin := func(at, bytes int) net.Conn { // returns when the server has begun to read
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(alice.Server.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"+
			"Expect: 100-continue\r\nUpload-Offset: %d\r\nContent-Length: %d\r\n\r\n", path, alice.Token, at, len(content)-at)
		const goOn = "HTTP/1.1 100 Continue\r\n\r\n"
		line := make([]byte, len(goOn))
		if _, err := io.ReadFull(conn, line); err != nil || string(line) != goOn {
			t.Fatalf("%q, %v", line, err)
		}
		if _, err := conn.Write(content[at : at+bytes]); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conn := begin(0, 200_000)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("half a request: %q, %v", answer, err)
	}
	if got := offset(t, alice, path); got != 200_000 {
		t.Errorf("%d bytes are durable after half a request, want 200000", got)
	}
	// The client's network is gone, and its connection seems to stand. It comes again, and is not kept waiting.
	dead := begin(200_000, 300_000)
	began := time.Now()
	at := offset(t, alice, path)
	if took := time.Since(began); at < 200_000 || at > 500_000 || took > 10*time.Second {
		t.Errorf("after %v %d bytes are durable", took, at)
	}
	if err := dead.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil { // the server does not wait for the rest
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(dead); err != nil && !errors.Is(err, syscall.ECONNRESET) || err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("the request that was overtaken: %q, %v", answer, err)
	}
	if a := tus(t, alice, "PATCH", path, content[at:], "Upload-Offset", strconv.Itoa(at)); a.Status != 204 {
		t.Fatalf("going on at %d: %d %s", at, a.Status, a.Raw)
	}
	place := strings.TrimPrefix(tus(t, alice, "HEAD", path, nil).Header.Get("Im-Conclave-Content-Uri"), "mxc://")
	if got := request(t, alice, "GET", download+place, nil); !bytes.Equal(got.Raw, content) {
		t.Errorf("%d bytes came back", len(got.Raw))
	}
}

func testUploadRefusals(t *testing.T, alice *testserver.User) {
	proof.Of(t, "M08")
	a := request(t, alice, "OPTIONS", uploads, nil)
	if a.Status != 204 || a.Header.Get("Tus-Version") != "1.0.0" || a.Header.Get("Tus-Max-Size") != "50000000" ||
		!strings.Contains(a.Header.Get("Tus-Extension"), "checksum") || !strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Upload-Offset") {
		t.Errorf("OPTIONS: %d %v", a.Status, a.Header)
	}
	wantStatus(t, "another version", request(t, alice, "POST", uploads, nil, "Tus-Resumable", "0.2.2", "Upload-Length", "1"), http.StatusPreconditionFailed)
	for header, want := range map[string]int{
		"Upload-Length": 400, "Upload-Length=-1": 400, "Upload-Length=many": 400, "Upload-Length=50000001": 413,
		"Upload-Length=1|Upload-Metadata=filename *": 400, "Upload-Length=1|Upload-Metadata=filename YQ==,filename YQ==": 400,
		"Upload-Length=1|Upload-Metadata=filename YQBi": 400, "Upload-Length=1|Upload-Metadata=sha256 YWI=": 400,
	} {
		var pairs []string
		for pair := range strings.SplitSeq(header, "|") {
			name, value, _ := strings.Cut(pair, "=")
			pairs = append(pairs, name, value)
		}
		wantStatus(t, header, tus(t, alice, "POST", uploads, nil, pairs...), want)
	}
	a = tus(t, alice, "POST", uploads, nil, "Upload-Length", "0")
	if a.Status != 201 || a.Header.Get("Im-Conclave-Content-Uri") == "" {
		t.Errorf("an empty file: %d %v", a.Status, a.Header)
	}
	path := announce(t, alice, 10)
	wantStatus(t, "a form", request(t, alice, "PATCH", path, strings.NewReader("x"), "Tus-Resumable", "1.0.0", "Upload-Offset", "0", "Content-Type", "multipart/form-data"), 415)
	wantStatus(t, "no offset", tus(t, alice, "PATCH", path, []byte("x")), 400)
	wantStatus(t, "more than announced", tus(t, alice, "PATCH", path, make([]byte, 11), "Upload-Offset", "0"), 413)
	// A client that cannot send PATCH says what it means.
	a = tus(t, alice, "POST", path, []byte("12345"), "Upload-Offset", "0", "X-HTTP-Method-Override", "PATCH", "Content-Type", "application/offset+octet-stream")
	wantStatus(t, "another name of the method", a, 204)
	wantStatus(t, "giving up", tus(t, alice, "DELETE", path, nil), 204)
	wantStatus(t, "what was given up", tus(t, alice, "HEAD", path, nil), 404)
	wantStatus(t, "what was given up", tus(t, alice, "PATCH", path, []byte("x"), "Upload-Offset", "5"), 404)
	var last string
	for range 10 {
		last = announce(t, alice, 1)
	}
	a = tus(t, alice, "POST", uploads, nil, "Upload-Length", "1")
	if a.Status != 429 || !strings.Contains(string(a.Raw), "M_LIMIT_EXCEEDED") {
		t.Errorf("too many at once: %d %s", a.Status, a.Raw)
	}
	wantStatus(t, "giving up", tus(t, alice, "DELETE", last, nil), 204)
	announce(t, alice, 1)
}
