package accounts

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver/passkey"
	"conclave/internal/testserver/proof"
)

// refusedWithSignIn wants the refusal of a password that is not enough, and gives back the sign-in in it.
func refusedWithSignIn(t *testing.T, err error) (secret string, needs []Evidence) {
	t.Helper()
	wantCode(t, err, 403, "M_FORBIDDEN")
	var e *matrix.Error
	errors.As(err, &e)
	fields, _ := e.Fields["im.conclave.sign_in"].(map[string]any)
	secret, _ = fields["sign_in"].(string)
	needs, _ = fields["needs"].([]Evidence)
	if secret == "" {
		t.Fatalf("the refusal %+v has no sign-in", e)
	}
	return secret, needs
}

func (w *world) loginSignIn(secret string) (*Login, error) {
	return w.LoginSignIn(w.t.Context(), secret, NewDevice{})
}

func TestNoDoorLeadsAroundTheSecondFactor(t *testing.T) {
	proof.Of(t, "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		early, err := w.SignInPassword(t.Context(), Identifier{User: "alice"}, password)
		must(t, err)
		if len(early.Needs) != 0 {
			t.Errorf("an account without second factors needs %v", early.Needs)
		}
		app, codes := w.enrol(alice)

		// A password alone, whoever asks, and whenever it was shown.
		_, err = w.loginSignIn(early.Secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.login("alice", password)
		secret, needs := refusedWithSignIn(t, err)
		if !slices.Equal(needs, []Evidence{ByTOTP, ByRecoveryCode}) {
			t.Errorf("needs %v", needs)
		}
		_, err = w.loginSignIn(secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.login("alice", "wrong password")
		wantCode(t, err, 403, "M_FORBIDDEN")
		if e := new(matrix.Error); errors.As(err, &e) && e.Fields != nil {
			t.Errorf("a wrong password was told %v", e.Fields)
		}
		must(t, w.ResetPassword(t.Context(), "operator", alice.User, password+"!"))
		_, err = w.login("alice", password+"!")
		secret, _ = refusedWithSignIn(t, err)

		// Wrong, then right; the code and the sign-in are used up.
		_, err = w.SignInFactor(t.Context(), secret, FactorAnswer{Type: "totp", Code: app.wrong()})
		wantCode(t, err, 403, "M_FORBIDDEN")
		done, err := w.SignInFactor(t.Context(), secret, FactorAnswer{Type: "totp", Code: app.code(0)})
		must(t, err)
		if len(done.Needs) != 0 {
			t.Errorf("after the second factor it needs %v", done.Needs)
		}
		if n := atOnce(t, 20, func() error { _, err := w.loginSignIn(secret); return err }); n != 1 {
			t.Errorf("one sign-in opened %d sessions", n)
		}
		again, err := w.SignInPassword(t.Context(), Identifier{User: "alice"}, password+"!")
		must(t, err)
		_, err = w.SignInFactor(t.Context(), again.Secret, FactorAnswer{Type: "totp", Code: app.code(0)})
		wantCode(t, err, 403, "M_FORBIDDEN")

		// A recovery code instead, and what the session then says of itself.
		_, err = w.SignInFactor(t.Context(), again.Secret, FactorAnswer{Type: "recovery", Code: codes[0]})
		must(t, err)
		login, err := w.loginSignIn(again.Secret)
		must(t, err)
		if s := w.session(login); !slices.Equal(s.Shown, []Evidence{ByPassword, ByRecoveryCode}) {
			t.Errorf("the session was opened by %v", s.Shown)
		}
	})
}

func TestSignInsEnd(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		app, _ := w.enrol(alice)
		begin := func() string {
			s, err := w.SignInPassword(t.Context(), Identifier{User: "alice"}, password)
			must(t, err)
			return s.Secret
		}
		late := begin()
		w.pass(signInTime + time.Second)
		_, err := w.SignInFactor(t.Context(), late, FactorAnswer{Type: "totp", Code: app.code(0)})
		wantCode(t, err, 403, "M_FORBIDDEN")

		before := begin()
		must(t, w.ChangePassword(t.Context(), alice, password, "", false))
		_, err = w.SignInFactor(t.Context(), before, FactorAnswer{Type: "totp", Code: app.code(0)})
		wantCode(t, err, 403, "M_FORBIDDEN")

		ready := begin()
		_, err = w.SignInFactor(t.Context(), ready, FactorAnswer{Type: "totp", Code: app.code(0)})
		must(t, err)
		w.pass(signInTime + time.Second)
		_, err = w.loginSignIn(ready)
		wantCode(t, err, 403, "M_FORBIDDEN")
		for _, secret := range []string{"", "ccs_", "ccs_made-up"} {
			_, err = w.loginSignIn(secret)
			wantCode(t, err, 403, "M_FORBIDDEN")
		}
		out := begin()
		must(t, w.LogoutAll(t.Context(), alice.User))
		_, err = w.SignInFactor(t.Context(), out, FactorAnswer{Type: "totp", Code: app.code(0)})
		wantCode(t, err, 403, "M_FORBIDDEN")
		closing := begin()
		must(t, w.Deactivate(t.Context(), alice.User))
		_, err = w.SignInFactor(t.Context(), closing, FactorAnswer{Type: "totp", Code: app.code(0)})
		wantCode(t, err, 403, "M_FORBIDDEN")
	})
}

