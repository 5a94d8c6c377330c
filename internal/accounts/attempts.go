package accounts

import (
	"math"
	"sync"
	"time"

	"conclave/internal/matrix"
)

// How many wrong passwords of one account are looked at: at once, and how long until one more is (threats A09). They
// count for whoever guesses from wherever, whether the account exists or not; right passwords cost nothing.
const (
	attemptsAtOnce = 10
	attemptEvery   = 3 * time.Minute
	maxGuessed     = 50_000 // names that are remembered
)

// attempts count guesses by name, in this node's memory.
type attempts struct {
	on  bool
	now func() time.Time
	mu  sync.Mutex
	of  map[string]time.Time // when everything that a name has spent will be forgotten
}

// take spends one guess at a name's password before it is looked at, or says when to come again.
func (a *attempts) take(name string) error {
	if !a.on {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	until := a.of[name]
	if until.Before(now) {
		until = now
	}
	until = until.Add(attemptEvery)
	if over := until.Sub(now) - attemptsAtOnce*attemptEvery; over > 0 {
		return matrix.LimitExceeded(int64(math.Ceil(float64(over) / float64(time.Millisecond))))
	}
	a.makeRoom(now)
	a.of[name] = until
	return nil
}

// giveBack returns a guess that was right, or that was not looked at in the end.
func (a *attempts) giveBack(name string) {
	if !a.on {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if until, ok := a.of[name]; ok {
		a.of[name] = until.Add(-attemptEvery)
	}
}

// makeRoom forgets names that are clean again; if that is not enough it forgives everybody rather than growing.
func (a *attempts) makeRoom(now time.Time) {
	if a.of == nil {
		a.of = map[string]time.Time{}
	}
	if len(a.of) < maxGuessed {
		return
	}
	for name, until := range a.of {
		if until.Before(now) {
			delete(a.of, name)
		}
	}
	if len(a.of) >= maxGuessed {
		clear(a.of)
	}
}
