package rooms_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// TestDepartures lets a user whose account was closed leave everything, where another worker has died on the way.
func TestDepartures(t *testing.T) {
	eachLocal(t, func(l *local) {
		ctx := l.t.Context()
		alice, bob, carol := l.user("alice"), l.user("bob"), l.user("carol")
		private := func(q *rooms.CreateRequest) { q.Preset = "private_chat" }
		knocking := func(q *rooms.CreateRequest) { q.Preset = "private_chat"; q.Version = 12 }
		joined, invited, banned, knocked, left, own := l.create(alice), l.create(alice, private), l.create(alice), l.create(alice, knocking), l.create(alice), l.create(bob)
		l.join(joined, bob, carol)
		l.join(banned, bob)
		l.join(left, bob)
		_, err := l.rooms.Invite(ctx, rooms.MemberRequest{Room: invited, Sender: alice, Target: bob.ID})
		l.must(err)
		_, err = l.rooms.Ban(ctx, rooms.MemberRequest{Room: banned, Sender: alice, Target: bob.ID})
		l.must(err)
		_, err = l.state(knocked, alice, "m.room.join_rules", "", `{"join_rule":"knock"}`)
		l.must(err)
		_, err = l.state(knocked, bob, "m.room.member", string(bob.ID), `{"membership":"knock"}`)
		l.must(err)
		l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: left, Sender: bob}))
		before := len(l.timeline(left))

		// Somebody took the job, left one room, and died; its lease is over.
		l.must(l.db.Write(ctx, func(tx *store.Tx) error { return tx.AddJob(store.JobDepart, string(bob.ID), 1) }))
		var dead *store.Job
		l.must(l.db.Write(ctx, func(tx *store.Tx) (err error) {
			dead, err = tx.LeaseJob(store.JobDepart, time.Now().UnixMilli(), 1)
			return err
		}))
		l.must(l.rooms.Leave(ctx, rooms.MemberRequest{Room: own, Sender: bob}))

		run, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- l.rooms.RunDepartures(run) }()
		open := func() (n int) {
			l.must(l.db.Read(ctx, func(tx *store.Tx) error {
				_, err := tx.QueryRow(`SELECT count(*) FROM jobs`).Scan(&n)
				return err
			}))
			return n
		}
		wait.Until(l.t, "the job to be done", func() bool { return open() == 0 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			l.t.Errorf("the work ended with %v", err)
		}
		for name, c := range map[string]struct {
			ref  rooms.Ref
			want string
		}{
			"joined": {joined, "leave"}, "invited": {invited, "leave"}, "banned": {banned, "ban"},
			"knocked": {knocked, "leave"}, "left": {left, "leave"}, "own": {own, "leave"},
		} {
			if got := l.stands(c.ref, bob); got != c.want {
				l.t.Errorf("%s: he stands there as %q, want %q", name, got, c.want)
			}
		}
		if l.stands(joined, carol) != "join" || len(l.timeline(left)) != before {
			l.t.Error("others left, or he left again")
		}
		// The one who was thought dead has nothing more to say.
		l.must(l.db.Write(ctx, func(tx *store.Tx) error {
			if mine, err := tx.SaveJob(*dead, 1, 1000); err != nil || mine {
				l.t.Errorf("a lost lease was renewed: %v, %v", mine, err)
			}
			return nil
		}))
	})
}
