package rooms

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// What state resolution may take (threats F13). Whoever takes part in a room decides how much there is to resolve in it:
// a room that has used its time up is left alone for a while, its events waiting where they are. The time and the pause
// double together, so that what takes longer for an honest reason is done in the end, and no room ever has more than a
// twentieth of a processor.
const (
	resolveTime  = 30 * time.Second // of a room
	resolvePause = 10 * time.Minute // behind it
	maxDoublings = 5
	quietTime    = 24 * time.Hour // without a pause: then a room begins anew

	freeTime     = 50 * time.Millisecond // that a resolution takes at once; for more, few at a time take turns
	turnTime     = 100 * time.Millisecond
	stepsPerLook = 16        // at the clock
	maxResolved  = 256 << 20 // bytes of the events of one resolution
)

// budgets keep account of the time that rooms' resolutions take.
type budgets struct {
	now   func() time.Time
	turns chan struct{} // one for each resolution that may be at work beyond its free time
	rooms *otter.Cache[store.RoomNID, *budget]

	mu     sync.Mutex // for what is in budget
	paused int64      // how often a room was
}

// budget is what a room has used.
type budget struct {
	since time.Time // the beginning of the time that spent is counted for
	spent time.Duration
	until time.Time // the end of the last pause
	fails int       // how often it was paused in a row
}

func newBudgets(now func() time.Time) *budgets {
	return &budgets{
		now: now, turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		rooms: otter.Must(&otter.Options[store.RoomNID, *budget]{MaximumSize: 20_000}),
	}
}

// pausedError is the error of a resolution in a room that has used up its time.
type pausedError struct {
	wait  time.Duration
	until time.Time
}

func (e *pausedError) Error() string {
	return fmt.Sprintf("rooms: the room's state takes too long to resolve; it is left alone for %s", e.wait)
}

// Unwrap gives what other servers are told.
func (e *pausedError) Unwrap() error {
	return matrix.Errorf(http.StatusServiceUnavailable, "M_LIMIT_EXCEEDED", "The room's state takes too long to resolve.").
		WithField("retry_after_ms", e.wait.Milliseconds())
}

// spending is one resolution under way.
type spending struct {
	b      *budgets
	ctx    context.Context
	of     *budget
	last   time.Time // up to when it is accounted for
	took   time.Duration
	turn   time.Time // since when it has its turn; zero without one
	steps  int
	loaded int // bytes
}

// begin begins a resolution in a room, unless the room is paused. It has to be ended.
func (b *budgets) begin(ctx context.Context, room store.RoomNID) (*spending, error) {
	of, _ := b.rooms.ComputeIfAbsent(room, func() (*budget, bool) { return &budget{}, false })
	now := b.now()
	if paused := b.pauseOf(of, now); paused != nil {
		return nil, paused
	}
	return &spending{b: b, ctx: ctx, of: of, last: now}, nil
}

// pause is the pause that a room is in, nil for none.
func (b *budgets) pause(room store.RoomNID) *pausedError {
	of, known := b.rooms.GetIfPresent(room)
	if !known {
		return nil
	}
	return b.pauseOf(of, b.now())
}

func (b *budgets) pauseOf(of *budget, now time.Time) *pausedError {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait := of.until.Sub(now); wait > 0 {
		return &pausedError{wait, of.until}
	}
	return nil
}

// charge accounts for time, and pauses the room when it has used up what it may.
func (b *budgets) charge(of *budget, now time.Time, took time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(of.since) > resolvePause<<of.fails {
		of.since, of.spent = now, 0
		if now.Sub(of.until) > quietTime {
			of.fails = 0
		}
	}
	if of.spent += took; of.spent <= resolveTime<<of.fails {
		return nil
	}
	wait := resolvePause << of.fails
	of.until, of.spent, of.since = now.Add(wait), 0, now.Add(wait)
	of.fails = min(of.fails+1, maxDoublings)
	b.paused++
	return &pausedError{wait, of.until}
}

// step is to be called for every event that a resolution looks at.
func (s *spending) step() error {
	if s.steps++; s.steps%stepsPerLook != 0 {
		return nil
	}
	return s.look()
}

// look accounts for what was done since the last look and, if it takes long, lets others have their turn.
func (s *spending) look() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	now := s.b.now()
	took := max(0, now.Sub(s.last))
	s.last = now
	s.took += took
	if err := s.b.charge(s.of, now, took); err != nil {
		return err
	}
	if s.took < freeTime || !s.turn.IsZero() && now.Sub(s.turn) < turnTime {
		return nil
	}
	s.yield()
	select {
	case s.b.turns <- struct{}{}:
		s.last = s.b.now() // waiting costs nothing
		s.turn = s.last
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// load accounts for the memory of events.
func (s *spending) load(bytes int) error {
	if s.loaded += bytes; s.loaded > maxResolved {
		return s.b.charge(s.of, s.b.now(), resolveTime<<maxDoublings+1)
	}
	return s.look()
}

func (s *spending) yield() {
	if !s.turn.IsZero() {
		s.turn = time.Time{}
		<-s.b.turns
	}
}

// end ends the resolution. What it took since the last look is too little to matter.
func (s *spending) end() { s.yield() }

// pauses is how often a room was paused.
func (b *budgets) pauses() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.paused
}

// Paused is how often, since the start, a room was left alone because its state takes too long to resolve.
func (r *Rooms) Paused() int64 { return r.budgets.pauses() }
