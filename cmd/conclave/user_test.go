package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"conclave/internal/testserver"
	"conclave/internal/testserver/shapes"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// callWith is call with standard input.
func callWith(input string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = dispatch(context.Background(), console{strings.NewReader(input), &out, &err, nil}, args)
	return code, out.String(), err.String()
}

// TestUserCommands does the same with a server that runs and with one that is stopped.
func TestUserCommands(t *testing.T) {
	testserver.Each(t, func(t *testing.T, engine string) {
		s := testserver.New(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_REGISTRATION_MODE=closed"}})
		user := func(input string, args ...string) (string, string) {
			t.Helper()
			code, stdout, stderr := callWith(input, append(append([]string{"user"}, args...), "-config", s.Conf)...)
			if code != 0 {
				t.Fatalf("conclave user %q: code %d, %s", args, code, stderr)
			}
			return stdout, stderr
		}
		refused := func(want string, args ...string) {
			t.Helper()
			code, _, stderr := callWith("", append(append([]string{"user"}, args...), "-config", s.Conf)...)
			if code == 0 || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("conclave user %q: code %d, %q; want %q in one line", args, code, stderr, want)
			}
		}
		login := func(name, password string) (status int, token string) {
			t.Helper()
			a, err := s.Nobody().Do("POST", "/login", testserver.JSON{
				"type": "m.login.password", "password": password, "identifier": testserver.JSON{"type": "m.id.user", "user": name},
			})
			if err != nil {
				t.Fatal(err)
			}
			token, _ = a.Body["access_token"].(string)
			return a.Status, token
		}
		id := func(name string) string { return "@" + name + ":" + string(s.Name) }

		// Before the server has ever run.
		if out, _ := user("a good password\n", "create", "alice", "-password-file", "-", "-admin"); out != id("alice")+" is made\n" {
			t.Errorf("create: %q", out)
		}
		refused("taken", "create", "alice")
		s.Start()
		status, token := login("alice", "a good password")
		if status != http.StatusOK {
			t.Fatalf("alice cannot log in: %d", status)
		}
		// While it runs.
		out, _ := user("", "create", id("bob"))
		made, password, _ := strings.Cut(strings.TrimSpace(out), "\npassword: ")
		if status, _ := login("bob", password); made != id("bob")+" is made" || status != http.StatusOK {
			t.Errorf("bob cannot log in with what was printed: %q", out)
		}
		refused("taken", "create", "bob")
		refused("There is no user", "deactivate", "carol")
		refused("small letters", "create", "b o b")
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("another password\nsecond line\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		user("", "reset-password", "-password-file", file, "alice")
		if a := mustDo(t, s, token, "/account/whoami"); a != http.StatusUnauthorized {
			t.Errorf("after the reset alice's old session is answered %d", a)
		}
		if status, _ := login("alice", "another password"); status != http.StatusOK {
			t.Errorf("alice cannot log in with the new password: %d", status)
		}
		_, token = login("bob", password)
		secondFactor(t, s, token, password)
		if status, _ := login("bob", password); status != http.StatusForbidden {
			t.Errorf("bob, who has a second factor now, is answered %d without it", status)
		}
		if out, _ := user("", "reset-2fa", "bob"); out != id("bob")+" has no second factor any more; its password and sessions are as they were\n" {
			t.Errorf("reset-2fa: %q", out)
		}
		if status, _ := login("bob", password); status != http.StatusOK || mustDo(t, s, token, "/account/whoami") != http.StatusOK {
			t.Errorf("after the reset of the second factor bob is answered %d, or an old session ended", status)
		}
		refused("There is no user", "reset-2fa", "carol")
		refused("no single sign-on", "link", "bob", "-subject", "bob of the provider")
		refused("no single sign-on", "unlink", "bob")
		user("", "deactivate", "bob")
		if status, _ := login("bob", password); status != http.StatusForbidden {
			t.Errorf("bob, deactivated, is answered %d", status)
		}
		noted := s.Rows(`SELECT event FROM audit_log WHERE by_user = 'operator'`)
		if got := strings.Join(noted, " "); got != "deactivated factor.reset password.reset registered registered" {
			t.Errorf("of the operator the audit log has %q", got)
		}
		running, _ := user("", "list")
		s.Kill()
		stopped, _ := user("", "list")
		if lines := strings.Split(stopped, "\n"); running != stopped || len(lines) != 3 ||
			!strings.HasPrefix(lines[0], id("alice")) || !strings.HasSuffix(lines[0], "\tadmin") || !strings.HasSuffix(lines[1], "\tdeactivated") {
			t.Errorf("list of the running server %q, of the stopped one %q", running, stopped)
		}
	})
}

// secondFactor sets an authenticator app up for the user of a token.
func secondFactor(t *testing.T, s *testserver.Server, token, password string) {
	t.Helper()
	u := s.Nobody()
	u.Token = token
	const path = "/_matrix/client/unstable/im.conclave.account/totp/"
	asked, err := u.Do("POST", path+"begin", testserver.JSON{})
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := u.Must("POST", path+"begin", testserver.JSON{
		"auth": testserver.JSON{"type": "m.login.password", "password": password, "session": asked.Body["session"]},
	}).Body["secret"].(string)
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	u.Must("POST", path+"confirm", testserver.JSON{"code": code})
}

func mustDo(t *testing.T, s *testserver.Server, token, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/_matrix/client/v3"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := shapes.Do(t, http.DefaultClient, req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestUserCommandLines(t *testing.T) {
	for args, want := range map[string]string{
		"user":                            "say create, list",
		"user dance":                      "no user dance",
		"user create":                     "name is missing",
		"user create a b":                 `unexpected argument "b"`,
		"user list a":                     `unexpected argument "a"`,
		"user deactivate a -admin":        "-admin",
		"user list -password-file x":      "-password-file",
		"user create -config /no/where a": "",
	} {
		code, _, stderr := call(strings.Fields(args)...)
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("conclave %s: code %d, %q", args, code, stderr)
		}
	}
}

// TestTheOperatorsSocketIsPrivate looks at who may open it.
func TestTheOperatorsSocketIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "operator.sock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // somebody made it, too open
		t.Fatal(err)
	}
	l, err := listenForOperator(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
}
