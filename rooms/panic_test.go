package rooms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// fragileBus panics over one wake.
type fragileBus struct {
	cluster.Bus
	break1 atomic.Bool
}

func (b *fragileBus) Publish(kind cluster.Kind, number int64) {
	if b.break1.Swap(false) {
		panic("the bus is broken")
	}
	b.Bus.Publish(kind, number)
}

// startNode is newNode with other options.
func startNode(t *testing.T, db *store.DB, change func(*Options)) *node {
	t.Helper()
	o := Options{DB: db, Identity: Identity{Name: ours, KeyID: keyID, Key: newKey(ours)}, Bus: cluster.NewLocal(), Log: slog.New(slog.DiscardHandler)}
	change(&o)
	ctx, stop := context.WithCancel(t.Context())
	r, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &node{Rooms: r, t: t, db: db}
}

// ownRoom makes a room of ours.
func (n *node) ownRoom() Ref { return n.roomOf(n.sender(me)) }

// roomOf makes a public room of a user.
func (n *node) roomOf(creator Sender) Ref {
	n.t.Helper()
	id, err := n.Create(n.t.Context(), CreateRequest{Creator: creator, Preset: "public_chat"})
	if err != nil {
		n.t.Fatal(err)
	}
	ref, err := n.Lookup(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return ref
}

// TestPanicOverOneEvent panics over one event in the middle of a group: its sender is told, those beside it are not
// touched, and the room goes on.
func TestPanicOverOneEvent(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		var armed, calls atomic.Int32
		held, letGo := make(chan struct{}), make(chan struct{})
		n := startNode(t, db, func(o *Options) {
			o.Clock = func() time.Time { // asked for each event that comes without a time
				if armed.Load() == 0 {
					return time.Now()
				}
				switch calls.Add(1) {
				case 1:
					close(held)
					<-letGo
				case 2:
					panic("the clock has stopped")
				}
				return time.Now()
			}
		})
		ref := n.ownRoom()
		armed.Store(1)
		ended := map[string]chan error{}
		send := func(name string, ts int64) {
			done := make(chan error, 1)
			ended[name] = done
			go func() {
				_, err := n.Send(t.Context(), SendRequest{Room: ref, Sender: n.sender(me), Type: "m.room.message", TS: ts,
					Content: fmt.Appendf(nil, `{"body":%q}`, name), Txn: TxnKey(1, "send", ref.ID, "m.room.message", name)})
				done <- err
			}()
		}
		send("keeps the drain busy", 0)
		<-held
		for i, u := range []struct {
			name string
			ts   int64
		}{{"before", 1}, {"poison", 0}, {"behind", 2}} {
			send(u.name, u.ts)
			n.waits(ref, i+1)
		}
		close(letGo)
		for name, done := range ended {
			err := <-done
			if (name == "poison") != errors.Is(err, errPanic) || name != "poison" && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n.Panics() != 1 {
			t.Errorf("%d panics were counted", n.Panics())
		}
		send("poison", 0) // the same transaction, whose first attempt is over
		if err := <-ended["poison"]; err != nil {
			t.Errorf("after the panic: %v", err)
		}
		if got := strings.Join(n.bodies(ref, me), ", "); got != "keeps the drain busy, before, behind, poison" {
			t.Errorf("the room holds %s", got)
		}
	})
}

// waits waits until some units are in a room's queue.
func (n *node) waits(ref Ref, count int) {
	n.t.Helper()
	rm := n.room(ref)
	for {
		rm.mu.Lock()
		waiting := len(rm.waiting)
		rm.mu.Unlock()
		if waiting == count {
			return
		}
		select {
		case <-n.t.Context().Done():
			n.t.Fatalf("%d units wait, not %d", waiting, count)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestPanicBehindTheCommit panics where a group is written already: nobody waits for ever, and the room goes on.
func TestPanicBehindTheCommit(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		bus := &fragileBus{Bus: cluster.NewLocal()}
		n := startNode(t, db, func(o *Options) { o.Bus = bus })
		ref := n.ownRoom()
		bus.break1.Store(true) // for the first, whose sender may be told before it breaks; the second is behind that
		for _, body := range []string{"one", "two"} {
			if _, err := n.Send(t.Context(), SendRequest{Room: ref, Sender: n.sender(me), Type: "m.room.message", Content: fmt.Appendf(nil, `{"body":%q}`, body)}); err != nil {
				t.Errorf("%s: %v", body, err)
			}
		}
		if got := strings.Join(n.bodies(ref, me), ", "); got != "one, two" || n.Panics() != 1 {
			t.Errorf("the room holds %s; %d panics", got, n.Panics())
		}
	})
}

// TestPanicOverAGroup breaks what all units of a group need: each of them ends with an error, and those that had ended
// stay as they were.
func TestPanicOverAGroup(t *testing.T) {
	broken := &Rooms{log: slog.New(slog.DiscardHandler), cache: newCaches()} // without a database
	units := []*unit{newUnit(), newUnit(), newUnit()}
	units[1].finish(nil)
	left := false
	units[2].leave = func() { left = true }
	rm := &room{ref: Ref{NID: 1, ID: "!room:near.test"}}
	if again := broken.groupContained(t.Context(), rm, units); len(again) != 0 {
		t.Errorf("%d units are to be tried again", len(again))
	}
	for i, want := range []error{errPanic, nil, errPanic} {
		if !units[i].ended() || !errors.Is(units[i].err, want) {
			t.Errorf("unit %d ended: %v, with %v", i, units[i].ended(), units[i].err)
		}
	}
	if !left || broken.Panics() != 1 {
		t.Errorf("its transaction has ended: %v; %d panics", left, broken.Panics())
	}
}
