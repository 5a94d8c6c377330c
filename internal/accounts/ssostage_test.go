package accounts

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/idp"
	"conclave/internal/testserver/proof"
)

// link says whom the provider means by somebody.
func (w *world) link(p *idp.Provider, subject string, user store.UserNID) {
	w.t.Helper()
	must(w.t, w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		_, err := tx.AddExternalID(p.Issuer, subject, user)
		return err
	}))
}

// external makes an account without a password for somebody at the provider.
func (w *world) externalSession(p *idp.Provider, name string) *Session {
	w.t.Helper()
	l, err := w.Register(w.t.Context(), Registration{
		Username: name, NoLogin: true, External: &identity{issuer: p.Issuer, subject: "id-of-" + name}, Device: &NewDevice{},
	})
	must(w.t, err)
	return w.session(l)
}

// owner asks for a confirmation as a handler does.
func (w *world) byOwner(s *Session, operation, body string) Confirm {
	w.t.Helper()
	flows, params, err := w.ByOwner(w.t.Context(), s)
	must(w.t, err)
	return Confirm{Session: s, Operation: operation, Body: []byte(body), Flows: flows, Params: params}
}

// passSSO leads a browser from the page of a stage to the provider and back.
func (w *world) passSSO(p *idp.Provider, session, name string) (*SSOReturn, error) {
	w.t.Helper()
	location, browser, err := w.BeginSSOStage(w.t.Context(), session)
	must(w.t, err)
	state, code := atProvider(w.t, p, location, name)
	return w.FinishSSO(w.t.Context(), browser, state, code, "")
}

func TestConfirmationByTheProvider(t *testing.T) {
	proof.Of(t, "AN-05", "A03", "A13")
	eachFactor(t, func(t *testing.T, w *world) {
		p := w.withProvider(t, true, "alice", "eve")
		alice, eve := w.externalSession(p, "alice"), w.externalSession(p, "eve")
		ask := w.byOwner(alice, "deleteDevice", "A")
		if len(ask.Flows) != 1 || !slices.Equal(ask.Flows[0].Stages, []string{StageSSO}) {
			t.Fatalf("without a password it is confirmed by %v", ask.Flows)
		}
		c := challenged(t, confirm(t, w, ask))
		with := func(q Confirm, session, kind string) Confirm {
			q.Auth = &AuthData{Type: kind, Session: session, Answer: []byte(`{}`)}
			return q
		}
		open := func(what, session string) {
			t.Helper()
			if no := challenged(t, confirm(t, w, with(ask, session, ""))); len(no.Completed) != 0 {
				t.Errorf("%s: the stage is passed", what)
			}
		}

		// The client's word for it.
		if no := challenged(t, confirm(t, w, with(ask, c.Session, StageSSO))); no.Code != "M_FORBIDDEN" || len(no.Completed) != 0 {
			t.Errorf("a client's word got %+v", no)
		}
		_, err := w.PassStage(t.Context(), with(ask, c.Session, StageSSO).Auth, "")
		wantCode(t, err, 403, "M_FORBIDDEN")

		// Somebody else at the provider, known here or not.
		_, err = w.passSSO(p, c.Session, "eve")
		wantCode(t, err, 403, "M_FORBIDDEN")
		open("somebody else", c.Session)

		// The provider is to ask anew, and one that has not confirms nothing.
		location, _, err := w.BeginSSOStage(t.Context(), c.Session)
		must(t, err)
		to, err := url.Parse(location)
		must(t, err)
		if q := to.Query(); q.Get("prompt") != "login" || q.Get("max_age") != "0" || q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("state") == "" {
			t.Errorf("the provider is asked by %s", location)
		}
		w.pass(5 * time.Minute) // of our clock: the provider's sign-in is of before the request
		_, err = w.passSSO(p, c.Session, "alice")
		wantCode(t, err, 403, "M_FORBIDDEN")
		open("a sign-in of before", c.Session)
		w.pass(-5 * time.Minute)

		// Another browser than the one that left, and a way back that was used.
		location, browser, err := w.BeginSSOStage(t.Context(), c.Session)
		must(t, err)
		state, code := atProvider(t, p, location, "alice")
		_, err = w.FinishSSO(t.Context(), "cco_other", state, code, "")
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = w.FinishSSO(t.Context(), browser, state, code, "")
		wantCode(t, err, 403, "M_FORBIDDEN")
		open("another browser", c.Session)

		// A way back of a sign-in is none of a stage, and the other way round: the code is bound to its own browser.
		signing, signState, signCode := w.comeBack(t, p, "alice")
		location, browser, err = w.BeginSSOStage(t.Context(), c.Session)
		must(t, err)
		state, _ = atProvider(t, p, location, "alice")
		_, err = w.FinishSSO(t.Context(), browser, state, signCode, "")
		wantCode(t, err, 502, "M_UNKNOWN")
		open("the code of a sign-in", c.Session)
		signed, err := w.FinishSSO(t.Context(), signing, signState, signCode, "")
		must(t, err)
		if signed.SignIn == nil || signed.Stage != nil {
			t.Errorf("a sign-in came back as %+v", signed)
		}
		open("a sign-in", c.Session)

		// The right one passes the stage of this session, and of no other.
		other := challenged(t, confirm(t, w, w.byOwner(alice, "deactivateAccount", "")))
		hers := challenged(t, confirm(t, w, w.byOwner(eve, "deleteDevice", "A")))
		back, err := w.passSSO(p, c.Session, "alice")
		must(t, err)
		if back.SignIn != nil || back.Stage == nil || !back.Stage.Done || back.Stage.For != "deleteDevice" || back.Stage.User != alice.UserID {
			t.Errorf("back with %+v", back)
		}
		for name, q := range map[string]Confirm{
			"another session":        with(w.byOwner(alice, "deactivateAccount", ""), other.Session, ""),
			"another operation":      with(w.byOwner(alice, "deactivateAccount", "A"), c.Session, ""),
			"another body":           with(w.byOwner(alice, "deleteDevice", "B"), c.Session, ""),
			"somebody else":          with(w.byOwner(eve, "deleteDevice", "A"), c.Session, ""),
			"somebody else's as her": with(w.byOwner(eve, "deleteDevice", "A"), hers.Session, ""),
		} {
			if no := challenged(t, confirm(t, w, q)); len(no.Completed) != 0 {
				t.Errorf("%s is confirmed", name)
			}
		}
		must(t, confirm(t, w, with(ask, c.Session, "")))
		challenged(t, confirm(t, w, with(ask, c.Session, ""))) // once
		_, _, err = w.BeginSSOStage(t.Context(), c.Session)
		wantCode(t, err, 404, "M_NOT_FOUND")
	})
}

