package accounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

// publisher is an identity server.
type publisher struct {
	bound   []string
	fail    error
	refuses bool
}

// Bind implements IdentityServers.
func (p *publisher) Bind(_ context.Context, at matrix.ServerName, _, sid, _ string, user matrix.UserID) (medium, address string, err error) {
	p.bound = append(p.bound, fmt.Sprint(at, user, sid))
	return "email", sid, p.fail
}

// Unbind implements IdentityServers.
func (p *publisher) Unbind(_ context.Context, at matrix.ServerName, user matrix.UserID, _, address string) (bool, error) {
	if p.fail != nil || p.refuses {
		return false, p.fail
	}
	p.bound = slices.DeleteFunc(p.bound, func(b string) bool { return b == fmt.Sprint(at, user, address) })
	return true, nil
}

// TestLoginByAddress signs in by addresses, and looks that they give no more guesses than the name does and tell nothing
// of whose they are.
func TestLoginByAddress(t *testing.T) {
	proof.Of(t, "AN-08", "A08", "A09")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		w.owner("alice", "alice@a.test")
		login := func(by Identifier, password string) error {
			_, err := w.LoginPasswordBy(t.Context(), by, password, NewDevice{})
			return err
		}
		at := func(address string) Identifier {
			return Identifier{Type: "m.id.thirdparty", Medium: "email", Address: address}
		}
		must(t, login(at("Alice@A.test"), password))
		for _, by := range []Identifier{at("bob@a.test"), at("alice"), at(""), at("alice@a.test\x00"), {Type: "m.id.thirdparty", Medium: "msisdn", Address: "alice@a.test"}} {
			wantCode(t, login(by, password), 403, "M_FORBIDDEN")
		}
		w.pass(24 * time.Hour)
		// All guesses at the account count together. Those beyond are wrong even if they are right, and only whoever has
		// used up those of one address or name is told.
		for range guessesOfAll.Burst + int64(reserve.Burst) { // the last of which nobody looks at
			wantCode(t, login(at("alice@a.test"), "guess"), 403, "M_FORBIDDEN")
			wantCode(t, login(at("nobody@a.test"), "guess"), 403, "M_FORBIDDEN")
		}
		wantCode(t, login(at("alice@a.test"), password), 429, "M_LIMIT_EXCEEDED")
		wantCode(t, login(at("nobody@a.test"), password), 429, "M_LIMIT_EXCEEDED")
		wantCode(t, login(Identifier{User: "alice"}, password), 403, "M_FORBIDDEN")
		w.pass(time.Duration(guessesOfAll.Every) * time.Millisecond)
		must(t, login(Identifier{User: "alice"}, password))
	})
}

// TestTimeDoesNotTellAddresses is TestTimeDoesNotTellNames for logging in by address.
func TestTimeDoesNotTellAddresses(t *testing.T) {
	proof.Of(t, "A08")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		w.config.Auth.Argon2.MemoryKiB = 1024
		w.guesses.on = false
		w.owner("alice", "alice@a.test")
		tellsNothing(t, "addresses that somebody has", func(kind, i int) {
			address := fmt.Sprintf("nobody%d@a.test", i) // for both, whose times differ by less than it takes
			if kind == 0 {
				address = "alice@a.test"
			}
			_, err := w.LoginPasswordBy(t.Context(), Identifier{Type: "m.id.thirdparty", Medium: "email", Address: address}, "a wrong password", NewDevice{})
			wantCode(t, err, 403, "M_FORBIDDEN")
		})
	})
}

