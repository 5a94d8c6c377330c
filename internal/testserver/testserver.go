// Package testserver runs whole servers in a test: the real executable, as an operator would run it, on either
// database, alone or several that trust one another's certificates. A Server can be stopped, killed and started again
// on its data; User speaks to it as a Matrix client does. Package peer beside it is a homeserver that lies on demand,
// dbtest gives out databases.
package testserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/ports"
	"conclave/internal/testserver/proof"
)

// Options say how a server differs from an ordinary one of a test: open registration, cheap password hashes, no rate
// limits, no presence, federation on loopback.
type Options struct {
	Engine string   // one of dbtest.Engines; "" is sqlite
	CA     *peer.CA // signs the server's certificate and is trusted by it; nil: one of its own
	Net    *Net     // what lies between the servers of the test; nil: they reach one another directly
	Env    []string // more of the configuration, as CONCLAVE_… variables

	Presence bool   // people appear online: their comings and goings wake one another's clients
	Tags     string // build tags of the executable, such as failpoints
}

// Server is a server under test.
type Server struct {
	Name  matrix.ServerName // localhost and its federation port
	URL   string            // of its client API
	Admin string            // of its admin port
	Dir   string            // its configuration; data below it
	Conf  string            // its configuration file
	CA    *peer.CA

	t        testing.TB
	binary   string
	env      []string
	database string // URL of its PostgreSQL database, "" on SQLite

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	log  *os.File
}

// Each runs a test as a subtest on each engine.
func Each(t *testing.T, test func(t *testing.T, engine string)) {
	t.Helper()
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) { test(t, engine) })
	}
}

// EachAtOnce is Each with both engines at the same time, for tests that mostly wait for what servers do by the clock.
func EachAtOnce(t *testing.T, test func(t *testing.T, engine string)) {
	t.Helper()
	Each(t, func(t *testing.T, engine string) {
		t.Parallel()
		test(t, engine)
	})
}

// Start starts a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := New(t, o)
	s.Start()
	return s
}

// Pair starts two servers that can reach and trust one another.
func Pair(t testing.TB, o Options) (a, b *Server) {
	t.Helper()
	if o.CA == nil {
		o.CA = peer.NewCA(t)
	}
	return Start(t, o), Start(t, o)
}

// New prepares a server without starting it.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	if o.CA == nil {
		o.CA = peer.NewCA(t)
	}
	if o.Engine == "" {
		o.Engine = "sqlite"
	}
	taken := ports.Take(t, 4)
	listen := taken[1] // where federation really listens
	if o.Net != nil {
		listen = taken[3]
	}
	s := &Server{
		Name: matrix.ServerName(fmt.Sprintf("localhost:%d", taken[1])), URL: fmt.Sprintf("http://127.0.0.1:%d", taken[0]),
		Admin: fmt.Sprintf("http://127.0.0.1:%d", taken[2]), Dir: t.TempDir(), CA: o.CA, t: t, binary: binaryOf(t, o),
		env: append(os.Environ(), o.Env...),
	}
	if o.Presence {
		s.env = append(s.env, "CONCLAVE_PRESENCE_ENABLED=true", "CONCLAVE_PRESENCE_FEDERATION=true")
	}
	url := "sqlite:conclave.db"
	if o.Engine != "sqlite" {
		url = dbtest.EmptyURL(t, o.Engine)
		s.database = url
	}
	cert, key := s.certificate()
	s.Conf = filepath.Join(s.Dir, "config.yaml")
	s.write(s.Conf, fmt.Appendf(nil, `server_name: %s
public_url: %s
data_dir: ./data
listen: {client: "127.0.0.1:%d", federation: "127.0.0.1:%d", admin: "127.0.0.1:%d"}
tls: {cert_file: %q, key_file: %q}
database: {url: %q}
registration: {mode: open, shared_secret: testing}
auth: {argon2: {memory_kib: 8192, time: 1, threads: 1}}
rate_limits: {enabled: false}
presence: {enabled: false}
federation: {ca_file: %q}
network: {allow_private: ["127.0.0.0/8", "::1/128"]}
log: {level: debug}
`, s.Name, s.URL, taken[0], listen, taken[2], cert, key, url, o.CA.File))
	if o.Net != nil {
		o.Net.front(t, s, taken[1], listen)
	}
	t.Cleanup(func() {
		s.Kill()
		s.checkLog()
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.Name, s.tail())
		}
	})
	return s
}

