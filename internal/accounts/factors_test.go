package accounts

import (
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// factorWorld is a world in which second factors can be kept.
func factorWorld(t *testing.T, db *store.DB) *world {
	t.Helper()
	w := newWorld(t, db)
	w.secrets = secrets(t)
	w.config.PublicURL, w.config.ServerName = "https://chat.us.test", "us.test"
	w.relying = relyingParty(w.config)
	return w
}

func eachFactor(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, db *store.DB) { test(t, factorWorld(t, db)) })
}

// secrets are those of a new data directory.
func secrets(t *testing.T) *config.Secrets {
	t.Helper()
	dir := t.TempDir()
	_, err := config.EnsureDataDir(dir)
	must(t, err)
	s, err := config.LoadSecrets(dir)
	must(t, err)
	return s
}

// app is an authenticator app.
type app struct {
	w      *world
	secret string
}

// code is what the app shows some steps from now.
func (a app) code(steps int) string {
	a.w.t.Helper()
	code, err := totp.GenerateCode(a.secret, a.w.now().Add(time.Duration(steps)*totpStep*time.Second))
	must(a.w.t, err)
	return code
}

// wrong is a code that the app shows neither now nor soon.
func (a app) wrong() string {
	for n := 0; ; n++ {
		code := strings.Repeat(string(rune('0'+n)), totpDigits)
		if code != a.code(-1) && code != a.code(0) && code != a.code(1) {
			return code
		}
	}
}

// enrol sets an authenticator app up, and lets its first code grow old.
func (w *world) enrol(s *Session) (app, []string) {
	w.t.Helper()
	e, err := w.BeginTOTP(w.t.Context(), s)
	must(w.t, err)
	a := app{w, e.Secret}
	codes, err := w.ConfirmTOTP(w.t.Context(), s, a.code(0))
	must(w.t, err)
	w.pass(2 * totpStep * time.Second)
	return a, codes
}

func (w *world) totp(s *Session, code string) error {
	return w.CheckFactor(w.t.Context(), s.User, FactorAnswer{Type: "totp", Code: code})
}

func (w *world) recovery(s *Session, code string) error {
	return w.CheckFactor(w.t.Context(), s.User, FactorAnswer{Type: "recovery", Code: code})
}

func (w *world) wantFactors(s *Session, want Factors) {
	w.t.Helper()
	got, err := w.Factors(w.t.Context(), s.User)
	must(w.t, err)
	if got != want {
		w.t.Errorf("the factors are %+v, want %+v", got, want)
	}
	must(w.t, w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		account, err := tx.AccountOf(s.User)
		if err == nil && (account.SecondFactor != want.Since || (account.SecondFactor != 0) != want.Any()) {
			w.t.Errorf("the account has a second factor since %d, want %+v", account.SecondFactor, want)
		}
		return err
	}))
}

func isCode(err error, code string) bool {
	var e *matrix.Error
	return errors.As(err, &e) && e.Code == code
}

// retryAfter is the number of milliseconds that a refusal names.
func retryAfter(err error) int64 {
	var e *matrix.Error
	if !errors.As(err, &e) {
		return 0
	}
	ms, _ := e.Fields["retry_after_ms"].(int64)
	return ms
}

// atOnce runs do often at the same time and counts successes; everything else has to be refused as wrong or as too much.
func atOnce(t *testing.T, n int, do func() error) (successes int64) {
	t.Helper()
	var group sync.WaitGroup
	var made atomic.Int64
	start := make(chan struct{})
	for range n {
		group.Go(func() {
			<-start
			err := do()
			if err == nil {
				made.Add(1)
			} else if !isCode(err, "M_FORBIDDEN") && !isCode(err, "M_LIMIT_EXCEEDED") {
				t.Errorf("refused as %v", err)
			}
		})
	}
	close(start)
	group.Wait()
	return made.Load()
}

