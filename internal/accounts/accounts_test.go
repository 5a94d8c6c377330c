package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // as the API is defined
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

const password = "correct horse battery staple"

// world is an Accounts over a database, with a clock.
type world struct {
	*Accounts
	t     *testing.T
	clock atomic.Int64 // ms
}

func newWorld(t *testing.T, db *store.DB) *world {
	t.Helper()
	w := &world{t: t}
	w.clock.Store(time.Now().UnixMilli())
	conf := &config.Config{
		Auth:         config.Auth{Argon2: config.Argon2{MemoryKiB: 64, Time: 1, Threads: 1}},
		Registration: config.Registration{SharedSecret: "secret"}, RateLimits: config.RateLimits{Enabled: true},
	}
	w.Accounts = New(Options{
		DB: db, Server: "us.test", Config: conf, Bus: cluster.NewLocal(), Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { return time.UnixMilli(w.clock.Load()) },
	})
	return w
}

func each(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, db *store.DB) { test(t, newWorld(t, db)) })
}

func (w *world) pass(d time.Duration) { w.clock.Add(d.Milliseconds()) }

func (w *world) register(name string) *Login {
	w.t.Helper()
	l, err := w.Register(w.t.Context(), Registration{Username: name, Password: password, Device: &NewDevice{}})
	must(w.t, err)
	return l
}

func (w *world) login(name, password string) (*Login, error) {
	return w.LoginPassword(w.t.Context(), name, password, NewDevice{})
}

func (w *world) session(l *Login) *Session {
	w.t.Helper()
	s, err := w.Authenticate(w.t.Context(), l.Token, "192.0.2.1")
	must(w.t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, status int, code string) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Errorf("error %v, want %d %s", err, status, code)
	}
}

func TestOneOfManyGetsAName(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var group sync.WaitGroup
		var made atomic.Int64
		for range 8 {
			group.Go(func() {
				_, err := w.Register(t.Context(), Registration{Username: "alice", Password: password, Device: &NewDevice{}})
				if err == nil {
					made.Add(1)
					return
				}
				wantCode(t, err, 400, "M_USER_IN_USE")
			})
		}
		group.Wait()
		if made.Load() != 1 {
			t.Errorf("the name was given to %d", made.Load())
		}
		account, err := w.Find(t.Context(), "@alice:us.test")
		must(t, err)
		devices, err := w.Devices(t.Context(), account.User)
		if err != nil || len(devices) != 1 {
			t.Errorf("%d devices, %v: whoever lost left something", len(devices), err)
		}
	})
}

func TestNamesAndPasswordsThatCannotBe(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, name := range []string{"a b", "ä", "a:b", "@a", "a\x00b", "Á", strings.Repeat("a", 250), "a/../b\n"} {
			_, err := w.Register(t.Context(), Registration{Username: name, Password: password})
			wantCode(t, err, 400, "M_INVALID_USERNAME")
		}
		_, err := w.Register(t.Context(), Registration{Username: "bob", Password: "short"})
		wantCode(t, err, 400, "M_WEAK_PASSWORD")
		_, err = w.Register(t.Context(), Registration{Username: "bob", Password: strings.Repeat("x", 513)})
		wantCode(t, err, 400, "M_INVALID_PARAM")
		for _, d := range []NewDevice{
			{ID: "a\x00b"}, {ID: "a\xff"}, {Name: "a\x00b"}, {Name: strings.Repeat("x", 256)}, {ID: matrix.DeviceID(strings.Repeat("A", 43))},
		} {
			_, err := w.Register(t.Context(), Registration{Username: "bob", Password: password, Device: &d})
			wantCode(t, err, 400, "M_INVALID_PARAM")
		}
		must(t, w.CheckUsername(t.Context(), "bob"))
	})
}

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l := w.register("alice")
		if s := w.session(l); s.UserID != "@alice:us.test" || s.DeviceID != l.DeviceID || s.Admin {
			t.Errorf("the token speaks for %+v", s)
		}
		for _, token := range []string{"", " ", l.Token + "x", l.Token[1:], strings.ToUpper(l.Token), l.Token + "\x00"} {
			_, err := w.Authenticate(t.Context(), token, "")
			wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		}
		// The database holds nothing that could be used.
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Query(`SELECT hash FROM access_tokens`, func(r *store.Row) error {
				if text := string(r.Bytes(0)); len(text) != 32 || strings.Contains(text, l.Token) || strings.Contains(l.Token, text) {
					t.Errorf("stored as %x", text)
				}
				return nil
			})
		}))
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			account, err := tx.Account("alice")
			if err == nil && !strings.HasPrefix(account.Password, "$argon2id$v=19$m=64,t=1,p=1$") {
				t.Errorf("the password is stored as %q", account.Password)
			}
			return err
		}))
		// A device that logs in again has one token.
		again, err := w.LoginPassword(t.Context(), "@alice:us.test", password, NewDevice{ID: l.DeviceID})
		must(t, err)
		_, err = w.Authenticate(t.Context(), l.Token, "")
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		w.session(again)
	})
}

func TestSessionsEndAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		first := w.register("alice")
		login := func() *Login {
			l, err := w.login("alice", password)
			must(t, err)
			w.session(l) // is remembered
			return l
		}
		ends := func(what string, gone []*Login, stay []*Login) {
			t.Helper()
			for _, l := range gone {
				if _, err := w.Authenticate(t.Context(), l.Token, ""); err == nil {
					t.Errorf("%s: the token still works", what)
				}
			}
			for _, l := range stay {
				w.session(l)
			}
		}
		second, third := login(), login()
		must(t, w.Logout(t.Context(), w.session(second)))
		ends("logout", []*Login{second}, []*Login{first, third})
		must(t, w.ChangePassword(t.Context(), w.session(third), "another password", "", true))
		ends("new password", []*Login{first}, []*Login{third})
		if _, err := w.login("alice", password); err == nil {
			t.Error("the old password still works")
		}
		must(t, w.ChangePassword(t.Context(), w.session(third), password, "", false))
		second = login()
		must(t, w.ChangePassword(t.Context(), w.session(third), password, "", false))
		ends("new password, others stay", nil, []*Login{second, third})
		must(t, w.LogoutAll(t.Context(), w.session(second).User))
		ends("logout/all", []*Login{second, third}, nil)
		first = login()
		must(t, w.ResetPassword(t.Context(), "operator", w.session(first).User, "given by the admin"))
		ends("reset", []*Login{first}, nil)
		_, err := w.login("alice", "given by the admin")
		must(t, err)
	})
}

// TestASessionThatEndsIsNotRemembered reads a session, ends it, and then remembers what was read.
func TestASessionThatEndsIsNotRemembered(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l := w.register("alice")
		s := w.session(l)
		w.Accounts.mu.Lock()
		before := w.endings
		w.Accounts.mu.Unlock()
		must(t, w.Logout(t.Context(), s))
		w.remember(s.hash, cached{s, w.now().Add(time.Minute)}, before)
		_, err := w.Authenticate(t.Context(), l.Token, "")
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		if _, err := w.Again(t.Context(), s); err == nil {
			t.Error("an ended session stands")
		}
	})
}

func TestDeactivated(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		l := w.register("alice")
		s := w.session(l)
		must(t, w.Deactivate(t.Context(), s.User))
		_, err := w.Authenticate(t.Context(), l.Token, "")
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		_, err = w.login("alice", password)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.login("alice", "")
		wantCode(t, err, 403, "M_FORBIDDEN")
		wantCode(t, w.CheckUsername(t.Context(), "alice"), 400, "M_USER_IN_USE")
		wantCode(t, w.ResetPassword(t.Context(), "operator", s.User, password), 404, "M_NOT_FOUND")
		wantCode(t, w.ChangePassword(t.Context(), s, password, "", true), 403, "M_USER_DEACTIVATED") // a request that was under way
		_, err = w.login("alice", password)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.Find(t.Context(), "@alice:us.test")
		wantCode(t, err, 404, "M_NOT_FOUND")
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			account, err := tx.AccountOf(s.User)
			if err == nil && (!account.Deactivated || account.Admin || account.Password != "") {
				t.Errorf("the account is %+v", account)
			}
			return err
		}))
	})
}

// TestALoginDoesNotOutliveItsPassword changes an account while the password of a login is being compared.
func TestALoginDoesNotOutliveItsPassword(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for name, change := range map[string]func(*Session) error{
			"alice": func(s *Session) error { return w.Deactivate(t.Context(), s.User) },
			"bob": func(s *Session) error {
				return w.db.Write(t.Context(), func(tx *store.Tx) error {
					_, err := tx.SetPassword(s.User, "another hash")
					return err
				})
			},
		} {
			s := w.session(w.register(name))
			for range cap(w.hashes) {
				w.hashes <- struct{}{}
			}
			done := make(chan error, 1)
			go func() {
				_, err := w.login(name, password)
				done <- err
			}()
			w.untilWaiting(done)
			must(t, change(s))
			for range cap(w.hashes) {
				<-w.hashes
			}
			wantCode(t, <-done, 403, "M_FORBIDDEN")
			devices, err := w.Devices(t.Context(), s.User)
			if want := map[string]int{"alice": 0, "bob": 1}[name]; err != nil || len(devices) != want {
				t.Errorf("%s has %d devices, want %d: %v", name, len(devices), want, err)
			}
		}
	})
}

