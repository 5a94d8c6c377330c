package accounts

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"conclave/internal/limits"
	"conclave/internal/matrix"
	"conclave/internal/observe"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/redis"
)

const (
	manyGuesses = 10_000
	mostLooked  = 30 // of them in an hour, at one account
	home        = "192.0.0.1"
)

// siege is an account that somebody guesses at, through two nodes, within an hour.
type siege struct {
	*mailWorld         // the first node
	other      *world  // the second one
	redis      *string // its URL, of which nodes know; nil: they know of none
	owner      *Session
	mark       string
	phone      app
	codes      []string
}

// node is a node of the siege, as it is after a start.
func (s *siege) node() *world {
	w := factorWorld(s.t, s.db)
	w.secrets, w.relying, w.now = s.secrets, s.relying, s.now
	w.guesses.now = s.now
	w.failures = rate.NewLimiter(0, 0) // what is noted of failures is shown elsewhere
	o := limits.Options{Enabled: true, Key: []byte(s.t.Name()), Clock: s.now, Log: slog.New(slog.DiscardHandler)}
	if s.redis != nil {
		o.Redis = &limits.Redis{URL: observe.Secret(*s.redis), Wait: time.Minute}
	}
	var err error
	w.limits, err = limits.New(o)
	must(s.t, err)
	s.t.Cleanup(w.limits.Close)
	return w
}

func newSiege(t *testing.T, db *store.DB, redis *string) *siege {
	t.Helper()
	first := factorWorld(t, db)
	s := &siege{mailWorld: &mailWorld{first, &box{}}, redis: redis, mark: NewMark()}
	s.config.Email.SMTPURL = "smtp://localhost"
	s.mail, s.failures = s.box, rate.NewLimiter(0, 0)
	s.limits, s.other = s.node().limits, s.node()
	return s
}

// account makes an account whose owner has logged in at home and in a browser.
func (s *siege) account(name string) {
	s.t.Helper()
	l, err := s.Register(s.t.Context(), Registration{Username: name, Password: password, Device: &NewDevice{Address: home, Mark: s.mark}})
	must(s.t, err)
	s.owner = s.session(l)
	s.phone, s.codes = s.enrol(s.owner)
	must(s.t, s.db.Write(s.t.Context(), func(tx *store.Tx) error {
		_, err := tx.AddThreepid(store.Threepid{Medium: mediumEmail, Address: name + "@a.test", User: s.owner.User, Lang: "en"})
		return err
	}))
}

func (s *siege) nodes() []*world { return []*world{s.world, s.other} }

// from is a request of somebody at one of so many addresses; at the owner's if it is only one.
func (s *siege) from(i, addresses int) context.Context {
	if addresses == 1 {
		return WithCaller(s.t.Context(), Caller{Block: home})
	}
	return WithCaller(s.t.Context(), Caller{Block: fmt.Sprintf("203.0.%d.%d", i%addresses/250, i%addresses%250)})
}

// besiege guesses for an hour and returns how many guesses both nodes have looked at. In the middle the second node is
// started again.
func (s *siege) besiege(addresses int, looked func(*world) int64, guess func(ctx context.Context, w *world, i int) error) (n int64) {
	s.t.Helper()
	for _, w := range s.nodes() {
		n -= looked(w)
	}
	for i := range manyGuesses {
		if i == manyGuesses/2 {
			n += looked(s.other)
			s.other = s.node()
		}
		err := guess(s.from(i, addresses), s.nodes()[i%2], i)
		if err == nil || !isCode(err, "M_FORBIDDEN") && !isCode(err, "M_LIMIT_EXCEEDED") {
			s.t.Fatalf("guess %d: %v", i, err)
		}
		s.clock.Add((time.Hour / manyGuesses).Milliseconds())
	}
	for _, w := range s.nodes() {
		n += looked(w)
	}
	return n
}