func TestTOTPEnrolment(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		elsewhere, err := w.login("alice", password)
		must(t, err)
		other := w.session(elsewhere)
		w.wantFactors(alice, Factors{})
		first, err := w.BeginTOTP(t.Context(), alice)
		must(t, err)
		key, err := otp.NewKeyFromURL(first.URI)
		must(t, err)
		if key.Type() != "totp" || key.Issuer() != "us.test" || key.AccountName() != "alice" || key.Secret() != first.Secret || key.Period() != totpStep || key.Digits() != totpDigits {
			t.Errorf("the app is told %q", first.URI)
		}
		if !strings.HasPrefix(string(first.QR), "\x89PNG\r\n") || len(first.Secret) != 32 {
			t.Errorf("a picture of %d bytes and a secret of %d letters", len(first.QR), len(first.Secret))
		}
		second, err := w.BeginTOTP(t.Context(), alice) // instead of the first
		must(t, err)
		refused := func(what string, s *Session, code, want string) {
			t.Helper()
			if _, err := w.ConfirmTOTP(t.Context(), s, code); !isCode(err, want) {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		refused("a code of the first seed", alice, app{w, first.Secret}.code(0), "M_FORBIDDEN")
		refused("no code", alice, "", "M_FORBIDDEN")
		refused("another session", other, app{w, second.Secret}.code(0), "M_NOT_FOUND")
		w.wantFactors(alice, Factors{})
		since := w.clock.Load()
		codes, err := w.ConfirmTOTP(t.Context(), alice, app{w, second.Secret}.code(0))
		must(t, err)
		if len(codes) != recoveryCodes {
			t.Errorf("%d recovery codes came with the app", len(codes))
		}
		w.wantFactors(alice, Factors{TOTP: true, Recovery: 10, Since: since})
		refused("again", alice, app{w, second.Secret}.code(0), "M_NOT_FOUND")
		wantCode(t, w.totp(alice, app{w, second.Secret}.code(0)), 403, "M_FORBIDDEN") // it was shown for the enrolment
		w.pass(time.Minute)
		// Another app takes the place of the first, without new recovery codes.
		third, err := w.BeginTOTP(t.Context(), alice)
		must(t, err)
		w.pass(enrolTime)
		refused("too late", alice, app{w, third.Secret}.code(0), "M_NOT_FOUND")
		must(t, w.totp(alice, app{w, second.Secret}.code(0)))
		newest, codes := w.enrol(alice)
		if codes != nil {
			t.Error("a second app came with recovery codes, which end those that the user keeps")
		}
		w.wantFactors(alice, Factors{TOTP: true, Recovery: 10, Since: since})
		wantCode(t, w.totp(alice, app{w, second.Secret}.code(0)), 403, "M_FORBIDDEN")
		must(t, w.totp(alice, newest.code(0)))
		must(t, w.RemoveTOTP(t.Context(), alice))
		wantCode(t, w.RemoveTOTP(t.Context(), alice), 404, "M_NOT_FOUND")
		w.wantFactors(alice, Factors{}) // and no recovery codes, which would stand in for nothing
		wantCode(t, w.totp(alice, newest.code(1)), 403, "M_FORBIDDEN")
	})
}

func TestACodeCountsOnce(t *testing.T) {
	proof.Of(t, "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		phone, recovery := w.enrol(alice)
		w.enrol(bob)
		must(t, w.totp(alice, phone.code(0)))
		wantCode(t, w.totp(alice, phone.code(0)), 403, "M_FORBIDDEN")
		wantCode(t, w.totp(alice, phone.code(-1)), 403, "M_FORBIDDEN") // older than one that was taken
		must(t, w.totp(alice, " "+phone.code(1)[:3]+" "+phone.code(1)[3:]))
		w.pass(time.Minute)
		for _, steps := range []int{-2, 2} {
			wantCode(t, w.totp(alice, phone.code(steps)), 403, "M_FORBIDDEN")
		}
		wantCode(t, w.totp(bob, phone.code(0)), 403, "M_FORBIDDEN")
		code := phone.code(0)
		must(t, w.recovery(alice, recovery[9])) // and nothing wrong counts any more
		if n := atOnce(t, 50, func() error { return w.totp(alice, code) }); n != 1 {
			t.Errorf("of 50 at once %d had success with one code", n)
		}
		w.pass(factorBlock)
		w.wantFactors(alice, Factors{TOTP: true, Recovery: 9, Since: w.since(alice)})
		wantCode(t, w.recovery(alice, recovery[9]), 403, "M_FORBIDDEN")
		wantCode(t, w.recovery(bob, recovery[8]), 403, "M_FORBIDDEN")
		must(t, w.recovery(alice, strings.ToLower(strings.ReplaceAll(recovery[8], "-", " "))))
		if n := atOnce(t, 50, func() error { return w.recovery(alice, recovery[7]) }); n != 1 {
			t.Errorf("of 50 at once %d had success with one recovery code", n)
		}
	})
}

