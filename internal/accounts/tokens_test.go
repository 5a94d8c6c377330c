package accounts

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

// renewing registers somebody whose client renews its tokens.
func (w *world) renewing(name string) *Login {
	w.t.Helper()
	l, err := w.Register(w.t.Context(), Registration{Username: name, Password: password, Device: &NewDevice{Renews: true}})
	must(w.t, err)
	if l.RefreshToken == "" || l.Lasts != accessTime {
		w.t.Fatalf("a client that renews its tokens got %+v", l)
	}
	return l
}

func (w *world) refresh(token string) (*Login, error) { return w.Refresh(w.t.Context(), token, "") }

func (w *world) speaks(token string) error {
	_, err := w.Authenticate(w.t.Context(), token, "")
	return err
}

// wantOut wants an error that says that a token is not known, and whether the session still stands.
func wantOut(t testing.TB, err error, soft bool) {
	t.Helper()
	var no *matrix.Error
	if !errors.As(err, &no) || no.Code != "M_UNKNOWN_TOKEN" {
		t.Fatalf("error %v, want M_UNKNOWN_TOKEN", err)
	}
	if got, _ := no.Fields["soft_logout"].(bool); got != soft {
		t.Errorf("soft_logout %v, want %v", got, soft)
	}
}

func TestTokensAreRenewed(t *testing.T) {
	proof.Of(t, "AN-13", "AN-02", "AN-14")
	each(t, func(t *testing.T, w *world) {
		first := w.renewing("alice")
		second, err := w.refresh(first.RefreshToken)
		must(t, err)
		if second.DeviceID != first.DeviceID || second.Token == first.Token || second.RefreshToken == first.RefreshToken {
			t.Fatalf("%+v was renewed as %+v", first, second)
		}
		// The answer was lost: the old pair is good still, and the pair of the lost answer ends.
		must(t, w.speaks(first.Token))
		third, err := w.refresh(first.RefreshToken)
		must(t, err)
		wantOut(t, w.speaks(second.Token), false)
		session := w.session(third)
		wantOut(t, w.speaks(first.Token), false)

		// A connection that began with an earlier token goes on with the login.
		fourth, err := w.refresh(third.RefreshToken)
		must(t, err)
		w.session(fourth)
		if again, err := w.Again(t.Context(), session); err != nil || again.DeviceID != first.DeviceID {
			t.Errorf("the connection of a renewed login: %+v, %v", again, err)
		}
		w.pass(accessTime)
		wantOut(t, w.speaks(fourth.Token), true)
		if _, err := w.Again(t.Context(), session); err == nil {
			t.Error("the connection of a login that was not renewed went on")
		}
		fifth, err := w.refresh(fourth.RefreshToken)
		must(t, err)
		must(t, w.speaks(fifth.Token))

		w.pass(refreshTime + time.Second)
		_, err = w.refresh(fifth.RefreshToken)
		wantOut(t, err, true)
	})
}

func TestACopiedRefreshTokenEndsTheSession(t *testing.T) {
	proof.Of(t, "A05")
	each(t, func(t *testing.T, w *world) {
		first := w.renewing("alice")
		other, err := w.login("alice", password)
		must(t, err)
		second, err := w.refresh(first.RefreshToken)
		must(t, err)
		must(t, w.speaks(second.Token))
		for range 2 { // and it stays so
			_, err = w.refresh(first.RefreshToken)
			wantOut(t, err, false)
			wantOut(t, w.speaks(second.Token), false)
			_, err = w.refresh(second.RefreshToken)
			wantOut(t, err, false)
		}
		must(t, w.speaks(other.Token))
		for _, token := range []string{"", "ccr_", first.Token, "ccr_" + first.RefreshToken} {
			_, err = w.refresh(token)
			wantOut(t, err, false)
		}
	})
}

func TestRenewalsAtTheSameTime(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		first := w.renewing("alice")
		var group sync.WaitGroup
		var renewed [8]*Login
		for i := range renewed {
			group.Go(func() { renewed[i], _ = w.refresh(first.RefreshToken) })
		}
		group.Wait()
		speak := 0
		for _, l := range renewed {
			if l == nil {
				t.Fatal("a renewal was refused")
			}
			if w.speaks(l.Token) == nil {
				speak++
			}
		}
		if speak != 1 {
			t.Errorf("%d of the tokens speak, want the last one alone", speak)
		}
	})
}

