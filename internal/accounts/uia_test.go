package accounts

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/testserver/proof"
)

// challenged wants an answer that asks for more, and returns its session.
func challenged(t *testing.T, err error) *Challenge {
	t.Helper()
	var c *Challenge
	if !errors.As(err, &c) {
		t.Fatalf("error %v, want a challenge", err)
	}
	return c
}

func confirm(t *testing.T, w *world, q Confirm) error {
	_, err := w.Confirm(t.Context(), q)
	return err
}

// passwordAnswer is what a client answers to the password stage.
func passwordAnswer(session, user, password string) *AuthData {
	answer, err := json.Marshal(map[string]any{
		"type": StagePassword, "session": session, "password": password, "identifier": map[string]string{"type": "m.id.user", "user": user},
	})
	if err != nil {
		panic(err)
	}
	return &AuthData{StagePassword, session, answer}
}

func TestAConfirmationIsForOneThing(t *testing.T) {
	proof.Of(t, "A03")
	each(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		elsewhere, err := w.login("alice", password)
		must(t, err)
		ask := Confirm{Session: alice, Operation: "deleteDevice", Body: []byte("A"), Flows: Flows([]string{StagePassword})}
		c := challenged(t, confirm(t, w, ask))
		if len(c.Flows) != 1 || c.Flows[0].Stages[0] != "m.login.password" || c.Session == "" || c.Code != "" {
			t.Errorf("challenge %+v", c)
		}
		with := func(q Confirm, session, password string) Confirm {
			q.Auth = passwordAnswer(session, "", password)
			return q
		}
		// Another body, operation or user cannot use the session, even with the right password: it begins anew.
		for name, change := range map[string]func(*Confirm){
			"body":      func(q *Confirm) { q.Body = []byte("B") },
			"operation": func(q *Confirm) { q.Operation = "deleteDevices" },
			"user":      func(q *Confirm) { q.Session = bob },
			"device":    func(q *Confirm) { q.Session = w.session(elsewhere) },
			"nobody":    func(q *Confirm) { q.Session = nil },
		} {
			q := with(ask, c.Session, password)
			change(&q)
			if again := challenged(t, confirm(t, w, q)); again.Session == c.Session || len(again.Completed) != 0 {
				t.Errorf("another %s got %+v", name, again)
			}
		}
		unknown := challenged(t, confirm(t, w, with(ask, "made up", password)))
		if unknown.Session == "made up" {
			t.Error("a session was made under the client's name for it")
		}
		// Wrong passwords, another's name, stages that were not asked for.
		for _, wrong := range []string{"", "wrong", "\x00", password + " "} {
			if no := challenged(t, confirm(t, w, with(ask, c.Session, wrong))); no.Code != "M_FORBIDDEN" || no.Session != c.Session || len(no.Completed) != 0 {
				t.Errorf("password %q got %+v", wrong, no)
			}
		}
		q := ask
		q.Auth = passwordAnswer(c.Session, "bob", password)
		if no := challenged(t, confirm(t, w, q)); no.Code != "M_FORBIDDEN" {
			t.Errorf("another's name got %+v", no)
		}
		q = with(ask, c.Session, password)
		q.Auth.Type = "m.login.dummy"
		if no := challenged(t, confirm(t, w, q)); no.Code != "M_INVALID_PARAM" || len(no.Completed) != 0 {
			t.Errorf("a stage that was not asked for got %+v", no)
		}
		// The session alone confirms nothing.
		q = with(ask, c.Session, "")
		q.Auth.Type = ""
		challenged(t, confirm(t, w, q))

		must(t, confirm(t, w, with(ask, c.Session, password)))
		if again := challenged(t, confirm(t, w, q)); again.Session == c.Session {
			t.Error("a session was used twice")
		}
	})
}

// TestNothingTellsAConfirmedBody: a body can hold a new password. What is kept of it does not let anybody who reads the
// database try which one it is.
func TestNothingTellsAConfirmedBody(t *testing.T) {
	proof.Of(t, "A18")
	eachFactor(t, func(t *testing.T, w *world) {
		body := []byte(`"new_password""` + password + `"`)
		ask := Confirm{Session: w.session(w.register("alice")), Operation: "changePassword", Body: body, Flows: Flows([]string{StagePassword})}
		c := challenged(t, confirm(t, w, ask))
		row, err := w.uiaSession(t.Context(), c.Session)
		must(t, err)
		if plain := sha256.Sum256(body); bytes.Equal(row.Body, plain[:]) || !bytes.Equal(row.Body, w.binding(ask)) {
			t.Error("the hash of a body is kept, or none that binds it")
		}
		w.secrets = secrets(t) // of another server
		if bytes.Equal(row.Body, w.binding(ask)) {
			t.Error("what is kept of a body follows from the body alone")
		}
	})
}

func TestAConfirmationEnds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ask := Confirm{Session: w.session(w.register("alice")), Operation: "o", Flows: Flows([]string{StagePassword})}
		c := challenged(t, confirm(t, w, ask))
		w.pass(uiaTime + time.Second)
		ask.Auth = passwordAnswer(c.Session, "", password)
		if late := challenged(t, confirm(t, w, ask)); late.Session == c.Session {
			t.Error("a session outlived its time")
		}
	})
}

func TestAConfirmationIsUsedOnce(t *testing.T) {
	proof.Of(t, "A03")
	each(t, func(t *testing.T, w *world) {
		ask := Confirm{Session: w.session(w.register("alice")), Operation: "o", Flows: Flows([]string{StagePassword})}
		c := challenged(t, confirm(t, w, ask))
		ask.Auth = passwordAnswer(c.Session, "", password)
		var group sync.WaitGroup
		var confirmed atomic.Int64
		for range 6 {
			group.Go(func() {
				if confirm(t, w, ask) == nil {
					confirmed.Add(1)
				}
			})
		}
		group.Wait()
		if confirmed.Load() != 1 {
			t.Errorf("one session confirmed %d requests", confirmed.Load())
		}
	})
}