// since is when an account got its first second factor.
func (w *world) since(s *Session) int64 {
	w.t.Helper()
	f, err := w.Factors(w.t.Context(), s.User)
	must(w.t, err)
	return f.Since
}

func TestWrongFactorsSlowDown(t *testing.T) {
	proof.Of(t, "A09", "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		phone, recovery := w.enrol(alice)
		pad, _ := w.enrol(bob)
		for n := range maxWrongFactors {
			answer := FactorAnswer{Type: "totp", Code: phone.wrong()}
			if n%2 == 1 {
				answer = FactorAnswer{Type: "recovery", Code: "AAAAA-BBBBB-CCCCC-DDDDD"}
			}
			wantCode(t, w.CheckFactor(t.Context(), alice.User, answer), 403, "M_FORBIDDEN")
		}
		err := w.totp(alice, phone.code(0))
		wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
		if ms := retryAfter(err); ms != factorBlock.Milliseconds() {
			t.Errorf("to be tried again after %d ms", ms)
		}
		wantCode(t, w.recovery(alice, recovery[0]), 429, "M_LIMIT_EXCEEDED")
		must(t, w.totp(bob, pad.code(0))) // nobody else is slowed down
		// Another node, or this one after a restart, knows it too.
		again := newWorld(t, w.db)
		again.secrets = w.secrets
		again.clock.Store(w.clock.Load())
		wantCode(t, again.totp(alice, phone.code(0)), 429, "M_LIMIT_EXCEEDED")
		w.pass(factorBlock - time.Millisecond)
		wantCode(t, w.totp(alice, phone.code(0)), 429, "M_LIMIT_EXCEEDED")
		w.pass(time.Millisecond)
		must(t, w.totp(alice, phone.code(0)))
		must(t, w.recovery(alice, recovery[0])) // it was not used up by a refusal
		// A right one forgives the wrong ones before it, and so does time.
		for range 2 * maxWrongFactors {
			wantCode(t, w.totp(alice, phone.wrong()), 403, "M_FORBIDDEN")
			w.pass(factorBlock)
		}
		for range 3 {
			for range maxWrongFactors - 1 {
				wantCode(t, w.totp(alice, phone.wrong()), 403, "M_FORBIDDEN")
			}
			must(t, w.totp(alice, phone.code(0)))
			w.pass(time.Minute)
		}
		// Who guesses for hours has few guesses looked at, and the owner gets in afterwards.
		looked := 0
		for range 3 * 60 {
			err := w.totp(alice, phone.wrong())
			if isCode(err, "M_FORBIDDEN") {
				looked++
			}
			w.pass(time.Minute)
		}
		if looked > 3*20 || looked < 3*10 {
			t.Errorf("%d guesses were looked at in three hours", looked)
		}
		w.pass(factorBlock)
		must(t, w.totp(alice, phone.code(0)))
	})
}

func TestRecoveryCodes(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		if _, err := w.NewRecoveryCodes(t.Context(), alice); !isCode(err, "M_FORBIDDEN") {
			t.Errorf("recovery codes without a second factor: %v", err)
		}
		_, old := w.enrol(alice)
		fresh, err := w.NewRecoveryCodes(t.Context(), alice)
		must(t, err)
		all := slices.Concat(old, fresh)
		slices.Sort(all)
		if len(slices.Compact(all)) != 20 {
			t.Errorf("two sets of recovery codes have %d codes", len(all))
		}
		for _, code := range fresh {
			groups := strings.Split(code, "-")
			if len(groups) != 4 || len(code) != 23 || strings.ToUpper(code) != code {
				t.Errorf("a recovery code is %q", code)
			}
		}
		wantCode(t, w.recovery(alice, old[0]), 403, "M_FORBIDDEN")
		must(t, w.recovery(alice, fresh[0]))
		w.wantFactors(alice, Factors{TOTP: true, Recovery: 9, Since: w.since(alice)})
	})
}

