package clientapi

import (
	"context"
	"slices"
	"sync"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of what one user has under way at a time (threats A16): requests that are worked on, and those that wait their
// turn, in the order in which they came. What comes beyond that is refused (M_LIMIT_EXCEEDED).
const (
	turnPlaces = 16
	turnQueue  = 128
	turnRetry  = 1000 // ms after which a refused client may come back
)

// waitingRoutes are the operations that mostly wait: for news, or for as long as a socket lives. They take no turn. Media
// has bounds of its own, and takes as long as the network between.
var waitingRoutes = []string{"sync", "getEvents", "im.conclave.ws.sync", "org.matrix.simplified_msc3575.sync"}

// takesTurn says whether a route's requests count among those that a user has under way.
func (r *Route) takesTurn() bool {
	return r.Limit != LimitMedia && !slices.Contains(waitingRoutes, r.OperationID)
}

// turns lets every user have only so many requests under way, so that nobody takes the processors and the locks of rooms
// from all others. A user's requests wait for one another, never for another user's.
type turns struct {
	mu sync.Mutex
	of map[store.UserNID]*turn
}

// turn is what one user has under way. waiting is never filled while a place is free.
type turn struct {
	busy    int
	waiting []chan struct{}
}

// take waits for a free place and returns what gives it back. It ends with ctx, and refuses where too many wait already.
func (t *turns) take(ctx context.Context, user store.UserNID) (leave func(), err error) {
	mine, err := t.enter(user)
	if err != nil {
		return nil, err
	}
	leave = func() { t.leave(user) }
	if mine == nil {
		return leave, nil
	}
	select {
	case <-mine:
		return leave, nil
	case <-ctx.Done():
		t.abandon(user, mine)
		return nil, ctx.Err()
	}
}

// enter takes a free place, or a number in the queue: a channel that is closed once a place is the caller's.
func (t *turns) enter(user store.UserNID) (chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[store.UserNID]*turn{}
	}
	u := t.of[user]
	if u == nil {
		u = &turn{}
		t.of[user] = u
	}
	switch {
	case u.busy < turnPlaces:
		u.busy++
		return nil, nil
	case len(u.waiting) >= turnQueue:
		return nil, matrix.LimitExceeded(turnRetry)
	}
	mine := make(chan struct{})
	u.waiting = append(u.waiting, mine)
	return mine, nil
}

// leave gives a place to whoever waits longest. A user without requests is forgotten.
func (t *turns) leave(user store.UserNID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.of[user]
	if len(u.waiting) > 0 {
		close(u.waiting[0])
		u.waiting = slices.Delete(u.waiting, 0, 1)
		return
	}
	if u.busy--; u.busy == 0 {
		delete(t.of, user)
	}
}

// abandon leaves the queue, or gives back the place that was given in the same moment.
func (t *turns) abandon(user store.UserNID, mine chan struct{}) {
	t.mu.Lock()
	u := t.of[user]
	i := slices.Index(u.waiting, mine)
	if i >= 0 {
		u.waiting = slices.Delete(u.waiting, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 {
		t.leave(user)
	}
}
