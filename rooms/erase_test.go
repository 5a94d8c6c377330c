package rooms_test

import (
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// closing is what closing an account with erasure writes, for a user that has none in these tests.
func closing(tx *store.Tx, user rooms.Sender) error {
	if err := tx.BeginClosing(user.NID, 1); err != nil {
		return err
	}
	from, err := tx.AddChange(store.ChangeProfile, 0, user.NID)
	if err != nil {
		return err
	}
	if _, err := tx.BeginErasure(user.NID, from); err != nil {
		return err
	}
	for _, kind := range []store.JobKind{store.JobDepart, store.JobErase} {
		if err := tx.AddJob(kind, string(user.ID), 1); err != nil {
			return err
		}
	}
	return nil
}

// TestWhoSeesTheErased asks for an erased user's events as everybody who may stand differently to them.
func TestWhoSeesTheErased(t *testing.T) {
	eachLocal(t, func(l *local) {
		ctx := l.t.Context()
		alice, bob, carol, dave, eve := l.user("alice"), l.user("bob"), l.user("carol"), l.user("dave"), l.user("eve")
		remote := l.user("@late:two.example")
		ref := l.create(alice)
		_, err := l.state(ref, alice, "m.room.history_visibility", "", `{"history_visibility":"world_readable"}`)
		l.must(err)
		l.join(ref, bob, carol, dave)
		id := l.text(ref, bob, "said")
		topic := l.text(ref, alice, "by alice")
		l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: dave})) // who was there at it
		l.must(l.db.Write(ctx, func(tx *store.Tx) error { return closing(tx, bob) }))
		l.join(ref, eve)
		l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: ref, Sender: carol}))
		l.join(ref, carol) // who was there at it, too
		sees := func(who rooms.Sender, id matrix.EventID) string {
			viewer, err := l.rooms.Viewer(ctx, ref.NID, who)
			l.must(err)
			row, err := l.rooms.Visible(ctx, ref, viewer, id)
			l.must(err)
			return string(row.Event.Content())
		}
		for _, c := range []struct {
			who  rooms.Sender
			want bool
		}{{alice, true}, {carol, true}, {dave, true}, {eve, false}, {remote, false}} {
			if got := sees(c.who, id); strings.Contains(got, "said") != c.want {
				l.t.Errorf("%s sees %s, want it whole: %v", c.who.ID, got, c.want)
			}
			if got := sees(c.who, topic); !strings.Contains(got, "by alice") {
				l.t.Errorf("%s sees %s of somebody who is not erased", c.who.ID, got)
			}
		}
	})
}

// TestErasureGoesOn erases where another worker has died on the way, whose lease is over.
func TestErasureGoesOn(t *testing.T) {
	eachLocal(t, func(l *local) {
		ctx := l.t.Context()
		bob := l.user("bob")
		own := l.create(bob)
		id := l.text(own, bob, "for myself")
		l.must(l.db.Write(ctx, func(tx *store.Tx) error { return closing(tx, bob) }))
		var dead *store.Job
		l.must(l.db.Write(ctx, func(tx *store.Tx) (err error) {
			dead, err = tx.LeaseJob(store.JobErase, time.Now().UnixMilli(), 1)
			return err
		}))
		go l.rooms.RunDepartures(ctx) //nolint:errcheck // it ends with the test
		go l.rooms.RunErasures(ctx)   //nolint:errcheck // likewise
		wait.Until(l.t, "the account to be closed", func() bool {
			var c *store.Closing
			l.must(l.db.Read(ctx, func(tx *store.Tx) (err error) {
				c, err = tx.Closing(bob.ID, bob.NID)
				return err
			}))
			return !c.Working
		})
		if text := string(l.row(own, id).Event.JSON()); strings.Contains(text, "for myself") {
			l.t.Errorf("it is kept as %s", text)
		}
		l.must(l.db.Write(ctx, func(tx *store.Tx) error {
			if mine, err := tx.SaveJob(*dead, 1, 1000); err != nil || mine {
				l.t.Errorf("a lost lease was renewed: %v, %v", mine, err)
			}
			return nil
		}))
	})
}