// TestOwnersAreTold changes what matters of an account, and looks who gets a mail.
func TestOwnersAreTold(t *testing.T) {
	eachMail(t, func(t *testing.T, w *mailWorld) {
		s := w.owner("alice", "one@a.test")
		to := func(says string, want ...string) {
			t.Helper()
			var got []string
			for _, m := range w.deliver() {
				got = append(got, m.To)
				if !strings.Contains(m.Text, says) || strings.Contains(m.Subject, "@") {
					t.Errorf("%s: %s", m.Subject, m.Text)
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("told were %v, want %v", got, want)
			}
		}
		must(t, w.AddThreepid(t.Context(), s, w.prove(ForAdding, s, "two@a.test"), "de", "192.0.2.9"))
		to("The e-mail address two@a.test was added", "one@a.test")
		must(t, w.ResetPassword(t.Context(), "operator", s.User, password+"2"))
		for _, m := range w.deliver() {
			if german := strings.Contains(m.Text, "wurde geändert"); german != (m.To == "two@a.test") {
				t.Errorf("to %s: %s", m.To, m.Text)
			}
		}
		_, err := w.DeleteThreepid(t.Context(), s, "email", "two@a.test", "", "")
		must(t, err)
		if got := w.deliver(); len(got) != 2 {
			t.Errorf("%d mails about the address that was taken away", len(got))
		}
		must(t, w.ResetFactors(t.Context(), "admin", s.User))
		to("second factor", "one@a.test")
		// What is not one's own cannot be taken away, and nobody is told.
		other := w.owner("bob", "bob@a.test")
		_, err = w.DeleteThreepid(t.Context(), other, "email", "one@a.test", "", "")
		must(t, err)
		list, err := w.Threepids(t.Context(), s.User)
		if err != nil || len(list) != 1 || len(w.deliver()) != 0 {
			t.Errorf("%+v %v", list, err)
		}
	})
}

// TestPasswordsAreReset resets a password by mail: with and without the end of sessions, for a locked account, and not for
// a closed one.
func TestPasswordsAreReset(t *testing.T) {
	proof.Of(t, "A06", "A07")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		s := w.owner("alice", "alice@a.test")
		w.register("admin")
		must(t, w.ResetByEmail(t.Context(), w.prove(ForReset, nil, "alice@a.test"), password+"2", "", false))
		w.deliver()
		if _, err := w.Again(t.Context(), s); err != nil {
			t.Errorf("the session ended: %v", err)
		}
		_, err := w.login("alice", password)
		wantCode(t, err, 403, "M_FORBIDDEN")
		p := w.prove(ForReset, nil, "alice@a.test")
		wantCode(t, w.ResetByEmail(t.Context(), p, "short", "", true), 400, "M_WEAK_PASSWORD")
		must(t, w.ResetByEmail(t.Context(), p, password+"3", "", true))
		w.deliver()
		_, err = w.Again(t.Context(), s)
		wantCode(t, err, 401, "M_UNKNOWN_TOKEN")
		_, err = w.login("alice", password+"3")
		must(t, err)
		p = w.prove(ForReset, nil, "alice@a.test")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.SetLocked(s.User, true) }))
		wantCode(t, w.ResetByEmail(t.Context(), p, password+"4", "", true), 401, "M_USER_LOCKED")
		must(t, w.Deactivate(t.Context(), s.User))
		wantCode(t, w.ResetByEmail(t.Context(), p, password+"4", "", true), 400, "M_THREEPID_AUTH_FAILED")
		w.pass(time.Hour)
		w.ask(ForReset, nil, "alice@a.test", "other", 1)
		if m := w.one(); !strings.Contains(m.Text, "No account there") {
			t.Errorf("a closed account is offered a new password: %s", m.Text)
		}
	})
}

// TestClosedAccountsLetGoOfAddresses closes an account whose address an identity server publishes.
func TestClosedAccountsLetGoOfAddresses(t *testing.T) {
	proof.Of(t, "A06", "AN-16")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		p := &publisher{}
		w.identities = p
		s := w.owner("alice", "alice@a.test")
		for _, at := range []matrix.ServerName{"id1.test", "id2.test"} {
			must(t, w.BindThreepid(t.Context(), s, at, "token", "alice@a.test", "secret"))
		}
		p.fail = errors.New("down")
		if all, err := w.UnbindAll(t.Context(), s); all || err != nil {
			t.Errorf("all are said to have forgotten the address: %v", err)
		}
		pending := w.prove(ForAdding, s, "more@a.test")
		w.prove(ForReset, nil, "alice@a.test") // which nobody has to be signed in for
		must(t, w.Deactivate(t.Context(), s.User))
		must(t, w.unbindClosed(t.Context()))
		if len(p.bound) != 2 {
			t.Errorf("bound: %v", p.bound)
		}
		kept := 0
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			_, err := tx.QueryRow(`SELECT count(*) FROM validations`).Scan(&kept)
			return err
		}))
		if kept != 0 {
			t.Errorf("%d proofs of addresses are kept", kept)
		}
		p.fail = nil
		must(t, w.unbindClosed(t.Context())) // which is not its turn yet
		if len(p.bound) != 2 {
			t.Errorf("it is tried again at once: %v", p.bound)
		}
		w.pass(unbindRetry)
		must(t, w.unbindClosed(t.Context()))
		if len(p.bound) != 0 {
			t.Errorf("still bound: %v", p.bound)
		}
		wantCode(t, w.AddThreepid(t.Context(), s, pending, "en", ""), 400, "M_THREEPID_AUTH_FAILED")
		// The address is free for somebody else.
		bob := w.owner("bob", "alice@a.test")
		list, err := w.Threepids(t.Context(), bob.User)
		if err != nil || len(list) != 1 {
			t.Errorf("%v %v", list, err)
		}
	})
}
