// Package redis runs a real Redis for a test: on a free port of loopback, with a password, without anything kept on disk.
// It can be killed and started again, and frozen, as networks do.
package redis

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/ports"
)

// Password is what a Service wants of its clients.
const Password = "a-redis-of-tests"

// Service is a Redis that ends with the test.
type Service struct {
	URL string // with the password

	t      testing.TB
	dir    string
	args   []string
	port   int
	cmd    *exec.Cmd
	client *redis.Client // the test's own
}

// Start starts a Redis. Without redis-server on the machine the test fails: internal/tools/lib.sh installs it.
func Start(t testing.TB) *Service {
	t.Helper()
	s := prepare(t)
	s.args = append(s.args, "--port", fmt.Sprint(s.port))
	s.URL = fmt.Sprintf("redis://:%s@127.0.0.1:%d", Password, s.port)
	s.Start()
	return s
}

// StartTLS starts a Redis that speaks only TLS, with a certificate of an authority.
func StartTLS(t testing.TB, ca *peer.CA) *Service {
	t.Helper()
	s := prepare(t)
	pair := ca.Issue(t, "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyFile := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.args = append(s.args, "--port", "0", "--tls-port", fmt.Sprint(s.port), "--tls-cert-file", cert, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", ca.File, "--tls-auth-clients", "no")
	s.URL = fmt.Sprintf("rediss://:%s@127.0.0.1:%d", Password, s.port)
	s.Start()
	return s
}

func prepare(t testing.TB) *Service {
	s := &Service{t: t, dir: t.TempDir(), port: ports.Free(t, 1)[0]}
	s.args = []string{
		"--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no", "--requirepass", Password, "--logfile", filepath.Join(s.dir, "log"),
		"--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", // as the documentation advises: nothing in it is dear
	}
	return s
}

// Start starts it (again), empty, at the address that it has had.
func (s *Service) Start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...) //nolint:gosec // the arguments are the test's own
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("this test needs redis-server (Debian: redis-server): %v", err)
	}
	cmd := s.cmd
	s.t.Cleanup(func() { end(cmd) })
	if strings.HasPrefix(s.URL, "rediss:") {
		s.reachable()
		return
	}
	o, err := redis.ParseURL(s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.client = redis.NewClient(o)
	client := s.client
	s.t.Cleanup(func() { _ = client.Close() })
	s.until(func(ctx context.Context) error { return client.Ping(ctx).Err() })
}

func (s *Service) reachable() {
	s.until(func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// until waits until something can be done.
func (s *Service) until(try func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(filepath.Join(s.dir, "log")) // empty, if it did not come so far
			s.t.Fatalf("Redis does not answer: %v\n%s", err, text)
		case <-time.After(10 * time.Millisecond): // between two looks
		}
	}
}

// Kill ends it, and with it all that it held.
func (s *Service) Kill() { end(s.cmd) }

func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by a signal
	}
}

// Freeze keeps it from doing anything, while connections to it stay; Thaw ends that.
func (s *Service) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (s *Service) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Service) signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Kept is everything that it holds: values by keys. A key that would never end fails the test.
func (s *Service) Kept() map[string]string {
	s.t.Helper()
	ctx, kept := context.Background(), map[string]string{}
	keys := s.client.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		lasts, err := s.client.PTTL(ctx, keys.Val()).Result()
		if err != nil {
			s.t.Fatal(err)
		}
		if lasts == -1 {
			s.t.Errorf("Redis keeps %q for ever", keys.Val())
		}
		value, err := s.client.Dump(ctx, keys.Val()).Result()
		if err == nil { // else it has ended in this moment
			kept[keys.Val()] = value
		}
	}
	if err := keys.Err(); err != nil {
		s.t.Fatal(err)
	}
	return kept
}