// untilWaiting returns once somebody waits for a place to hash a password.
func (w *world) untilWaiting(done <-chan error) {
	w.t.Helper()
	for w.waiting.Load() == 0 {
		select {
		case err := <-done:
			w.t.Fatalf("answered %v without a hash", err)
		case <-time.After(time.Millisecond): // between two looks
		}
	}
}

func TestGuessing(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.register("alice")
		for _, name := range []string{"alice", "nobody", "@alice:us.test", "@x:them.test", "", "a\x00b"} {
			_, err := w.login(name, "wrong password")
			wantCode(t, err, 403, "M_FORBIDDEN")
		}
		for range 3 * guessesOfAll.Burst { // right ones cost nothing
			_, err := w.login("alice", password)
			must(t, err)
		}
		for _, name := range []string{"alice", "nobody"} { // nobody can tell which of them exists
			for range guessesOfAll.Burst - 1 {
				_, _ = w.login(name, "wrong password")
			}
		}
		evaluated, before := 0, w.looked.passwords.Load()
		for range 60 { // an hour
			for _, name := range []string{"alice", "@Alice:us.test", "nobody"} {
				switch _, err := w.login(name, "wrong password"); {
				case errors.Is(err, matrix.Forbidden("")):
					evaluated++
				default:
					wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
				}
			}
			w.pass(time.Minute)
		}
		if evaluated > 2*(20+8) { // those that only seem to be looked at among them
			t.Errorf("%d guesses at two names were looked at in an hour", evaluated)
		}
		if n := w.looked.passwords.Load() - before; n < 10 || n > 20 {
			t.Errorf("%d guesses at one account were looked at in an hour", n)
		}
		w.pass(time.Hour)
		_, err := w.login("alice", password)
		must(t, err)
	})
}

// TestNoNameCostsAsMuchAsAWrongPassword counts the hashes instead of the time.
func TestNoNameCostsAsMuchAsAWrongPassword(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.register("alice")
		for _, name := range []string{"alice", "nobody", "@x:them.test"} {
			for range cap(w.hashes) { // no place is free
				w.hashes <- struct{}{}
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := w.LoginPassword(ctx, name, "wrong password", NewDevice{})
				done <- err
			}()
			w.untilWaiting(done)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%q: %v", name, err)
			}
			for range cap(w.hashes) {
				<-w.hashes
			}
		}
		w.waiting.Store(hashQueue)
		_, err := w.login("alice", password)
		wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
	})
}

func TestSharedSecret(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		mac := func(parts ...string) string {
			h := hmac.New(sha1.New, []byte("secret"))
			h.Write([]byte(strings.Join(parts, "\x00")))
			return hex.EncodeToString(h.Sum(nil))
		}
		nonce := func() string {
			n, err := w.Nonce(t.Context())
			must(t, err)
			return n
		}
		q := Registration{Username: "root", Password: password, Admin: true, Device: &NewDevice{}}
		n := nonce()
		_, err := w.RegisterShared(t.Context(), n, mac(n, "root", password, "notadmin"), q)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.RegisterShared(t.Context(), n, mac(n, "root", password, "admin"), q)
		wantCode(t, err, 403, "M_FORBIDDEN") // the nonce is used
		_, err = w.RegisterShared(t.Context(), "mine", mac("mine", "root", password, "admin"), q)
		wantCode(t, err, 403, "M_FORBIDDEN")
		n = nonce()
		w.pass(2 * nonceTime)
		_, err = w.RegisterShared(t.Context(), n, mac(n, "root", password, "admin"), q)
		wantCode(t, err, 403, "M_FORBIDDEN")
		n = nonce()
		_, err = w.RegisterShared(t.Context(), n, mac(n, "root", password, "admin"), Registration{Username: "root\x00" + password, Password: "admin", Admin: true})
		wantCode(t, err, 400, "M_INVALID_PARAM")
		n = nonce()
		other := newWorld(t, w.db) // another node
		l, err := other.RegisterShared(t.Context(), n, strings.ToUpper(mac(n, "root", password, "admin")), q)
		must(t, err)
		for _, again := range []string{n, strings.ToUpper(n)} {
			_, err = w.RegisterShared(t.Context(), again, mac(again, "second", password, "admin"), Registration{Username: "second", Password: password, Admin: true})
			wantCode(t, err, 403, "M_FORBIDDEN") // it was used there
		}
		if !w.session(l).Admin {
			t.Error("no administrator")
		}
		w.config.Registration.SharedSecret = ""
		_, err = w.Nonce(t.Context())
		wantCode(t, err, 404, "M_UNRECOGNIZED")
		_, err = w.RegisterShared(t.Context(), n, mac(n, "root", password, "admin"), q)
		wantCode(t, err, 404, "M_UNRECOGNIZED")
	})
}