func TestWhoMayConfirmByTheProvider(t *testing.T) {
	proof.Of(t, "AN-05", "A10")
	eachFactor(t, func(t *testing.T, w *world) {
		p := w.withProvider(t, true, "alice", "bob")
		stages := func(s *Session) (list [][]string) {
			for _, f := range w.byOwner(s, "o", "").Flows {
				list = append(list, f.Stages)
			}
			return list
		}
		// Whom the provider does not mean keeps the password, and cannot begin the stage.
		local := w.session(w.register("local"))
		if got := stages(local); len(got) != 1 || !slices.Equal(got[0], []string{StagePassword}) {
			t.Errorf("a local account confirms by %v", got)
		}
		c := challenged(t, confirm(t, w, w.byOwner(local, "o", "")))
		_, _, err := w.BeginSSOStage(t.Context(), c.Session)
		wantCode(t, err, 404, "M_NOT_FOUND")

		// One with a password has both, and the second factor is asked for behind either.
		alice := w.session(w.register("alice"))
		w.link(p, "id-of-alice", alice.User)
		if got := stages(alice); len(got) != 2 || !slices.Equal(got[0], []string{StagePassword}) || !slices.Equal(got[1], []string{StageSSO}) {
			t.Errorf("a linked account confirms by %v", got)
		}
		app, _ := w.enrol(alice)
		ask := w.byOwner(alice, "o", "")
		if got := stages(alice); len(got) != 2 || !slices.Equal(got[1], []string{StageSSO, StageFactor}) {
			t.Errorf("with a second factor it confirms by %v", got)
		}
		c = challenged(t, confirm(t, w, ask))
		later := w.clock.Swap(time.Now().UnixMilli()) // the provider has no other clock
		_, err = w.passSSO(p, c.Session, "alice")
		must(t, err)
		w.clock.Store(later)
		ask.Auth = &AuthData{Session: c.Session}
		if again := challenged(t, confirm(t, w, ask)); !slices.Equal(again.Completed, []string{StageSSO}) {
			t.Errorf("behind the provider there is %v", again.Completed)
		}
		_, _, err = w.BeginSSOStage(t.Context(), c.Session)
		wantCode(t, err, 403, "M_FORBIDDEN") // it is passed
		ask.Auth = &AuthData{StageFactor, c.Session, []byte(`{"factor":"totp","code":"` + app.code(0) + `"}`)}
		must(t, confirm(t, w, ask))

		// A page that nobody is logged in at, and a session that came to its end on the way.
		nobody := challenged(t, confirm(t, w, Confirm{Operation: OperationRegister, Flows: Flows([]string{StageSSO})}))
		_, _, err = w.BeginSSOStage(t.Context(), nobody.Session)
		wantCode(t, err, 404, "M_NOT_FOUND")
		w.clock.Store(time.Now().UnixMilli())
		bob := w.externalSession(p, "bob")
		c = challenged(t, confirm(t, w, w.byOwner(bob, "o", "")))
		location, browser, err := w.BeginSSOStage(t.Context(), c.Session)
		must(t, err)
		state, code := atProvider(t, p, location, "bob")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.TakeUIASession(c.Session)
			return err
		}))
		_, err = w.FinishSSO(t.Context(), browser, state, code, "")
		wantCode(t, err, 404, "M_NOT_FOUND")
	})
}

// TestSignInsByTheProviderForCare: whom the provider only knows again can go on to their client, and not to their account.
func TestSignInsByTheProviderForCare(t *testing.T) {
	proof.Of(t, "A13")
	eachFactor(t, func(t *testing.T, w *world) {
		p := w.withProvider(t, true, "alice")
		w.externalSession(p, "alice")
		back := func() (*SSOReturn, *SignedIn) {
			location, browser, err := w.BeginSSOHere(t.Context(), true)
			must(t, err)
			if u, err := url.Parse(location); err != nil || u.Query().Get("prompt") != "login" || u.Query().Get("max_age") != "0" {
				t.Errorf("the provider is not told to ask anew: %s", location)
			}
			state, code := atProvider(t, p, location, "alice")
			r, err := w.FinishSSO(t.Context(), browser, state, code, "")
			must(t, err)
			who, err := w.SignedIn(t.Context(), r.SignIn.Secret)
			must(t, err)
			return r, who
		}
		if r, who := back(); r.NotAnew != nil || who.KnownAgain {
			t.Errorf("somebody who was asked just now: %v, %+v", r.NotAnew, who)
		}
		w.pass(10 * time.Minute) // the provider's clock stands still: it names a moment of before
		if r, who := back(); !isCode(r.NotAnew, "M_FORBIDDEN") || !who.KnownAgain || !who.Ready() {
			t.Errorf("somebody who is known again: %v, %+v", r.NotAnew, who)
		}
	})
}
