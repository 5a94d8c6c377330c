package rooms

import (
	"context"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

// joinsEnds lets a node join ends without waiting long, until the end of the test.
func (n *node) joinsEnds() {
	n.t.Helper()
	n.merges.calm, n.merges.turn = 20*time.Millisecond, time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.RunMerges(ctx) // ends with ctx
	}()
	n.t.Cleanup(func() {
		cancel()
		<-done
	})
	wait.Until(n.t, "the work on ends of rooms", func() bool {
		n.merges.mu.Lock()
		defer n.merges.mu.Unlock()
		return n.merges.on
	})
}

// idle says whether no room waits for being looked at.
func (n *node) idle() bool {
	n.merges.mu.Lock()
	defer n.merges.mu.Unlock()
	for _, f := range n.merges.rooms {
		if !f.at.IsZero() {
			return false
		}
	}
	return true
}

// TestEndsWithDifferentStatesAreJoined: what a split leaves behind is joined without anybody saying anything; messages that
// crossed are left for the next one.
func TestEndsWithDifferentStatesAreJoined(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 11)
		n := newNode(t, db, w)
		ref := n.join()
		n.joinsEnds()
		root := w.tip
		n.bring(w.sayAfter(alice, "here", root), w.sayAfter(bob, "there", root))
		wait.Until(t, "a look at the ends", n.idle)
		if got := n.ends(ref); len(got) != 2 {
			t.Errorf("messages that crossed are joined: %s", got)
		}
		before := n.ends(ref)
		n.bring(w.on(event{sender: alice, typ: "m.room.topic", key: key(""), content: map[string]any{"topic": "x"}, prev: []matrix.EventID{root}}))
		wait.Until(t, "one end", func() bool { return len(n.ends(ref)) == 1 })
		end := n.row(ref, n.ends(ref)[0])
		if end.Event.Type() != mergeType || end.Event.Sender() != me || len(end.Event.PrevEvents()) != len(before)+1 || end.Event.IsState() {
			t.Errorf("the end is %s", end.Event.JSON())
		}
		n.sameState(ref, end.Event.PrevEvents()...)
	})
}

// TestWhoMayNotSendJoinsNothing: without the power to send there is nothing that this server could do.
func TestWhoMayNotSendJoinsNothing(t *testing.T) {
	w := newWorld(t, 11)
	n := newNode(t, dbtest.Open(t, "sqlite"), w)
	ref := n.join()
	n.bring(w.send(alice, "m.room.power_levels", key(""), map[string]any{"users": map[matrix.UserID]int{alice: 100}, "events_default": 50}))
	n.joinsEnds()
	root := w.tip
	topic := func(text string) *matrix.Event {
		return w.on(event{sender: alice, typ: "m.room.topic", key: key(""), content: map[string]any{"topic": text}, prev: []matrix.EventID{root}})
	}
	n.bring(topic("a"), topic("b"))
	wait.Until(t, "a look at the ends", n.idle)
	if got := n.ends(ref); len(got) != 2 {
		t.Errorf("the ends are %s", got)
	}
}

// TestJoiningEndsIsBounded: a server that splits the state again and again makes us join it less and less often.
func TestJoiningEndsIsBounded(t *testing.T) {
	w := newWorld(t, 11)
	n := newNode(t, dbtest.Open(t, "sqlite"), w)
	ref := n.join()
	n.joinsEnds()
	split := func() {
		root := w.tip
		for _, text := range []string{"a", "b"} {
			n.bring(w.on(event{sender: alice, typ: "m.room.topic", key: key(""), content: map[string]any{"topic": text}, prev: []matrix.EventID{root}}))
		}
	}
	split()
	wait.Until(t, "one end", func() bool { return len(n.ends(ref)) == 1 })
	split()
	wait.Until(t, "a turn that is far away", func() bool {
		n.merges.mu.Lock()
		defer n.merges.mu.Unlock()
		f := n.merges.rooms[ref.NID]
		return f != nil && f.ranked && f.at.Sub(f.merged) >= mergePause
	})
}