func TestTheLastFactorStaysWhereOneIsDemanded(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		user, admin := w.session(w.register("user")), w.register("admin")
		_, _ = w.enrol(user)
		boss := w.session(admin)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.SetAdmin(boss.User, true) }))
		_, _ = w.enrol(boss)
		for policy, demanded := range map[string][2]bool{"none": {}, "admins": {false, true}, "all": {true, true}} {
			w.config.Auth.Require2FA = policy
			for i, s := range []*Session{user, boss} {
				f, err := w.Factors(t.Context(), s.User)
				must(t, err)
				if !f.Any() {
					_, _ = w.enrol(s)
				}
				f, err = w.Factors(t.Context(), s.User)
				must(t, err)
				err = w.RemoveTOTP(t.Context(), s)
				if demanded[i] != isCode(err, "M_FORBIDDEN") || !demanded[i] && err != nil {
					t.Errorf("%s removes the last factor where %s have to have one: %v", s.UserID, policy, err)
				}
				if demanded[i] {
					w.wantFactors(s, f)
					if required, due, err := w.FactorWanted(t.Context(), s.User); !required || due != 0 || err != nil {
						t.Errorf("%s has a factor: required %v, due %d, %v", s.UserID, required, due, err)
					}
				}
			}
		}
	})
}

func TestResetFactors(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		phone, recovery := w.enrol(alice)
		pad, _ := w.enrol(bob)
		for range maxWrongFactors {
			wantCode(t, w.totp(alice, phone.wrong()), 403, "M_FORBIDDEN")
		}
		must(t, w.ResetFactors(t.Context(), "@admin:us.test", alice.User))
		w.wantFactors(alice, Factors{})
		wantCode(t, w.recovery(alice, recovery[0]), 403, "M_FORBIDDEN") // and is looked at
		if _, err := w.Authenticate(t.Context(), w.register("carol").Token, ""); err != nil {
			t.Error(err)
		}
		must(t, w.totp(bob, pad.code(0)))
		must(t, w.Deactivate(t.Context(), bob.User))
		f, err := w.Factors(t.Context(), bob.User)
		if err != nil || f != (Factors{}) {
			t.Errorf("a closed account has %+v, %v", f, err)
		}
		wantCode(t, w.ResetFactors(t.Context(), "@admin:us.test", bob.User), 404, "M_NOT_FOUND")
		wantCode(t, w.totp(bob, pad.code(1)), 403, "M_FORBIDDEN")
	})
}

// TestSeedsAreSealed looks at what the database keeps, and moves it about as somebody could who writes to the database.
func TestSeedsAreSealed(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		phone, _ := w.enrol(alice)
		pad, _ := w.enrol(bob)
		seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(phone.secret)
		must(t, err)
		var mine *store.TOTP
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) (err error) {
			if mine, err = tx.TOTP(alice.User); err != nil {
				return err
			}
			if strings.Contains(string(mine.Sealed), string(seed)) || strings.Contains(string(mine.Sealed), phone.secret) {
				t.Error("the seed is kept in clear")
			}
			return tx.PutTOTP(bob.User, *mine, 1) // bob's app is alice's now, says whoever wrote it
		}))
		if err := w.totp(bob, phone.code(0)); err == nil {
			t.Error("a seed serves an account that it was not made for")
		}
		wantCode(t, w.totp(bob, pad.code(0)), 403, errUnreadable)
		lost := newWorld(t, w.db)
		lost.clock.Store(w.clock.Load())
		for name, s := range map[string]*config.Secrets{"another key": secrets(t), "no key": nil} {
			lost.secrets = s
			t.Logf("with %s", name)
			wantCode(t, lost.totp(alice, phone.code(0)), 403, errUnreadable)
		}
		must(t, w.totp(alice, phone.code(0)))
	})
}
