package accounts

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

func TestDeviceGrants(t *testing.T) {
	proof.Of(t, "OA-07")
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.register("alice")
		c, other := w.oauthClient("app"), w.oauthClient("other")
		begin := func() *DeviceGrant {
			g, err := w.BeginDeviceGrant(t.Context(), c.ID, Scope("TV"))
			must(t, err)
			return g
		}
		poll := func(g *DeviceGrant) error {
			_, err := w.PollDeviceGrant(t.Context(), c.ID, g.DeviceCode, "")
			return err
		}
		enter := func(code string) (string, error) {
			visit, err := w.BeginVisit(t.Context(), &Visit{Purpose: ToLink})
			must(t, err)
			return visit, w.EnterUserCode(t.Context(), visit, code)
		}
		g := begin()
		wantOAuth(t, poll(g), "authorization_pending")
		wantOAuth(t, poll(g), "slow_down")
		w.pass(9 * time.Second) // ten are wanted by now
		wantOAuth(t, poll(g), "slow_down")
		w.pass(15 * time.Second)
		wantOAuth(t, poll(g), "authorization_pending")

		visit, err := enter(strings.ToLower(strings.Replace(g.UserCode, "-", " ", 1)))
		must(t, err)
		v, err := w.Visit(t.Context(), visit)
		must(t, err)
		if v.Client == nil || v.Client.ID != c.ID || v.Device != "TV" || ReadableUserCode(v.Code) != g.UserCode {
			t.Errorf("the visit is about %+v", v)
		}
		_, _, err = w.Allow(t.Context(), visit, w.signedIn("alice"))
		must(t, err)
		if _, err := w.PollDeviceGrant(t.Context(), other.ID, g.DeviceCode, ""); !isOAuth(err, "invalid_grant") {
			t.Errorf("another client gets %v", err)
		}
		var group sync.WaitGroup
		var made atomic.Int64
		for range 10 {
			group.Go(func() {
				l, err := w.PollDeviceGrant(t.Context(), c.ID, g.DeviceCode, "")
				if err == nil && l.UserID == alice.UserID && l.DeviceID == "TV" {
					made.Add(1)
				} else if !isOAuth(err, "invalid_grant") {
					t.Errorf("refused as %v", err)
				}
			})
		}
		group.Wait()
		if made.Load() != 1 {
			t.Errorf("one yes opened %d sessions", made.Load())
		}
		_, err = enter(g.UserCode)
		wantCode(t, err, 403, "M_FORBIDDEN")

		g = begin()
		visit, err = enter(g.UserCode)
		must(t, err)
		_, err = w.Refuse(t.Context(), visit, "") // whoever has not signed in just goes away
		must(t, err)
		wantOAuth(t, poll(g), "authorization_pending")
		visit, err = enter(g.UserCode)
		must(t, err)
		_, err = w.Refuse(t.Context(), visit, w.signedIn("alice"))
		must(t, err)
		wantOAuth(t, poll(g), "access_denied")
		wantOAuth(t, poll(g), "invalid_grant")

		g = begin()
		w.pass(grantTime + time.Second)
		wantOAuth(t, poll(g), "expired_token")
		_, err = enter(g.UserCode)
		wantCode(t, err, 403, "M_FORBIDDEN")

		// A visit has a few guesses, and the right code is none of its business after them.
		g = begin()
		visit, err = enter("BBBB-BBBB")
		for range codeGuesses - 1 {
			wantCode(t, err, 403, "M_FORBIDDEN")
			err = w.EnterUserCode(t.Context(), visit, "BBBB-BBBC")
		}
		wantCode(t, w.EnterUserCode(t.Context(), visit, g.UserCode), 403, "M_FORBIDDEN")
		_, err = w.Visit(t.Context(), visit)
		wantCode(t, err, 403, "M_FORBIDDEN")

		// A visit that is about one device is about no other, whatever is typed in another window.
		mine, others := begin(), begin()
		visit, err = enter(mine.UserCode)
		must(t, err)
		wantCode(t, w.EnterUserCode(t.Context(), visit, others.UserCode), 403, "M_FORBIDDEN")
		must(t, w.EnterUserCode(t.Context(), visit, mine.UserCode))
		_, _, err = w.Allow(t.Context(), visit, w.signedIn("alice"))
		must(t, err)
		wantOAuth(t, poll(others), "authorization_pending")
		must(t, poll(mine))
		visit, err = w.BeginVisit(t.Context(), &Visit{Purpose: ToLink})
		must(t, err)
		first, second := begin(), begin()
		var taken atomic.Int64
		for _, g := range []*DeviceGrant{first, second} {
			group.Go(func() {
				if w.EnterUserCode(t.Context(), visit, g.UserCode) == nil {
					taken.Add(1)
				}
			})
		}
		group.Wait()
		if taken.Load() != 1 {
			t.Errorf("a visit is about %d devices", taken.Load())
		}

		_, err = w.BeginDeviceGrant(t.Context(), "none", Scope("TV"))
		wantOAuth(t, err, "invalid_client")
		_, err = w.BeginDeviceGrant(t.Context(), c.ID, "x")
		wantOAuth(t, err, "invalid_scope")
	})
}

