package accounts

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/passkey"
	"conclave/internal/testserver/proof"
)

// parallelUses is how often each is used at the same time.
const parallelUses = 100

// onceWorld is a world in which there is everything that is used once.
type onceWorld struct {
	*mailWorld
	owner  *Session
	phone  app
	codes  []string
	client *Client
}

func newOnceWorld(t *testing.T, db *store.DB) *onceWorld {
	t.Helper()
	w := &onceWorld{mailWorld: &mailWorld{factorWorld(t, db), &box{}}}
	w.config.Email.SMTPURL, w.mail = "smtp://localhost", w.box
	w.owner = w.mailWorld.owner("alice", "alice@a.test")
	w.client = w.oauthClient("app")
	return w
}

// onceUsed are all kinds of what is good for one use. Each makes one and returns a use of it, which has success or fails.
var onceUsed = []struct {
	kind string
	make func(t *testing.T, w *onceWorld) (use func(i int) error)
}{
	{"token of a login", func(t *testing.T, w *onceWorld) func(int) error {
		token, _, err := w.NewLoginToken(t.Context(), w.owner, &Confirmed{Stages: []string{StagePassword}})
		must(t, err)
		return func(int) error { _, err := w.LoginToken(t.Context(), token, NewDevice{}); return err }
	}},
	{"sign-in", func(t *testing.T, w *onceWorld) func(int) error {
		secret := w.signedIn("alice")
		return func(int) error { _, err := w.LoginSignIn(t.Context(), secret, NewDevice{}); return err }
	}},
	{"token of registration", func(t *testing.T, w *onceWorld) func(int) error {
		w.config.Registration.Mode = config.RegistrationToken
		i := w.invite(store.RegistrationToken{Token: "choir", UsesAllowed: 1})
		return func(n int) error {
			_, err := w.Register(t.Context(), Registration{Username: "singer" + string(rune('a'+n/26)) + string(rune('a'+n%26)), Password: password, Token: i.Token})
			return err
		}
	}},
	{"request for an account", func(t *testing.T, w *onceWorld) func(int) error {
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.AddRegistrationRequest(store.RegistrationRequest{Localpart: "waiting", Password: "x"})
			return err
		}))
		return func(int) error { _, err := w.Approve(t.Context(), w.owner, "waiting"); return err }
	}},
	{"link in a mail", func(t *testing.T, w *onceWorld) func(int) error {
		w.ask(ForReset, nil, "alice@a.test", "one", 1)
		link := token(t, w.one())
		return func(int) error {
			claim, err := w.ConfirmAddress(t.Context(), link)
			if err == nil && claim == nil {
				err = errWrongToken()
			}
			return err
		}
	}},
	{"confirmed address", func(t *testing.T, w *onceWorld) func(int) error {
		p := w.prove(ForReset, nil, "alice@a.test")
		return func(int) error { return w.ResetByEmail(t.Context(), p, password, "", false) }
	}},
	{"refresh token", func(t *testing.T, w *onceWorld) func(int) error {
		l, err := w.LoginPassword(t.Context(), "alice", password, NewDevice{Renews: true})
		must(t, err)
		// Each may be answered, as if the answers before it were lost; of all new tokens one is good.
		var answered sync.WaitGroup
		answered.Add(parallelUses)
		return func(int) error {
			next, err := w.refresh(l.RefreshToken)
			answered.Done()
			if answered.Wait(); err == nil {
				err = w.speaks(next.Token)
			}
			return err
		}
	}},
	{"authorization code", func(t *testing.T, w *onceWorld) func(int) error {
		code := w.code(w.client, "alice", "CODE")
		return func(int) error { _, err := w.redeem(w.client, code); return err }
	}},
	{"device code", func(t *testing.T, w *onceWorld) func(int) error {
		g, err := w.BeginDeviceGrant(t.Context(), w.client.ID, Scope("TELEVISION"))
		must(t, err)
		visit, err := w.BeginVisit(t.Context(), &Visit{Purpose: ToLink})
		must(t, err)
		must(t, w.EnterUserCode(t.Context(), visit, g.UserCode))
		_, _, err = w.Allow(t.Context(), visit, w.signedIn("alice"))
		must(t, err)
		return func(int) error { _, err := w.PollDeviceGrant(t.Context(), w.client.ID, g.DeviceCode, ""); return err }
	}},
	{"confirmation", func(t *testing.T, w *onceWorld) func(int) error {
		flows, err := w.ByOAuth(operationReset)
		must(t, err)
		ask := func(session string) error {
			q := Confirm{Session: w.owner, Operation: operationReset, Body: []byte("keys"), Flows: flows}
			if session != "" {
				raw, err := json.Marshal(map[string]string{"session": session})
				must(t, err)
				q.Auth = &AuthData{Session: session, Answer: raw}
			}
			_, err := w.Confirm(t.Context(), q)
			return err
		}
		var c *Challenge
		if !errors.As(ask(""), &c) {
			t.Fatal("nothing is asked")
		}
		must(t, w.ApproveReset(t.Context(), &SignedIn{User: w.owner.User, UserID: w.owner.UserID}, c.Session))
		return func(int) error { return ask(c.Session) }
	}},
	{"code of an app", func(t *testing.T, w *onceWorld) func(int) error {
		w.phone, w.codes = w.enrol(w.owner)
		code := w.phone.code(0)
		return func(int) error { return w.totp(w.owner, code) }
	}},
	{"recovery code", func(t *testing.T, w *onceWorld) func(int) error {
		w.pass(factorBlock)
		return func(int) error { return w.recovery(w.owner, w.codes[0]) }
	}},
	{"challenge for a passkey", func(t *testing.T, w *onceWorld) func(int) error {
		w.pass(factorBlock)
		key := &passkey.Authenticator{Origin: origin}
		w.addPasskey(w.owner, key, "key")
		answer := w.asked(w.owner, key)
		return func(int) error { return w.CheckFactor(t.Context(), w.owner.User, answer) }
	}},
}

// TestOneUseHasOneSuccess uses each a hundred times at the same time. A socket's ticket has its own test in clientapi.
func TestOneUseHasOneSuccess(t *testing.T) {
	proof.Of(t, "A07", "A10", "A11")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newOnceWorld(t, db)
		for _, once := range onceUsed {
			t.Run(once.kind, func(t *testing.T) {
				use := once.make(t, w)
				var group sync.WaitGroup
				results, start := make([]error, parallelUses), make(chan struct{})
				for i := range results {
					group.Go(func() {
						<-start
						results[i] = use(i)
					})
				}
				close(start)
				group.Wait()
				successes := 0
				for _, err := range results {
					var known *matrix.Error
					var oauth *OAuthError
					var challenge *Challenge
					switch {
					case err == nil:
						successes++
					case !errors.As(err, &known) && !errors.As(err, &oauth) && !errors.As(err, &challenge):
						t.Errorf("refused as %v", err)
					}
				}
				if successes != 1 {
					t.Errorf("of %d uses %d had success", parallelUses, successes)
				}
			})
		}
	})
}
