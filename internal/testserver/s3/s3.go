// Package s3 is an S3 service for tests: one bucket in memory that wants signatures and, like the real one, refuses bytes
// that do not have the hash they were signed with. The network before it can be cut in the middle of a request, and what
// it holds can be damaged behind a server's back.
package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// The names of the bucket and of the key.
const (
	Bucket    = "media"
	AccessKey = "conclave"
	SecretKey = "only for tests"
)

// Service is an S3 service that ends with the test.
type Service struct {
	URL string // of its endpoint

	t       testing.TB
	backend *s3mem.Backend
	core    *minio.Core
	inside  string // where it listens behind the network

	mu   sync.Mutex
	left int64 // bytes that the network still takes to the service; negative: no bound
	flip int64 // bytes until the network changes one; negative: none
	lose func(object string, data []byte) []byte
}

// Start starts a service with an empty private bucket.
func Start(t testing.TB) *Service {
	t.Helper()
	return start(t, gofakes3.WithV4Auth(map[string]string{AccessKey: SecretKey}))
}

// StartPublic starts a service whose bucket everybody can read and write.
func StartPublic(t testing.TB) *Service {
	t.Helper()
	return start(t)
}

func start(t testing.TB, options ...gofakes3.Option) *Service {
	s := &Service{t: t, backend: s3mem.New(), left: -1, flip: -1}
	if err := s.backend.CreateBucket(t.Context(), Bucket); err != nil {
		t.Fatal(err)
	}
	inside := httptest.NewServer(s.strict(gofakes3.New(s.backend, append(options, gofakes3.WithoutVersioning())...).Server()))
	t.Cleanup(inside.Close)
	s.inside = strings.TrimPrefix(inside.URL, "http://")
	outside, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outside.Close() })
	go s.network(outside)
	s.URL = "http://" + outside.Addr().String()
	s.core, err = minio.NewCore(s.inside, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Env is the configuration of a server that keeps its media here.
func (s *Service) Env() []string {
	const prefix = "CONCLAVE_MEDIA_S3_"
	return []string{
		"CONCLAVE_MEDIA_STORE=s3", prefix + "ENDPOINT=" + s.URL, prefix + "REGION=us-east-1", prefix + "BUCKET=" + Bucket,
		prefix + "ACCESS_KEY=" + AccessKey, prefix + "SECRET_KEY=" + SecretKey,
	}
}

// CutAfter lets the network take so many more bytes to the service, in all, and then cuts every connection; a negative
// number heals it.
func (s *Service) CutAfter(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = bytes
}

// FlipAfter lets the network change the byte behind so many more bytes to the service.
func (s *Service) FlipAfter(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flip = bytes
}

// Lose replaces what the service keeps of an object right after it has acknowledged it; nil ends that.
func (s *Service) Lose(keep func(object string, data []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = keep
}

// Objects lists what the bucket holds in the order of names, and multipart uploads that are not finished with a
// question mark behind their names.
func (s *Service) Objects() (list []string) {
	s.t.Helper()
	found, err := s.backend.ListBucket(context.Background(), Bucket, nil, gofakes3.ListBucketPage{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range found.Contents {
		list = append(list, o.Key)
	}
	growing, err := s.core.ListMultipartUploads(context.Background(), Bucket, "", "", "", "", 1000)
	if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload { // which is how this one says that there is none
		s.t.Fatal(err)
	}
	for _, u := range growing.Uploads {
		list = append(list, u.Key+"?")
	}
	slices.Sort(list)
	return list
}

// Put replaces the bytes of an object behind everybody's back.
func (s *Service) Put(object string, data []byte) {
	s.t.Helper()
	had, err := s.backend.HeadObject(context.Background(), Bucket, object)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.backend.PutObject(context.Background(), Bucket, object, had.Metadata, bytes.NewReader(data), int64(len(data))); err != nil {
		s.t.Fatal(err)
	}
}

// Anonymous asks for an object without a key, and returns the status.
func (s *Service) Anonymous(object string) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.URL+"/"+Bucket+"/"+object, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = res.Body.Close() // only the status counts
	return res.StatusCode
}

// strict refuses bytes without their hash, and loses what Lose says.
func (s *Service) strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			next.ServeHTTP(w, r)
			return
		}
		data, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // the network was cut
		}
		if sum := sha256.Sum256(data); r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
			http.Error(w, "<Error><Code>XAmzContentSHA256Mismatch</Code></Error>", http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(data))
		next.ServeHTTP(w, r)
		s.mu.Lock()
		lose := s.lose
		s.mu.Unlock()
		object := strings.TrimPrefix(r.URL.Path, "/"+Bucket+"/")
		if lose != nil && r.URL.RawQuery == "" {
			s.Put(object, lose(object, data))
		}
	})
}

// network takes connections to the service.
func (s *Service) network(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go s.carry(conn)
	}
}

func (s *Service) carry(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	to, err := net.Dial("tcp", s.inside) //nolint:noctx // ends with either side
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	go func() {
		_, _ = io.Copy(conn, to)
		_ = conn.Close()
	}()
	_, _ = io.Copy(&measured{to, s}, conn) // an error is the end of the connection
}

var errCut = errors.New("the network is cut")

// measured is the way to the service for as long as the network takes bytes.
type measured struct {
	io.Writer
	s *Service
}

// Write implements io.Writer.
func (m *measured) Write(p []byte) (int, error) {
	m.s.mu.Lock()
	cut := m.s.left >= 0 && m.s.left < int64(len(p))
	if cut {
		p = p[:m.s.left]
	}
	if m.s.left >= 0 {
		m.s.left -= int64(len(p))
	}
	if m.s.flip >= 0 && m.s.flip < int64(len(p)) {
		p[m.s.flip] ^= 1
		m.s.flip = -1
	} else if m.s.flip >= 0 {
		m.s.flip -= int64(len(p))
	}
	m.s.mu.Unlock()
	n, err := m.Writer.Write(p)
	if err == nil && cut {
		err = errCut
	}
	return n, err
}