func TestApprovals(t *testing.T) {
	proof.Of(t, "OA-09", "A03")
	eachFactor(t, func(t *testing.T, w *world) {
		alice, bob := w.session(w.register("alice")), w.session(w.register("bob"))
		flows, err := w.ByOAuth(operationReset)
		must(t, err)
		if _, err := w.ByOAuth("deleteDevice"); err == nil {
			t.Error("a session of OAuth confirms more than it may")
		}
		ask := func(s *Session, session, body string) (*Challenge, error) {
			q := Confirm{Session: s, Operation: operationReset, Body: []byte(body), Flows: flows}
			if session != "" {
				raw, _ := json.Marshal(map[string]string{"session": session})
				q.Auth = &AuthData{Session: session, Answer: raw}
			}
			_, err := w.Confirm(t.Context(), q)
			var c *Challenge
			if errors.As(err, &c) {
				err = nil
			}
			return c, err
		}
		begin := func(s *Session, body string) string {
			c, err := ask(s, "", body)
			must(t, err)
			where, _ := c.Params[StageOAuth].(map[string]string)
			if !strings.HasSuffix(where["url"], "session="+c.Session) {
				t.Fatalf("the stage is at %v", c.Params)
			}
			return c.Session
		}
		waits := func(s *Session, session, body string) bool {
			c, err := ask(s, session, body)
			must(t, err)
			return c != nil
		}
		signedIn := func(s *Session) *SignedIn { return &SignedIn{User: s.User, UserID: s.UserID} }

		mine, other := begin(alice, "keys"), begin(alice, "other keys")
		if !waits(alice, mine, "keys") {
			t.Fatal("what nobody has approved is done")
		}
		wantCode(t, w.ApproveReset(t.Context(), signedIn(bob), mine), 403, "M_FORBIDDEN")
		must(t, w.ApproveReset(t.Context(), signedIn(alice), mine))
		if !waits(alice, other, "other keys") || !waits(bob, mine, "keys") || !waits(alice, mine, "changed keys") {
			t.Error("one approval is good for another session, user or body")
		}
		if waits(alice, mine, "keys") {
			t.Error("what was approved is not done")
		}
		if !waits(alice, mine, "keys") {
			t.Error("what was approved once is done twice")
		}
		must(t, w.ApproveReset(t.Context(), signedIn(alice), "")) // whichever comes next
		if waits(alice, other, "other keys") || !waits(alice, begin(alice, "x"), "x") {
			t.Error("an approval without a session is not good for exactly one")
		}
		late := begin(alice, "keys")
		must(t, w.ApproveReset(t.Context(), signedIn(alice), ""))
		w.pass(approvalTime + time.Second)
		if !waits(alice, late, "keys") {
			t.Error("an approval lasts for ever")
		}

		// What nobody has used is not kept for ever either.
		must(t, w.ApproveReset(t.Context(), signedIn(alice), begin(alice, "y")))
		w.pass(approvalTime + time.Second)
		must(t, w.ApproveReset(t.Context(), signedIn(alice), begin(alice, "z")))
		kept := 0
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			_, err := tx.QueryRow(`SELECT count(*) FROM oauth_approvals WHERE member = $1`, alice.User).Scan(&kept)
			return err
		}))
		if kept != 1 {
			t.Errorf("%d approvals are kept", kept)
		}
	})
}
