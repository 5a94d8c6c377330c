package federation

import (
	"context"
	"sync"

	"conclave/internal/matrix"
)

// originLimits bounds how many requests of one server to one operation run at a time. More wait for a place, a few;
// beyond that they are refused, so that one busy or hostile server cannot use up this one.
type originLimits struct {
	mu sync.Mutex
	m  map[originKey]*originQueue
}

type originKey struct {
	origin    matrix.ServerName
	operation string
}

type originQueue struct {
	slots chan struct{}
	users int // running and waiting; guarded by originLimits.mu
}

// waitersPerSlot is how many requests may wait for each that may run.
const waitersPerSlot = 4

// take waits for a place; release gives it back. ok is false if too many wait already or ctx ends first.
func (l *originLimits) take(ctx context.Context, origin matrix.ServerName, operation string, limit int) (release func(), ok bool) {
	key := originKey{origin, operation}
	l.mu.Lock()
	q := l.m[key]
	if q == nil {
		if l.m == nil {
			l.m = map[originKey]*originQueue{}
		}
		q = &originQueue{slots: make(chan struct{}, limit)}
		l.m[key] = q
	}
	if q.users >= limit*(1+waitersPerSlot) {
		l.mu.Unlock()
		return nil, false
	}
	q.users++
	l.mu.Unlock()
	select {
	case q.slots <- struct{}{}:
		return func() { <-q.slots; l.leave(key, q) }, true
	case <-ctx.Done():
		l.leave(key, q)
		return nil, false
	}
}

func (l *originLimits) leave(key originKey, q *originQueue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.users--; q.users == 0 {
		delete(l.m, key)
	}
}