// places are the requests of the owner that nobody may keep out: from home, and in the browser, wherever that is.
func (s *siege) places() map[string]context.Context {
	return map[string]context.Context{
		"home":        WithCaller(s.t.Context(), Caller{Block: home}),
		"the browser": WithCaller(s.t.Context(), Caller{Block: "198.51.100.1", Mark: s.mark}),
		"a session":   withOwner(WithCaller(s.t.Context(), Caller{Block: "198.51.100.2"}), s.owner),
	}
}

func passwordsOf(w *world) int64 { return w.looked.passwords.Load() }
func factorsOf(w *world) int64   { return w.looked.factors.Load() }

// guessPasswords guesses at an account and at a name that nobody has, and holds the answers against one another.
func (s *siege) guessPasswords(name string, addresses int) int64 {
	try := func(ctx context.Context, w *world, name string) error {
		_, err := w.checkPasswordBy(ctx, Identifier{User: name}, "a wrong password")
		return err
	}
	return s.besiege(addresses, passwordsOf, func(ctx context.Context, w *world, i int) error {
		err := try(ctx, w, name)
		if i > manyGuesses/4 {
			return err
		}
		if absent := try(ctx, w, "nobody-"+name); absent == nil || absent.Error() != err.Error() || retryAfter(absent) != retryAfter(err) {
			s.t.Fatalf("guess %d: somebody's name is answered %v %d, nobody's %v %d", i, err, retryAfter(err), absent, retryAfter(absent))
		}
		return err
	})
}

// guessFactors guesses at the codes of an app and at recovery codes, of which there are as many guesses together, ten
// thousand times at each, once the password is known.
func (s *siege) guessFactors(addresses int) int64 {
	return s.besiege(addresses, factorsOf, func(ctx context.Context, w *world, _ int) error {
		errs := []error{
			w.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "totp", Code: s.phone.wrong()}),
			w.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "recovery", Code: "AAAAA-BBBBB-CCCCC-DDDDD"}),
		}
		if !isCode(errs[1], "M_FORBIDDEN") && !isCode(errs[1], "M_LIMIT_EXCEEDED") {
			return errs[1]
		}
		return errs[0]
	})
}

// guessLinks has mails sent to the owner, as many as can be, and guesses at the links in them.
func (s *siege) guessLinks(name string, addresses int) int64 {
	sid, asked := "", 0
	return s.besiege(addresses, func(w *world) int64 { return w.looked.links.Load() }, func(ctx context.Context, w *world, i int) error {
		if i%100 == 0 {
			secret := fmt.Sprintf("%s.%d", name, i)
			fresh, err := s.RequestAddress(ctx, AddressRequest{Purpose: ForReset, Address: name + "@a.test", Secret: secret, Attempt: 1, Block: callerOf(ctx).Block})
			if err == nil {
				s.deliver()
				sid, asked = fresh, asked+1
			}
		}
		claim, err := w.ConfirmAddress(ctx, sid+linkMark+randomText(32))
		if claim != nil {
			s.t.Fatal("a wrong link confirms")
		}
		if err == nil {
			err = matrix.Forbidden("This link is of no use.")
		}
		return err
	})
}

// TestTenThousandGuesses guesses for an hour each at passwords, second factors and links in mails, from one address, which
// is the owner's own, and from five hundred others.
func TestTenThousandGuesses(t *testing.T) {
	proof.Of(t, "A08", "A09", "A10")
	up, down := redis.Start(t), redis.Start(t)
	down.Kill()
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for state, url := range map[string]*string{"Redis up": &up.URL, "Redis down": &down.URL} {
			for _, addresses := range []int{1, 500} {
				if (addresses == 1) == (url == &up.URL) && os.Getenv("CONCLAVE_LONG") == "" {
					continue // what these two would show the others do
				}
				t.Run(fmt.Sprintf("%s, %d addresses", state, addresses), func(t *testing.T) {
					s := newSiege(t, db, url)
					name := fmt.Sprintf("alice%d%s", addresses, state[6:])
					s.account(name)
					atMost := func(what string, n int64) {
						t.Helper()
						if n < 10 || n > mostLooked {
							t.Errorf("%d guesses at a %s were looked at in an hour", n, what)
						}
					}
					atMost("password", s.guessPasswords(name, addresses))
					if addresses > 1 { // else the guesses come from home
						for where, ctx := range s.places() {
							if _, err := s.checkPasswordBy(ctx, Identifier{User: name}, password); err != nil {
								t.Errorf("the owner's password from %s: %v", where, err)
							}
						}
					}
					s.pass(time.Hour)
					atMost("second factor", s.guessFactors(addresses))
					for where, ctx := range s.places() {
						if addresses == 1 && where == "home" {
							continue
						}
						if err := s.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "recovery", Code: s.codes[0]}); err != nil {
							t.Errorf("the owner's second factor from %s: %v", where, err)
						}
						s.codes = s.codes[1:]
					}
					s.pass(time.Hour)
					atMost("link", s.guessLinks(name, addresses))
				})
			}
		}
	})
}

