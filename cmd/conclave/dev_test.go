package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/shapes"
	"conclave/internal/testserver/wait"
)

// devLine is what conclave dev prints for each server.
var devLine = regexp.MustCompile(`^(http://localhost:\d+)  user (\w+)  password (\S+)  \((@\w+:localhost:\d+)\)$`)

// devRun is a running conclave dev.
type devRun struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
	lines  [][]string // what devLine found
	mails  string     // where mails are shown
}

// startDev starts it and waits until it has said what to open.
func startDev(t *testing.T, args ...string) *devRun {
	t.Helper()
	binary := testserver.Binary(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	r := &devRun{t: t, cmd: exec.CommandContext(ctx, binary, append([]string{"dev"}, args...)...)}
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(syscall.SIGTERM) }
	r.cmd.Stderr = &r.stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if found := devLine.FindStringSubmatch(lines.Text()); found != nil {
			r.lines = append(r.lines, found)
		} else if _, at, ok := strings.Cut(lines.Text(), "is shown at "); ok {
			r.mails = at
		} else if strings.Contains(lines.Text(), "federate") {
			break
		}
	}
	if len(r.lines) != 2 {
		t.Fatalf("it did not say what to open: %v, %s", r.cmd.Wait(), r.stderr.String())
	}
	return r
}

// stop ends it as a service manager would, and holds that nothing of it listens any more.
func (r *devRun) stop() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("it ended with %v: %s", err, r.stderr.String())
	}
	for _, line := range r.lines {
		if conn, err := net.Dial("tcp", strings.TrimPrefix(line[1], "http://")); err == nil {
			_ = conn.Close()
			r.t.Errorf("%s still listens", line[1])
		}
	}
}

// ask makes a request to one of the servers and demands an answer 200.
func (r *devRun) ask(method, address, token string, body any) map[string]any {
	r.t.Helper()
	status, answer := r.try(method, address, token, body)
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %v", method, address, status, answer)
	}
	return answer
}

func (r *devRun) try(method, address, token string, body any) (status int, answer map[string]any) {
	r.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, address, bytes.NewReader(text))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := shapes.Do(r.t, http.DefaultClient, req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		r.t.Fatalf("%s %s: %d %v", method, address, res.StatusCode, err)
	}
	return res.StatusCode, answer
}

// logIn signs in with what a line says.
func (r *devRun) logIn(line []string) (token string) {
	r.t.Helper()
	answer := r.ask("POST", line[1]+"/_matrix/client/v3/login", "", map[string]any{
		"type": "m.login.password", "password": line[3], "identifier": map[string]string{"type": "m.id.user", "user": line[2]},
	})
	if answer["user_id"] != line[4] {
		r.t.Errorf("signed in as %v, not as %s", answer["user_id"], line[4])
	}
	token, _ = answer["access_token"].(string)
	return token
}

// TestDev starts the pair, signs in on both, starts it again on the same directory, and finds everything as it was.
func TestDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pair")
	first := startDev(t, "-dir", dir)
	alice, bob := first.lines[0], first.lines[1]
	token := first.logIn(alice)
	bobToken := first.logIn(bob)
	room, _ := first.ask("POST", alice[1]+"/_matrix/client/v3/createRoom", token, map[string]any{"invite": []string{bob[4]}})["room_id"].(string)
	if room == "" {
		t.Error("no room")
	}
	wait.Until(t, "Bob's server joins the room over federation", func() bool {
		status, _ := first.try("POST", bob[1]+"/_matrix/client/v3/join/"+url.PathEscape(room), bobToken, map[string]any{})
		return status == http.StatusOK
	})
	for _, line := range first.lines {
		reached(t, dir, line[4])
	}
	first.catches(alice)
	first.stop()
	again := startDev(t, "-dir", dir)
	if again.lines[0][0] != alice[0] || again.lines[1][0] != bob[0] {
		t.Errorf("other servers or users than before: %v", again.lines)
	}
	joined := again.ask("GET", alice[1]+"/_matrix/client/v3/joined_rooms", again.logIn(alice), nil)
	if rooms, _ := joined["joined_rooms"].([]any); len(rooms) != 1 || rooms[0] != room {
		t.Errorf("joined rooms %v, not %s", rooms, room)
	}
	again.stop()
}

// catches has a server send a mail and looks at the page where it is shown, which is there under its own names alone.
func (r *devRun) catches(line []string) {
	r.t.Helper()
	r.ask("POST", line[1]+"/_matrix/client/v3/account/password/email/requestToken", "", map[string]any{
		"client_secret": "s3cret", "email": "somebody@example.org", "send_attempt": 1,
	})
	page := func(host string) (int, string) {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.mails, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		defer res.Body.Close() //nolint:errcheck // it was read
		text, err := io.ReadAll(res.Body)
		if err != nil {
			r.t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	wait.Until(r.t, "the mail on the page", func() bool {
		_, text := page("")
		return strings.Contains(text, "somebody@example.org")
	})
	if status, text := page("evil.test:80"); status != http.StatusNotFound || strings.Contains(text, "somebody") {
		r.t.Errorf("under another name the page is answered %d %s", status, text)
	}
}

// reached asks a server for its keys as the other one does: under its name, trusting the authority of both.
func reached(t *testing.T, dir, user string) {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	_, name, _ := strings.Cut(user, ":")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + name + "/_matrix/key/v2/server")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	var keys struct {
		Server string `json:"server_name"`
	}
	if err := json.NewDecoder(res.Body).Decode(&keys); err != nil || keys.Server != name {
		t.Errorf("%s answers as %q, %v", name, keys.Server, err)
	}
}

// TestDevEndsWithAServer: where one server cannot run, the other is not left behind.
func TestDevEndsWithAServer(t *testing.T) {
	dir := t.TempDir()
	p, err := openPair(dir)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strings.TrimPrefix(p.Servers[1].url(), "http://localhost:")))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // the test is over
	out, err := exec.CommandContext(t.Context(), testserver.Binary(t, ""), "dev", "-dir", dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another program uses this port") {
		t.Errorf("%v: %s", err, out)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(p.Servers[0].url(), "http://")); err == nil {
		_ = conn.Close()
		t.Error("the other server still listens")
	}
}

func TestDevKeepsItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pair")
	first, err := openPair(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openPair(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if *first.Servers[i] != *second.Servers[i] {
			t.Errorf("%+v became %+v", first.Servers[i], second.Servers[i])
		}
		if code, _, stderr := call("config", "check", "-config", filepath.Join(dir, first.Servers[i].User, "config.yaml")); code != 0 {
			t.Errorf("the configuration of %s: %s", first.Servers[i].User, stderr)
		}
	}
	for _, name := range []string{"ca.pem", "alice/key.pem", "bob/config.yaml", pairFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, pairFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPair(dir); err == nil || !strings.Contains(err.Error(), "remove") {
		t.Errorf("a broken directory: %v", err)
	}
}
