package accounts

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/observe"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

// invite makes a token of registration.
func (w *world) invite(t store.RegistrationToken) *Invitation {
	w.t.Helper()
	i, err := w.NewInvitation(w.t.Context(), &Session{UserID: "@boss:us.test"}, t, 0)
	must(w.t, err)
	return i
}

// TestGuessesAtInvitations guesses ten thousand times within an hour, from one address and from five hundred (threats A09).
func TestGuessesAtInvitations(t *testing.T) {
	proof.Of(t, "A09")
	each(t, func(t *testing.T, w *world) {
		long, short := w.invite(store.RegistrationToken{UsesAllowed: -1}), w.invite(store.RegistrationToken{Token: "choir", UsesAllowed: -1})
		const guesses, atMost = 10_000, 30
		guess := func(token func(int) string, addresses int) (evaluated int) {
			for i := range guesses {
				_, err := w.TokenValid(t.Context(), token(i), fmt.Sprintf("address %d", i%addresses))
				var known *matrix.Error
				switch {
				case err == nil:
					evaluated++
				case !errors.As(err, &known) || known.Code != "M_LIMIT_EXCEEDED":
					t.Fatal(err)
				}
				w.clock.Add((time.Hour / guesses).Milliseconds())
			}
			return evaluated
		}
		if n := guess(func(i int) string { return fmt.Sprintf("%d", i) }, 1); n > atMost {
			t.Errorf("from one address %d short tokens were looked at", n)
		}
		if n := guess(func(i int) string { return fmt.Sprintf("%016d", i) }, 1); n > atMost {
			t.Errorf("from one address %d long tokens were looked at", n)
		}
		w.pass(time.Hour)
		if n := guess(func(i int) string { return fmt.Sprintf("%d", i) }, 500); n > atMost {
			t.Errorf("from 500 addresses %d short tokens were looked at", n)
		}
		_, _ = w.TokenValid(t.Context(), "0", "one more") // what the last moment of the hour may have left
		// Meanwhile people with an invitation that nobody can guess get in, as often as they like.
		for range 50 {
			if ok, err := w.TokenValid(t.Context(), long.Token, "elsewhere"); err != nil || !ok {
				t.Fatalf("a good invitation: %v %v", ok, err)
			}
		}
		w.pass(time.Hour)
		if ok, err := w.TokenValid(t.Context(), short.Token, "elsewhere"); err != nil || !ok {
			t.Errorf("a short one, an hour later: %v %v", ok, err)
		}
	})
}

// TestInvitationsEnd looks at invitations as time passes and as they change.
func TestInvitationsEnd(t *testing.T) {
	proof.Of(t, "AN-10", "A11")
	each(t, func(t *testing.T, w *world) {
		w.config.Registration.Mode = config.RegistrationToken
		i := w.invite(store.RegistrationToken{Token: "choir", UsesAllowed: 1, Expires: w.now().Add(time.Minute).UnixMilli()})
		make := func(name string) error {
			_, err := w.Register(t.Context(), Registration{Username: name, Password: password, Token: i.Token})
			return err
		}
		// What is shown in time and used too late does not count, whatever was confirmed before.
		w.pass(2 * time.Minute)
		if err := make("alice"); err == nil {
			t.Error("a token was used that is over")
		}
		if _, err := w.ChangeInvitation(t.Context(), &Session{}, i.Token, func(r *store.RegistrationToken) { r.Expires = 0 }); err != nil {
			t.Fatal(err)
		}
		must(t, make("alice"))
		if err := make("bob"); err == nil {
			t.Error("a token was used twice")
		}
		if account, err := w.find(t.Context(), "bob"); err != nil || account != nil {
			t.Errorf("bob: %v %v", account, err)
		}
		for n := range 5 {
			w.invite(store.RegistrationToken{Token: fmt.Sprintf("t%d", n), UsesAllowed: int64(n % 2)})
		}
		var names []string
		for after, more := "", true; more; {
			list, next, err := w.Invitations(t.Context(), after, 2, nil)
			must(t, err)
			for _, i := range list {
				names = append(names, i.Token)
			}
			after, more = next, next != ""
		}
		if fmt.Sprint(names) != "[choir t0 t1 t2 t3 t4]" {
			t.Errorf("the pages held %q", names)
		}
		valid := true
		if list, _, err := w.Invitations(t.Context(), "", 100, &valid); err != nil || len(list) != 2 {
			t.Errorf("of those 2 can be used, not %v: %v", list, err)
		}
	})
}

