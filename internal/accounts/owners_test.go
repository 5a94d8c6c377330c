package accounts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// mostOfAll guesses are looked at in an hour at one account, with those of its sessions and browsers.
const mostOfAll = 60

// sessionOf is a request of a session that somebody has opened as the owner does, one for each number.
func (s *siege) sessionOf(n int) context.Context {
	session := &Session{User: s.owner.User, UserID: s.owner.UserID, Device: s.owner.Device + 1000 + int64(n), Shown: []Evidence{ByPassword, ByTOTP}}
	return withOwner(s.from(n, 500), session)
}

// hour guesses for an hour, every fifteen seconds and every time by all of some requests, and returns how many were looked at.
func (s *siege) hour(looked func(*world) int64, by func(i int) []context.Context, guess func(context.Context, *world) error) (n int64) {
	s.t.Helper()
	const every = 15 * time.Second
	for _, w := range s.nodes() {
		n -= looked(w)
	}
	for i := range int(time.Hour / every) {
		for _, ctx := range by(i) {
			err := guess(ctx, s.nodes()[i%2])
			if !isCode(err, "M_FORBIDDEN") && !isCode(err, "M_LIMIT_EXCEEDED") {
				s.t.Fatalf("guess %d: %v", i, err)
			}
		}
		s.clock.Add(every.Milliseconds())
	}
	for _, w := range s.nodes() {
		n += looked(w)
	}
	return n
}

func (s *siege) wrongPassword(ctx context.Context, w *world) error {
	_, err := w.checkPasswordBy(ctx, Identifier{User: s.owner.UserID.Localpart()}, "a wrong password")
	return err
}

func (s *siege) wrongFactor(ctx context.Context, w *world) error {
	return w.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "totp", Code: s.phone.wrong()})
}

// getsIn has the owner show what is right.
func (s *siege) getsIn(who string, ctx context.Context) {
	s.t.Helper()
	if _, err := s.checkPasswordBy(ctx, Identifier{User: s.owner.UserID.Localpart()}, password); err != nil {
		s.t.Errorf("the password of %s: %v", who, err)
	}
	if err := s.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "recovery", Code: s.codes[0]}); err != nil {
		s.t.Errorf("the second factor of %s: %v", who, err)
	}
	s.codes = s.codes[1:]
}

// exhaust guesses by one new session after the other, all at one place, until nothing is left for another.
func (s *siege) exhaust(guess func(context.Context, *world) error) {
	s.t.Helper()
	for n := range 2 * mostOfAll {
		err := guess(WithCaller(s.sessionOf(n), callerOf(s.from(0, 500))), s.world)
		if isCode(err, "M_LIMIT_EXCEEDED") {
			return
		}
		wantCode(s.t, err, 403, "M_FORBIDDEN")
	}
	s.t.Error("new sessions can go on guessing")
}

// TestGuessesOfManySessions guesses with a new session each time, in browsers that were logged in, as a stranger and at last
// at the owner's place: an account has a bounded number of guesses looked at.
func TestGuessesOfManySessions(t *testing.T) {
	proof.Of(t, "A09", "A10")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		s := newSiege(t, db, nil)
		s.account("alice")
		marks := make([]string, 20)
		for n := range marks {
			marks[n] = NewMark()
			must(t, db.Write(t.Context(), func(tx *store.Tx) error {
				return s.notePlaces(tx, s.owner.User, NewDevice{Mark: marks[n]}, Proof{Shown: s.owner.Shown})
			}))
		}
		away := func(i int) []context.Context {
			browser := WithCaller(t.Context(), Caller{Block: fmt.Sprintf("203.0.113.%d", i%250), Mark: marks[i%len(marks)]})
			return []context.Context{s.sessionOf(i), browser, s.from(i, 500)}
		}
		everywhere := func(i int) []context.Context {
			return append(away(i), WithCaller(t.Context(), Caller{Block: home}), withOwner(s.from(0, 1), s.owner))
		}
		atMost := func(what string, n int64) {
			t.Helper()
			if n <= mostLooked || n > mostOfAll { // sessions have some looked at that strangers have not
				t.Errorf("%d guesses at a %s were looked at in an hour", n, what)
			}
		}
		atMost("password", s.hour(passwordsOf, away, s.wrongPassword))
		atMost("second factor", s.hour(factorsOf, away, s.wrongFactor))
		// Whatever strangers and others' sessions have used up, nobody keeps the owner out who is where they have logged in.
		s.exhaust(s.wrongPassword)
		s.exhaust(s.wrongFactor)
		s.getsIn("home", s.from(0, 1))
		s.getsIn("a session at home", withOwner(s.from(0, 1), s.owner))
		s.pass(time.Hour)
		atMost("password", s.hour(passwordsOf, everywhere, s.wrongPassword))
		s.pass(time.Hour)
		atMost("second factor", s.hour(factorsOf, everywhere, s.wrongFactor))
	})
}

