package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// tickingClock goes on by a tick whenever it is asked.
type tickingClock struct{ at, tick atomic.Int64 }

func newTickingClock() *tickingClock {
	c := &tickingClock{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *tickingClock) now() time.Time       { return time.Unix(0, c.at.Add(c.tick.Load())) }
func (c *tickingClock) pass(d time.Duration) { c.at.Add(int64(d)) }

// fork makes a branch of state events on top of one.
func (w *world) fork(from matrix.EventID, name string, length int) (branch []*matrix.Event) {
	prev := from
	for i := range length {
		ev := w.on(event{sender: alice, typ: "org.example.state", key: key(fmt.Sprint(i)), content: map[string]any{"branch": name}, prev: []matrix.EventID{prev}})
		branch, prev = append(branch, ev), ev.ID()
	}
	return branch
}

// staged is how many events wait.
func (n *node) staged() (count int64) {
	n.t.Helper()
	err := n.db.Read(n.t.Context(), func(tx *store.Tx) error {
		return tx.Query(`SELECT count(*) FROM staged`, func(r *store.Row) error {
			count = r.Int64(0)
			return nil
		})
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}

// TestResolutionHasABudget is threats F13: two branches of a room take longer to resolve than a room may. Their events
// wait, nothing else does, and in the end they have their place.
func TestResolutionHasABudget(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 11)
		clock := newTickingClock()
		n := startNode(t, db, func(o *Options) { o.Source, o.Clock = w, clock.now })
		n.w = w
		ref := n.join()
		root := w.tip
		left, right := w.fork(root, "left", 30), w.fork(root, "right", 30)
		behind := w.sayAfter(alice, "behind the right one", right[29].ID())
		n.bring(left...)

		clock.tick.Store(int64(5 * time.Second)) // each look at the clock: a resolution takes minutes
		n.bring(append(slices.Clone(right), behind)...)
		if waiting, paused := n.staged(), n.Paused(); waiting != 31 || paused != 1 {
			t.Fatalf("%d events wait; %d pauses", waiting, paused)
		}
		clock.tick.Store(0)
		if asked := w.count("missing") + w.count("state_ids") + w.count("event"); asked != 0 {
			t.Errorf("others were asked %d times for what waits here", asked)
		}
		n.sameState(ref, left[29].ID())
		ours := n.say(ref, "from here, meanwhile")
		if own := n.ownRoom(); len(n.ends(own)) != 1 {
			t.Error("another room is affected")
		}
		again := w.sayAfter(bob, "on top of the left one, meanwhile", ours.ID())
		n.bring(again)
		if got := n.ends(ref); !slices.Equal(got, []matrix.EventID{again.ID()}) || n.staged() != 31 {
			t.Errorf("the ends are %v; %d events wait", got, n.staged())
		}

		clock.pass(resolvePause / 2)
		n.wake(ref)
		n.settled()
		if n.staged() != 31 || n.Paused() != 1 {
			t.Errorf("during the pause: %d events wait; %d pauses", n.staged(), n.Paused())
		}
		clock.pass(resolvePause)
		n.wake(ref)
		n.settled()
		if waiting := n.staged(); waiting != 0 {
			t.Errorf("after the pause %d events wait", waiting)
		}
		n.sameState(ref, again.ID(), behind.ID())
	})
}

// TestBudgetDoubles uses a room's time up again and again, and lets it rest.
func TestBudgetDoubles(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	b := newBudgets(func() time.Time { return at })
	use := func(d time.Duration) error {
		s, err := b.begin(t.Context(), 1)
		if err != nil {
			return err
		}
		defer s.end()
		at = at.Add(d)
		return s.look()
	}
	pause := func(what string, err error, want time.Duration) {
		t.Helper()
		var paused *pausedError
		if !errors.As(err, &paused) || paused.wait != want {
			t.Errorf("%s: %v, want a pause of %s", what, err, want)
		}
	}
	for i := range 3 { // a little at a time, in windows of their own
		if err := use(25 * time.Second); err != nil {
			t.Errorf("window %d: %v", i, err)
		}
		at = at.Add(resolvePause)
	}
	if err := use(20 * time.Second); err != nil {
		t.Error(err)
	}
	pause("more than half a minute", use(11*time.Second), 10*time.Minute)
	pause("at once", use(0), 10*time.Minute)
	if s, err := b.begin(t.Context(), 2); err != nil {
		t.Errorf("another room: %v", err)
	} else {
		s.end()
	}
	at = at.Add(10 * time.Minute)
	if err := use(59 * time.Second); err != nil {
		t.Errorf("after the first pause: %v", err)
	}
	pause("more than a minute", use(2*time.Second), 20*time.Minute)
	at = at.Add(20 * time.Minute)
	for range maxDoublings + 2 {
		_ = use(time.Hour)
		at = at.Add(resolvePause << maxDoublings)
	}
	pause("as long as can be", use(time.Hour), resolvePause<<maxDoublings)
	at = at.Add(resolvePause<<maxDoublings + quietTime)
	if err := use(time.Second); err != nil {
		t.Error(err)
	}
	pause("as if nothing had been", use(31*time.Second), 10*time.Minute)
	s, err := b.begin(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer s.end()
	pause("too much memory", s.load(maxResolved+1), 10*time.Minute)
}

// TestLongResolutionsTakeTurns lets two long resolutions share one turn, and a short one pass by.
func TestLongResolutionsTakeTurns(t *testing.T) {
	clock := newTickingClock()
	b := newBudgets(clock.now)
	b.turns = make(chan struct{}, 1)
	begin := func(ctx context.Context, room store.RoomNID) *spending {
		s, err := b.begin(ctx, room)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	look := func(s *spending, took time.Duration) {
		t.Helper()
		s.last = s.last.Add(-took)
		if err := s.look(); err != nil {
			t.Error(err)
		}
	}
	first := begin(t.Context(), 1)
	look(first, freeTime)
	if first.turn.IsZero() {
		t.Fatal("a long resolution goes on without its turn")
	}
	short := begin(t.Context(), 2)
	look(short, freeTime/2) // would hang
	short.end()

	second := begin(t.Context(), 3)
	got := make(chan struct{})
	go func() {
		look(second, freeTime)
		close(got)
	}()
	var enough atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !enough.Load() { // the first goes on, letting others have their turn now and then
			first.turn = first.turn.Add(-turnTime)
			look(first, 0)
		}
	}()
	<-got // would hang, if it did not
	enough.Store(true)
	second.end()
	<-ended
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	third := begin(canceled, 4)
	if err := third.look(); !errors.Is(err, context.Canceled) {
		t.Errorf("a resolution whose caller has gone goes on: %v", err)
	}
	third.end()
	first.end()
	if len(b.turns) != 0 {
		t.Error("a turn is not given back")
	}
}