func TestAPasskeySignsInAlone(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		key := &passkey.Authenticator{Origin: origin, Verifies: true}
		w.addPasskey(alice, key, "key")
		options, challenge, err := w.BeginPasskeySignIn(t.Context())
		must(t, err)
		shown, err := key.Get(options)
		must(t, err)
		signIn, err := w.SignInPasskey(t.Context(), challenge, shown)
		must(t, err)
		if len(signIn.Needs) != 0 {
			t.Errorf("a passkey that verified its user needs %v", signIn.Needs)
		}
		login, err := w.loginSignIn(signIn.Secret)
		must(t, err)
		if login.UserID != alice.UserID {
			t.Errorf("%s signed in", login.UserID)
		}
	})
}

// confirmedBy confirms a request as its owner, stage by stage.
func (w *world) confirmedBy(s *Session, answers ...map[string]any) (*Confirmed, error) {
	w.t.Helper()
	flows, params, err := w.ByOwner(w.t.Context(), s)
	must(w.t, err)
	q := Confirm{Session: s, Operation: "o", Flows: flows, Params: params}
	session := ""
	for i, answer := range answers {
		answer["session"] = session
		raw, err := json.Marshal(answer)
		must(w.t, err)
		q.Auth = new(AuthData)
		must(w.t, json.Unmarshal(raw, q.Auth))
		how, err := w.Confirm(w.t.Context(), q)
		if i == len(answers)-1 {
			return how, err
		}
		session = challenged(w.t, err).Session
	}
	return nil, nil
}

func TestOwnersConfirmWithBothFactors(t *testing.T) {
	proof.Of(t, "A10", "AN-04")
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		app, _ := w.enrol(alice)
		first := map[string]any{"type": StagePassword, "password": password}
		next := func(code string) map[string]any {
			return map[string]any{"type": StageFactor, "factor": "totp", "code": code}
		}

		_, err := w.confirmedBy(alice, first)
		if c := challenged(t, err); !slices.Equal(c.Completed, []string{StagePassword}) || !slices.Equal(c.Flows[0].Stages, []string{StagePassword, StageFactor}) || c.Params[StageFactor] == nil {
			t.Errorf("after the password %+v", c)
		}
		_, err = w.confirmedBy(alice, next(app.code(0))) // without the password nobody guesses at codes
		if c := challenged(t, err); len(c.Completed) != 0 || c.Code != "M_INVALID_PARAM" {
			t.Errorf("the second stage first got %+v", c)
		}
		_, err = w.confirmedBy(alice, first, next(app.wrong()))
		if c := challenged(t, err); c.Code != "M_FORBIDDEN" {
			t.Errorf("a wrong code got %+v", c)
		}
		how, err := w.confirmedBy(alice, first, next(app.code(0)))
		must(t, err)

		// A login token of a session that has shown both opens another that has.
		token, _, err := w.NewLoginToken(t.Context(), alice, how)
		must(t, err)
		_, err = w.loginSignIn(token)
		wantCode(t, err, 403, "M_FORBIDDEN")
		if n := atOnce(t, 20, func() error { _, err := w.LoginToken(t.Context(), token, NewDevice{}); return err }); n != 1 {
			t.Errorf("one token opened %d sessions", n)
		}
		weak, _, err := w.NewLoginToken(t.Context(), alice, &Confirmed{Stages: []string{StagePassword}})
		must(t, err)
		_, err = w.LoginToken(t.Context(), weak, NewDevice{})
		wantCode(t, err, 403, "M_FORBIDDEN")
		old, _, err := w.NewLoginToken(t.Context(), alice, how)
		must(t, err)
		w.pass(loginTokenTime + time.Second)
		_, err = w.LoginToken(t.Context(), old, NewDevice{})
		wantCode(t, err, 403, "M_FORBIDDEN")
	})
}

func TestAppPasswords(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		w.enrol(alice)
		id, secret, err := w.NewAppPassword(t.Context(), alice, "old phone")
		must(t, err)
		first, err := w.login("alice", secret)
		must(t, err)
		w.session(first)
		second, err := w.login("alice", secret) // typed in once more: the client has lost its session
		must(t, err)
		wantOut(t, w.speaks(first.Token), false)
		_, err = w.login("bob", secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		if _, err := w.confirmedBy(alice, map[string]any{"type": StagePassword, "password": secret}); challenged(t, err).Code != "M_FORBIDDEN" {
			t.Error("an app password confirms")
		}
		if _, err := w.SignInPassword(t.Context(), Identifier{User: "alice"}, secret); err == nil {
			t.Error("an app password signs in on our pages")
		}
		list, err := w.AppPasswords(t.Context(), alice.User)
		must(t, err)
		if len(list) != 1 || list[0].Name != "old phone" || list[0].Used == 0 {
			t.Errorf("alice has %+v", list)
		}
		wantCode(t, w.RemoveAppPassword(t.Context(), bob, id), 404, "M_NOT_FOUND")
		must(t, w.RemoveAppPassword(t.Context(), alice, id))
		wantOut(t, w.speaks(second.Token), false)
		_, err = w.login("alice", secret)
		wantCode(t, err, 403, "M_FORBIDDEN")

		_, secret, err = w.NewAppPassword(t.Context(), alice, "mail")
		must(t, err)
		must(t, w.ResetPassword(t.Context(), "operator", alice.User, password+"!"))
		_, err = w.login("alice", secret)
		wantCode(t, err, 403, "M_FORBIDDEN")

		_, secret, err = w.NewAppPassword(t.Context(), bob, "mail")
		must(t, err)
		must(t, w.ChangePassword(t.Context(), bob, password, "", false))
		_, err = w.login("bob", secret)
		must(t, err)
		must(t, w.ChangePassword(t.Context(), bob, password, "", true))
		_, err = w.login("bob", secret)
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, _, err = w.NewAppPassword(t.Context(), bob, "")
		wantCode(t, err, 400, "M_INVALID_PARAM")
	})
}
