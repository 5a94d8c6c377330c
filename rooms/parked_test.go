package rooms

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestParkedEventsGoOnWithWhatTheyLack: events that were put off because nobody had what they follow go to their places
// as soon as it comes by itself, in whatever order, and nobody is asked again. No time passes: after a second all would be
// asked once more, as they should.
func TestParkedEventsGoOnWithWhatTheyLack(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		w.now = newTickingClock().now
		n := newNode(t, db, w)
		ref := n.join()
		w.down[near], w.down[other] = true, true
		first, second, third, fourth := w.say(bob, "1"), w.say(alice, "2"), w.say(bob, "3"), w.say(eve, "4")
		for _, ev := range []*matrix.Event{fourth, third, second} {
			n.deliver(near, ev.JSON())
			n.settled()
		}
		if !n.parked.any(ref.NID) {
			t.Error("nothing is parked")
		}
		asked := w.count("missing")
		n.deliver(near, first.JSON())
		n.settled()
		if got, want := n.bodies(ref, me), []string{"1", "2", "3", "4"}; !slices.Equal(got, want) {
			t.Errorf("timeline %q", got)
		}
		if again := w.count("missing"); again != asked {
			t.Errorf("asked %d times more", again-asked)
		}
		if n.parked.any(ref.NID) || n.parked.total != 0 {
			t.Errorf("%d events stay parked", n.parked.total)
		}
	})
}

// TestParkedEventsGoOnWhenTheirServerIsBack: a server that was cut off and is heard of again, whatever it says, is asked
// soon for what could not be had of it, and not for ever if it is of no use.
func TestParkedEventsGoOnWhenTheirServerIsBack(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		clock := newTickingClock()
		n := startNode(t, db, func(o *Options) { o.Source, o.Clock = w, clock.now })
		n.w = w
		ref := n.join()
		w.say(bob, "lost")
		late := w.say(bob, "late")
		w.down[near], w.down[other] = true, true
		n.bring(late)
		fail := func(times int) {
			for range times {
				clock.pass(n.delays.wait(late.ID(), "", clock.now())) // of nobody who is heard
				n.wake(ref)
				n.settled()
			}
		}
		fail(6)
		if wait := n.delays.wait(late.ID(), near, clock.now()); wait != briefMost {
			t.Errorf("asked again after %s", wait)
		}
		clock.pass(briefWait)
		w.down = map[matrix.ServerName]bool{}
		n.Admit(t.Context(), near, nil)
		n.settled()
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"lost", "late"}) {
			t.Errorf("timeline %q", got)
		}

		w.say(bob, "lost again")
		late = w.say(bob, "late again")
		w.down[near], w.down[other] = true, true
		n.bring(late)
		fail(2*patience - 1)
		clock.pass(briefWait)
		asked := w.count("missing")
		n.Admit(t.Context(), near, nil)
		n.settled()
		if w.count("missing") != asked {
			t.Error("who is of no use is asked again and again")
		}
	})
}

// TestParkingForgetsAndIsBounded: what does not wait any more leaves the parking, what is due or found what it lacks is
// looked at, and there are never more in it than there may be.
func TestParkingForgetsAndIsBounded(t *testing.T) {
	w := newWorld(t, 10)
	p, now := newParking(), time.Now()
	var parents []matrix.EventID
	var events []*matrix.Event
	for i := range 4 {
		parents = append(parents, w.say(bob, fmt.Sprint("parent", i)).ID())
		events = append(events, w.sayAfter(bob, fmt.Sprint(i), parents[i]))
	}
	p.park(1, 10, events[0], near, time.Time{}, 0)
	p.park(1, 11, events[1], near, time.Time{}, 0)
	p.park(1, 12, events[2], near, now.Add(time.Minute), 0)
	p.park(2, 13, events[3], near, time.Time{}, 0)
	left := map[matrix.EventID]time.Duration{events[0].ID(): time.Hour, events[1].ID(): time.Hour}
	sift := func(rows ...int64) ([]int64, time.Duration, map[matrix.EventID]*pausedError) {
		return p.sift(1, rows, now, func(id matrix.EventID, _ matrix.ServerName) time.Duration { return left[id] })
	}
	due, again, paused := sift(9, 10, 11, 12)
	if !slices.Equal(due, []int64{9}) || again != time.Minute || len(paused) != 1 || paused[events[2].ID()] == nil {
		t.Errorf("due %v, again in %s, paused %v", due, again, paused)
	}
	if p.came(1, parents[3:]) || !p.came(1, []matrix.EventID{"$none", parents[1]}) || p.came(1, parents[1:2]) {
		t.Error("the wrong event found what it lacks")
	}
	if due, _, _ = sift(10, 11); !slices.Equal(due, []int64{11}) || p.total != 2 {
		t.Errorf("due %v, %d parked", due, p.total)
	}
	left[events[0].ID()] = 0
	if due, again, _ = sift(10); !slices.Equal(due, []int64{10}) || again != 0 || p.any(1) || p.total != 1 {
		t.Errorf("due %v, again in %s, %d parked", due, again, p.total)
	}
	for row := range int64(maxParked + 5) {
		p.park(3, row, events[0], near, time.Time{}, 0)
	}
	if p.total != maxParked || len(p.rooms[3]) != maxParked-1 {
		t.Errorf("%d parked", p.total)
	}
	p.park(2, 13, events[3], near, now, 0) // one that is there may change
	if !p.rooms[2][13].until.Equal(now) {
		t.Error("a parked event did not change")
	}
}

// TestWhatComesDuringALook: what comes to be held while an event that lacks it is looked at has it looked at once more, and what
// came before does not.
func TestWhatComesDuringALook(t *testing.T) {
	w := newWorld(t, 10)
	p := newParking()
	early, late := w.say(bob, "early").ID(), w.say(bob, "late").ID()
	ofEarly, ofLate := w.sayAfter(bob, "after early", early), w.sayAfter(bob, "after late", late)
	end := p.look(1)
	if p.any(1) || !p.matters(1) {
		t.Error("what comes during a look matters to nobody")
	}
	p.came(1, []matrix.EventID{early})
	began := p.mark(1)
	p.came(1, []matrix.EventID{late})
	p.came(2, []matrix.EventID{early}) // in another room
	if p.park(1, 10, ofEarly, near, time.Time{}, began) || !p.park(1, 11, ofLate, near, time.Time{}, began) {
		t.Error("an event is looked at again for what was there, or not for what came")
	}
	never := func(matrix.EventID, matrix.ServerName) time.Duration { return time.Hour }
	if due, _, _ := p.sift(1, []int64{10, 11}, time.Now(), never); !slices.Equal(due, []int64{11}) {
		t.Errorf("due are %v", due)
	}
	for i := range maxCame + 1 {
		p.came(1, []matrix.EventID{matrix.EventID(fmt.Sprint("$", i))})
	}
	if !p.park(1, 12, ofEarly, near, time.Time{}, began) || p.park(1, 13, ofEarly, near, time.Time{}, p.mark(1)) || len(p.looks[1].came) != maxCame {
		t.Error("what is not remembered is taken for nothing, or for ever for something")
	}
	end()
	if p.park(1, 14, ofLate, near, time.Time{}, began) || len(p.looks) != 0 {
		t.Error("a look that is over is remembered")
	}
}