func TestRenewalEndsWithTheDevice(t *testing.T) {
	proof.Of(t, "AN-02")
	each(t, func(t *testing.T, w *world) {
		first := w.renewing("alice")
		again, err := w.LoginPassword(t.Context(), "alice", password, NewDevice{ID: first.DeviceID, Renews: true})
		must(t, err)
		_, err = w.refresh(first.RefreshToken)
		wantOut(t, err, false)
		_, err = w.Refresh(t.Context(), again.RefreshToken, "some OAuth client")
		wantOut(t, err, false)
		must(t, w.Logout(t.Context(), w.session(again)))
		_, err = w.refresh(again.RefreshToken)
		wantOut(t, err, false)

		bob := w.renewing("bob")
		must(t, w.Deactivate(t.Context(), w.session(bob).User))
		_, err = w.refresh(bob.RefreshToken)
		wantOut(t, err, false)
	})
}

// TestOtherNodesForgetWhatHasEnded: a node remembers sessions for a moment, but not those of which it hears that they have
// ended on another.
func TestOtherNodesForgetWhatHasEnded(t *testing.T) {
	proof.Of(t, "A05")
	each(t, func(t *testing.T, w *world) {
		other := newWorld(t, w.db)
		for _, heard := range []func(store.UserNID) store.UserNID{
			func(user store.UserNID) store.UserNID { return user }, func(store.UserNID) store.UserNID { return store.UserNID(cluster.Lost) },
		} {
			l, err := w.Register(t.Context(), Registration{Password: password, Device: &NewDevice{}})
			must(t, err)
			s := other.session(l)
			must(t, w.Logout(t.Context(), s))
			other.Heard(heard(s.User))
			wantOut(t, other.speaks(l.Token), false)
		}
	})
}

func TestASecondFactorIsDue(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		before, admin := w.register("alice"), w.register("boss")
		wanted := func(required bool, due time.Duration) {
			t.Helper()
			got, at, err := w.FactorWanted(t.Context(), w.session(before).User)
			if must(t, err); got != required || (at == 0) != (due == 0) || at != 0 && time.UnixMilli(at).Sub(w.now()) != due {
				t.Errorf("a second factor is wanted: %v, by %v from now; want %v, %v", got, time.UnixMilli(at).Sub(w.now()), required, due)
			}
		}
		wanted(false, 0)
		const factorGrace = 168 * time.Hour
		w.config.Auth.Require2FA, w.config.Auth.GraceHours = config.Require2FAAll, 168
		w.pass(sessionTime)
		if w.session(before).MustEnrol || w.session(admin).MustEnrol {
			t.Error("nobody was given time")
		}
		wanted(true, factorGrace)
		w.pass(factorGrace - 2*sessionTime)
		if w.session(before).MustEnrol {
			t.Error("the time was over too early")
		}
		w.pass(3 * sessionTime)
		if !w.session(before).MustEnrol {
			t.Error("the session of before the rule goes on without a second factor")
		}
		_, err := w.login("alice", password)
		secret, needs := refusedWithSignIn(t, err)
		if !strings.Contains(err.Error(), "set it up") || needs == nil || len(needs) > 0 {
			t.Errorf("a client that cannot set up a second factor is told %q, and to show %v", err, needs)
		}
		enrols, err := w.loginSignIn(secret)
		must(t, err)
		if !w.session(enrols).MustEnrol {
			t.Error("the session of a client that can is open to everything")
		}
		for _, can := range []bool{false, true} { // and who comes by single sign-on, whose client has no sign-in but a token
			token := ""
			must(t, w.db.Write(t.Context(), func(tx *store.Tx) (err error) {
				token, err = w.addLoginToken(tx, &store.SignIn{User: w.session(before).User, Shown: []string{string(BySSO)}})
				return err
			}))
			login, err := w.LoginToken(t.Context(), token, NewDevice{Enrols: can})
			if !can {
				wantCode(t, err, 403, "M_FORBIDDEN")
			} else if must(t, err); !w.session(login).MustEnrol {
				t.Error("the session of single sign-on is open to everything")
			}
		}
		_, open, err := w.open(w.session(before).User, before.UserID, NewDevice{}, Proof{Shown: []Evidence{ByPassword, ByTOTP}})
		must(t, err)
		must(t, w.db.Write(t.Context(), open))

		w.config.Auth.Require2FA = config.Require2FAAdmins
		w.pass(sessionTime)
		if w.session(before).MustEnrol {
			t.Error("a rule for administrators is held against others")
		}
		wanted(false, 0)
	})
}