// TestStrangersBlockStrangers shows that whoever has a password, and no more, does not keep the owner of an account from
// showing the second factor, and that the owner does not help by it: guesses of strangers stay counted.
func TestStrangersBlockStrangers(t *testing.T) {
	proof.Of(t, "A09", "A10")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		s := newSiege(t, db, nil)
		s.account("alice")
		stranger := WithCaller(t.Context(), Caller{Block: "203.0.113.9", Mark: NewMark()}) // a browser, but not the owner's
		wrong := func(ctx context.Context) error {
			return s.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "totp", Code: s.phone.wrong()})
		}
		for range maxWrongFactors {
			wantCode(t, wrong(stranger), 403, "M_FORBIDDEN")
		}
		for n, ctx := range []context.Context{stranger, WithCaller(t.Context(), Caller{Block: "203.0.113.10"}), t.Context()} {
			wantCode(t, s.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "recovery", Code: s.codes[n]}), 429, "M_LIMIT_EXCEEDED")
		}
		used := 0
		for where, ctx := range s.places() {
			if err := s.CheckFactor(ctx, s.owner.User, FactorAnswer{Type: "recovery", Code: s.codes[used]}); err != nil {
				t.Errorf("the owner from %s: %v", where, err)
			}
			used++
		}
		wantCode(t, wrong(stranger), 429, "M_LIMIT_EXCEEDED")
		// Each of the owner's places that is too often wrong is blocked by itself.
		for range maxWrongFactors {
			wantCode(t, wrong(s.places()["the browser"]), 403, "M_FORBIDDEN")
		}
		wantCode(t, wrong(s.places()["the browser"]), 429, "M_LIMIT_EXCEEDED")
		must(t, s.CheckFactor(s.places()["home"], s.owner.User, FactorAnswer{Type: "recovery", Code: s.codes[used]}))
		// Somebody who resets the password forgets all places: whoever was there may have been the thief.
		must(t, s.ResetPassword(t.Context(), "operator", s.owner.User, password+"!"))
		must(t, db.Read(t.Context(), func(tx *store.Tx) error {
			known, err := tx.KnowsPlace(s.owner.User, placeOf("block", home), s.now().UnixMilli())
			if known {
				t.Error("a place is known that was known before a reset")
			}
			return err
		}))
	})
}

// TestPlacesAreForgotten notes more places than are kept, and lets time pass.
func TestPlacesAreForgotten(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		knows := func(n int, now int64) (known bool) {
			must(t, db.Read(t.Context(), func(tx *store.Tx) (err error) {
				known, err = tx.KnowsPlace(7, placeOf("block", fmt.Sprint(n)), now)
				return err
			}))
			return known
		}
		const day = 24 * 60 * 60 * 1000
		for n := range 60 {
			must(t, db.Write(t.Context(), func(tx *store.Tx) error {
				return tx.NotePlace(7, placeOf("block", fmt.Sprint(n)), int64(1000*day+n))
			}))
		}
		if knows(9, 1000*day) || !knows(10, 1000*day) || !knows(59, 1000*day) || !knows(59, 1090*day) || knows(59, 1091*day) {
			t.Error("not the latest 50 places are known, for 90 days")
		}
	})
}