// certificate writes a certificate for the server's name.
func (s *Server) certificate() (certFile, keyFile string) {
	pair := s.CA.Issue(s.t, "localhost", "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		s.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(s.Dir, "cert.pem"), filepath.Join(s.Dir, "key.pem")
	s.write(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	s.write(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	return certFile, keyFile
}

func (s *Server) write(path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// LogFile is where the server's log goes, of all its lives.
func (s *Server) LogFile() string { return filepath.Join(s.Dir, "log") }

// DataDir holds the server's database (on SQLite), keys and media.
func (s *Server) DataDir() string { return filepath.Join(s.Dir, "data") }

// startTime is how long a server may take to answer: far longer than it needs on a machine that is busy with tests.
const startTime = time.Minute

// Start starts the server and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.launch()
	ctx, cancel := context.WithTimeout(s.t.Context(), startTime)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case <-s.done:
			s.t.Fatalf("the server ended at once:\n%s", s.tail())
		case <-time.After(10 * time.Millisecond): // between two looks
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/_matrix/client/versions", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	s.t.Fatalf("the server does not answer:\n%s", s.tail())
}

// launch starts the process.
func (s *Server) launch() {
	s.t.Helper()
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(s.binary, "serve", "-config", s.Conf) //nolint:gosec // the executable under test
	cmd.Env, cmd.Stderr, cmd.Stdout = s.env, log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.done, s.log = cmd, done, log
	s.mu.Unlock()
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended stands in ProcessState
		_ = log.Close()
	}()
}

// Running reports whether the process lives.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Pid is the process's number.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Kill ends the process as a power cut would (SIGKILL) and waits for its end.
func (s *Server) Kill() { s.signal(syscall.SIGKILL) }

// Stop lets the server drain (SIGTERM), waits for its end and fails the test if it did not end well.
func (s *Server) Stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("the server ended with code %d:\n%s", code, s.tail())
	}
}

func (s *Server) signal(sig syscall.Signal) {
	s.record()
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(sig) // it may have ended already
	<-done
}

// Wait waits until the process has ended by itself and returns its exit code.
func (s *Server) Wait(ctx context.Context) (int, error) {
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Run runs another command of the executable with the server's configuration: Run("verify") is `conclave verify -config
// …`. It returns what it printed and whether it ended well.
func (s *Server) Run(command string, args ...string) (string, bool) {
	s.t.Helper()
	return s.Command(append([]string{command, "-config", s.Conf}, args...)...)
}

// Command runs the executable with the given arguments and nothing else, as Run does.
func (s *Server) Command(args ...string) (string, bool) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.binary, args...) //nolint:gosec // the executable under test
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// tail is the end of the log.
func (s *Server) tail() string {
	text, err := os.ReadFile(s.LogFile())
	if err != nil {
		return err.Error()
	}
	const most = 8 << 10
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(bytes.TrimSpace(text))
}

// record notes which operations the process has answered with success since it started, for the coverage of the
// specification. What it counted is gone once it has ended.
func (s *Server) record() {
	if !proof.Wanted() || !s.Running() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // the test's own context may have ended
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin+"/metrics", nil)
	if err != nil {
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return // a server that hangs or is frozen on purpose tells nothing
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if m := answered.FindStringSubmatch(lines.Text()); m != nil {
			proof.Answered(s.t, m[1], m[2])
		}
	}
}

// answered is a line of the metrics about requests that had success.
var answered = regexp.MustCompile(`^conclave_requests_total{api="([a-z]+)",operation="([^"]+)",status="[1-3]xx"} `)
