package accounts

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"conclave/internal/store"
)

// TestStagesPassedMeanwhileStay has a client ask how far a session is, and pass a stage, while its user passes another on a page: each
// has read the session before the other stores what has become of it.
func TestStagesPassedMeanwhileStay(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		ask := func(flows ...[]string) (Confirm, string) {
			q := Confirm{Session: alice, Operation: "deleteDevice", Body: []byte("A"), Flows: Flows(flows...)}
			return q, challenged(t, confirm(t, w, q)).Session
		}
		q, session := ask([]string{StagePassword})
		poll, err := w.resumed(t.Context(), session, StagePassword)
		must(t, err)
		_, err = w.PassStage(t.Context(), passwordAnswer(session, "", password), "")
		must(t, err)
		if c := challenged(t, w.keep(t.Context(), poll, nil)); !slices.Equal(c.Completed, []string{StagePassword}) {
			t.Errorf("the client is told of %v", c.Completed)
		}
		q.Auth = &AuthData{Session: session}
		must(t, confirm(t, w, q))

		q, session = ask([]string{StageDummy, StagePassword}, []string{StagePassword, StageDummy})
		page, err := w.resumed(t.Context(), session, StagePassword)
		must(t, err)
		must(t, page.set("of the page", "x"))
		page.row.Completed = append(page.row.Completed, StagePassword)
		q.Auth = &AuthData{Type: StageDummy, Session: session}
		if c := challenged(t, confirm(t, w, q)); !slices.Equal(c.Completed, []string{StageDummy}) {
			t.Errorf("the client is told of %v", c.Completed)
		}
		_, err = w.advance(t.Context(), page, StagePassword)
		must(t, err)
		q.Auth = &AuthData{Session: session}
		done, err := w.Confirm(t.Context(), q)
		must(t, err)
		if !slices.Equal(done.Stages, []string{StageDummy, StagePassword}) || done.Found["of the page"] != "x" {
			t.Errorf("it was confirmed by %v, which found out %v", done.Stages, done.Found)
		}
	})
}

// TestAllStagesAtOnce passes the stages of a flow at the same time, by a page and by the client: one request is confirmed, and none
// waits for what is passed.
func TestAllStagesAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		for range 10 {
			q := Confirm{Session: alice, Operation: "deleteDevice", Body: []byte("A"), Flows: Flows([]string{StageDummy, StagePassword}, []string{StagePassword, StageDummy})}
			session := challenged(t, confirm(t, w, q)).Session
			var group sync.WaitGroup
			var done atomic.Int64
			for _, auth := range []*AuthData{{Type: StageDummy, Session: session}, passwordAnswer(session, "", password)} {
				group.Go(func() {
					q := q
					q.Auth = auth
					if _, err := w.Confirm(t.Context(), q); err == nil {
						done.Add(1)
					} else if c := (*Challenge)(nil); !errors.As(err, &c) {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if done.Load() == 0 {
				q.Auth = &AuthData{Session: session}
				must(t, confirm(t, w, q))
				done.Add(1)
			}
			if done.Load() != 1 {
				t.Errorf("it was confirmed %d times", done.Load())
			}
		}
	})
}

// TestApprovalsAreForOne has two sessions find the same approval, before either of them is done with it.
func TestApprovalsAreForOne(t *testing.T) {
	eachFactor(t, func(t *testing.T, w *world) {
		alice := w.session(w.register("alice"))
		flows, err := w.ByOAuth(operationReset)
		must(t, err)
		must(t, w.ApproveReset(t.Context(), &SignedIn{User: alice.User, UserID: alice.UserID}, "")) // whichever comes next
		found := make([]*confirmation, 2)
		for i, body := range []string{"keys", "other keys"} {
			q := Confirm{Session: alice, Operation: operationReset, Body: []byte(body), Flows: flows}
			session := challenged(t, confirm(t, w, q)).Session
			found[i], err = w.resumed(t.Context(), session, StageOAuth)
			must(t, err)
			found[i].Confirm = q
			must(t, w.approvedElsewhere(t.Context(), found[i]))
			if !found[i].complete() {
				t.Fatal("what was approved is not found")
			}
		}
		_, err = w.take(t.Context(), found[0])
		must(t, err)
		_, err = w.take(t.Context(), found[1])
		if c := challenged(t, err); len(c.Completed) != 0 {
			t.Errorf("the second is told of %v", c.Completed)
		}
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			yes, err := tx.Approved(alice.User, "", w.now().UnixMilli())
			if yes {
				t.Error("the approval is still there")
			}
			return err
		}))
	})
}
