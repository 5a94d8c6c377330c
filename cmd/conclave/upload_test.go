package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/s3"
)

// stream is a content of any length that takes no room; it tells when it has given so many bytes.
type stream struct {
	io.Reader
	given   atomic.Int64
	tell    int64
	reached chan struct{}
}

func newStream(length, from, tell int64) *stream {
	r := rand.NewChaCha8([32]byte{1})
	_, _ = io.CopyN(io.Discard, r, from) // it never fails
	return &stream{Reader: io.LimitReader(r, length-from), tell: tell - from, reached: make(chan struct{})}
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if now := s.given.Add(int64(n)); now >= s.tell && now-int64(n) < s.tell {
		close(s.reached)
	}
	return n, err
}

// TestLargeUploadOutlivesAKill uploads a large file in one request, kills the server in the middle of it, goes on where
// the server says, and compares what comes back. The server's memory stays as it was.
func TestLargeUploadOutlivesAKill(t *testing.T) {
	for _, c := range []struct {
		store  string
		length int64
	}{{"file", 300 << 20}, {"s3", 100<<20 + 5}} {
		t.Run(c.store, func(t *testing.T) {
			o := testserver.Options{}
			if c.store == "s3" {
				proof.Of(t, "M07")
				o.Env = s3.Start(t).Env()
			} else {
				proof.Of(t, "M08")
			}
			largeUpload(t, testserver.Start(t, o), c.length)
		})
	}
}

func largeUpload(t *testing.T, s *testserver.Server, length int64) {
	u := s.Register("alice")
	a := tus(t, u, http.MethodPost, "/_matrix/client/unstable/im.conclave.media/upload", nil, "Upload-Length", fmt.Sprint(length))
	path := a.Header.Get("Location")
	first := newStream(length, 0, length/2)
	ended := make(chan error, 1)
	go func() {
		_, err := patch(u, path, 0, first)
		ended <- err
	}()
	<-first.reached
	s.Kill()
	if err := <-ended; err == nil {
		t.Fatal("the upload ended before the server was killed")
	}
	s.Start()
	at, err := strconv.ParseInt(tus(t, u, http.MethodHead, path, nil).Header.Get("Upload-Offset"), 10, 64)
	// The client has given half; what was on its way, and in pieces that were not saved yet, may be lost.
	if err != nil || at < length/2-64<<20 || at > first.given.Load() {
		t.Fatalf("after the kill %d bytes are durable of %d that were sent: %v", at, first.given.Load(), err)
	}
	t.Logf("killed after %d bytes, going on at %d", first.given.Load(), at)
	before := resident(t, s, "VmRSS")
	a, err = patch(u, path, at, newStream(length, at, -1))
	if err != nil || a.Status != 204 {
		t.Fatalf("going on: %v %+v", err, a)
	}
	if grown := resident(t, s, "VmHWM") - before; grown > 120<<20 {
		t.Errorf("the server took %d MiB more memory", grown>>20)
	}
	place := strings.TrimPrefix(a.Header.Get("Im-Conclave-Content-Uri"), "mxc://")
	want := sha256.New()
	_, _ = io.Copy(want, newStream(length, 0, -1)) // a hash takes everything
	got := sha256.New()
	if n := fetch(t, u, "/_matrix/client/v1/media/download/"+place, got); n != length || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes came back, with another hash", n)
	}
	s.Stop()
	if out, ok := s.Run("verify", "-full"); !ok {
		t.Errorf("afterwards: %s", out)
	}
}

// tus makes a small request of the tus protocol.
func tus(t *testing.T, u *testserver.User, method, path string, body io.Reader, header ...string) *testserver.Answer {
	t.Helper()
	a, err := ask(u, method, path, body, header...)
	if err != nil || a.Status >= 300 {
		t.Fatalf("%s %s: %v %+v", method, path, err, a)
	}
	return a
}

func patch(u *testserver.User, path string, at int64, body io.Reader) (*testserver.Answer, error) {
	return ask(u, http.MethodPatch, path, body, "Content-Type", "application/offset+octet-stream", "Upload-Offset", fmt.Sprint(at))
}

func ask(u *testserver.User, method, path string, body io.Reader, header ...string) (*testserver.Answer, error) {
	req, err := http.NewRequest(method, u.Server.URL+path, body) //nolint:noctx // ends with the server
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	req.Header.Set("Tus-Resumable", "1.0.0")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	raw, err := io.ReadAll(res.Body)
	return &testserver.Answer{Status: res.StatusCode, Header: res.Header, Raw: raw}, err
}

// fetch downloads a content into a writer.
func fetch(t *testing.T, u *testserver.User, path string, to io.Writer) int64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.Server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+u.Token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	n, err := io.Copy(to, res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// resident reads how many bytes of memory a server has: VmRSS now, VmHWM at most so far; 0 where the system does not say.
func resident(t *testing.T, s *testserver.Server, what string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		return 0 // only Linux says
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, what+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in %s", what, status)
	return 0
}