// TestOneSessionKeepsNobodyOut has somebody guess for hours by a session that they have got hold of: the owner's other
// session and browser, wherever they are, do not notice.
func TestOneSessionKeepsNobodyOut(t *testing.T) {
	proof.Of(t, "A09", "A10")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		s := newSiege(t, db, nil)
		s.account("alice")
		thief := func(int) []context.Context { return []context.Context{s.sessionOf(1)} }
		guessOn := func(looked func(*world) int64, guess func(context.Context, *world) error) {
			s.hour(looked, thief, guess)
			for n := 0; isCode(guess(s.sessionOf(1), s.world), "M_FORBIDDEN"); n++ {
				if n > mostOfAll {
					t.Fatal("one session can go on guessing")
				}
			}
		}
		for range 2 {
			guessOn(passwordsOf, s.wrongPassword)
			s.getsIn("a session", s.places()["a session"])
			guessOn(factorsOf, s.wrongFactor)
			s.getsIn("the browser", s.places()["the browser"])
		}
	})
}

// TestWhoActsForTheOwner opens sessions by an app password and for an application service: they guess as strangers, and
// where they are says nothing about the owner.
func TestWhoActsForTheOwner(t *testing.T) {
	proof.Of(t, "A09", "A10")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		s := newSiege(t, db, nil)
		s.account("alice")
		_, app, err := s.NewAppPassword(t.Context(), s.owner, "mail")
		must(t, err)
		c := Caller{Block: "203.0.113.7", Mark: NewMark()}
		d := NewDevice{Address: c.Block, Mark: c.Mark}
		byApp, err := s.LoginPassword(t.Context(), "alice", app, d)
		must(t, err)
		byService, err := s.LoginActing(t.Context(), s.owner.UserID, d)
		must(t, err)
		acting, err := s.Acting(t.Context(), "bridge", s.owner.UserID, "")
		must(t, err)
		actingOn, err := s.Acting(t.Context(), "bridge", s.owner.UserID, s.owner.DeviceID)
		must(t, err)
		account, err := s.accountOf(t.Context(), s.owner.User)
		must(t, err)
		for what, session := range map[string]*Session{
			"app password": s.session(byApp), "service's login": s.session(byService), "service": acting, "service on a device": actingOn,
		} {
			ctx := withOwner(WithCaller(t.Context(), c), session)
			must(t, db.Read(t.Context(), func(tx *store.Tx) error {
				stands, err := s.standingOf(ctx, tx, account)
				if stands != (standing{}) {
					t.Errorf("%s stands to the account as %+v", what, stands)
				}
				return err
			}))
		}
		// So a new one brings no new guesses.
		looked := s.hour(passwordsOf, func(i int) []context.Context {
			if i%20 != 0 {
				return []context.Context{withOwner(WithCaller(t.Context(), c), s.session(byApp))}
			}
			byApp, err = s.LoginPassword(t.Context(), "alice", app, d)
			must(t, err)
			return nil
		}, s.wrongPassword)
		if looked < 10 || looked > mostLooked {
			t.Errorf("%d guesses by app passwords were looked at in an hour", looked)
		}
		s.getsIn("a session", s.places()["a session"])
	})
}