// TestAConfirmationIsNotBroughtBack ends a session while another request is busy with it: what that one has reached must not
// make it good a second time (threats A03).
func TestAConfirmationIsNotBroughtBack(t *testing.T) {
	proof.Of(t, "A03")
	each(t, func(t *testing.T, w *world) {
		ask := Confirm{Operation: OperationRegister, Flows: Flows([]string{StageDummy, StageTerms})}
		c := challenged(t, confirm(t, w, ask))
		late, err := w.resumed(t.Context(), c.Session, StageDummy)
		must(t, err)
		_, err = w.PassStage(t.Context(), &AuthData{Type: StageDummy, Session: c.Session, Answer: []byte(`{}`)}, "")
		must(t, err)
		_, err = w.PassStage(t.Context(), &AuthData{Type: StageTerms, Session: c.Session, Answer: []byte(`{}`)}, "")
		must(t, err)
		ask.Auth = &AuthData{Session: c.Session}
		must(t, confirm(t, w, ask))
		late.Confirm, late.row.Completed = ask, []string{StageDummy, StageTerms}
		next := challenged(t, w.keep(t.Context(), late, nil))
		if next.Session == c.Session || len(next.Completed) != 0 {
			t.Errorf("the session %q goes on as %+v", c.Session, next)
		}
		if again := challenged(t, confirm(t, w, ask)); len(again.Completed) != 0 {
			t.Errorf("the session was brought back: %+v", again)
		}
	})
}

// TestInvitationsForADomain: a token for people of one domain is good for its addresses in whichever form they and the domain
// are written, for no others, and does not count where it was refused.
func TestInvitationsForADomain(t *testing.T) {
	proof.Of(t, "A11")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		w.config.Registration.Mode = config.RegistrationToken
		for _, domain := range []string{"localhost", "10.0.0.1", "a@b.example", "-.example", "b..example"} {
			_, err := w.NewInvitation(t.Context(), &Session{}, store.RegistrationToken{EmailDomain: domain, UsesAllowed: -1}, 0)
			wantCode(t, err, 400, "M_INVALID_PARAM")
		}
		i := w.invite(store.RegistrationToken{EmailDomain: "Bücher.example", UsesAllowed: 2})
		make := func(name, email string) error {
			q := Registration{Username: name, Password: password, Token: i.Token}
			if email != "" {
				p := w.prove(ForRegistration, nil, email)
				q.Email = &p
			}
			_, err := w.Register(t.Context(), q)
			return err
		}
		for name, email := range map[string]string{"nobody": "", "eve": "eve@books.example", "mallory": "mallory@evil-xn--bcher-kva.example", "sub": "sub@a.bücher.example"} {
			wantCode(t, make(name, email), 403, "M_FORBIDDEN")
		}
		must(t, make("alice", "alice@bücher.example"))
		must(t, make("bob", "Bob@XN--Bcher-kva.Example"))
		wantCode(t, make("carol", "carol@bücher.example"), 403, "M_FORBIDDEN")
	})
}

// TestEveryFlowCanBePassed: no way to register is passed on the way through another one (client-server API, "Dummy Auth"), so that
// whoever is to confirm an address, or wants to, gets to it.
func TestEveryFlowCanBePassed(t *testing.T) {
	eachMail(t, func(t *testing.T, w *mailWorld) {
		r := &w.config.Registration
		smtp := w.config.Email.SMTPURL
		for _, mode := range []string{config.RegistrationOpen, config.RegistrationApproval, config.RegistrationToken} {
			for _, challenge := range []string{"none", config.ChallengeWork} {
				for _, mails := range []observe.Secret{"", smtp} {
					r.Mode, r.Challenge, w.config.Email.SMTPURL = mode, challenge, mails
					flows := w.RegistrationFlows()
					for i, one := range flows {
						for j, other := range flows {
							if i != j && !slices.ContainsFunc(one.Stages, func(s string) bool { return !slices.Contains(other.Stages, s) }) {
								t.Errorf("%s, %s, mail %v: %v is passed by %v", mode, challenge, mails != "", one.Stages, other.Stages)
							}
						}
					}
				}
			}
		}
		r.Mode, r.Challenge = config.RegistrationToken, "none"
		i := w.invite(store.RegistrationToken{EmailDomain: "a.test", UsesAllowed: 1})
		ask := Confirm{Operation: OperationRegister, Body: []byte("alice"), Flows: w.RegistrationFlows()}
		c := challenged(t, confirm(t, w.world, ask))
		ask.Auth = &AuthData{StageToken, c.Session, []byte(`{"token":"` + i.Token + `"}`)}
		if c = challenged(t, confirm(t, w.world, ask)); !slices.Equal(c.Completed, []string{StageToken}) {
			t.Fatalf("with the invitation %v is passed", c.Completed)
		}
		shown := w.prove(ForRegistration, nil, "alice@a.test")
		ask.Auth = &AuthData{StageEmail, c.Session, []byte(`{"threepid_creds":{"sid":"` + shown.SID + `","client_secret":"secret"}}`)}
		done, err := w.Confirm(t.Context(), ask)
		must(t, err)
		email, err := done.Email()
		must(t, err)
		_, err = w.Register(t.Context(), Registration{Username: "alice", Password: password, Email: email}.With(done))
		must(t, err)
	})
}
