package clientapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Why a wait ends before its time.
var (
	errDraining     = errors.New("the server is going down")
	errSessionEnded = errors.New("the session has ended, or its account is locked")
)

// ended is an errSessionEnded with what the client is to be told: M_UNKNOWN_TOKEN or M_USER_LOCKED.
type ended struct{ error }

// Unwrap implements errors.Is and errors.As.
func (e ended) Unwrap() []error { return []error{errSessionEnded, e.error} }

// hub knows every connection that lives longer than its request: long polls and sockets. It ends those whose session
// has ended (threats A06), and all of them when the server drains.
type hub struct {
	check func(context.Context, *accounts.Session) (*accounts.Session, error) // what a session is by now
	heard func(store.UserNID)                                                 // that sessions have ended, here or on another node

	mu       sync.Mutex
	draining bool
	waits    map[store.UserNID]map[*wait]struct{}
}

// wait is one such connection.
type wait struct {
	session *accounts.Session
	cancel  context.CancelCauseFunc
}

func newHub(check func(context.Context, *accounts.Session) (*accounts.Session, error), heard func(store.UserNID)) *hub {
	return &hub{check: check, heard: heard, waits: map[store.UserNID]map[*wait]struct{}{}}
}

// maxWaits bounds how many long polls and sockets one user has open at a time. They take no turn (turns.go), and each is
// worked on when something happens in a room of the user.
const maxWaits = 500

// wait is enter for a request that waits for what happens; the last but too many is refused (M_LIMIT_EXCEEDED).
func (h *hub) wait(ctx context.Context, session *accounts.Session) (context.Context, func(), error) {
	h.mu.Lock()
	many := len(h.waits[session.User]) >= maxWaits
	h.mu.Unlock()
	if many {
		return nil, nil, matrix.LimitExceeded(turnRetry)
	}
	ctx, leave := h.enter(ctx, session)
	return ctx, leave, nil
}

// enter returns a context that ends with the session, and a function to call when the wait is over.
func (h *hub) enter(ctx context.Context, session *accounts.Session) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &wait{session, cancel}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		cancel(errDraining)
		return ctx, func() {}
	}
	of := h.waits[session.User]
	if of == nil {
		of = map[*wait]struct{}{}
		h.waits[session.User] = of
	}
	of[w] = struct{}{}
	enrols := func() bool { return false }
	if by := session.EnrolBy; !by.IsZero() { // then it may do nothing that waits any more
		enrols = time.AfterFunc(time.Until(by), func() { h.look(context.WithoutCancel(ctx), w) }).Stop
	}
	return ctx, func() {
		enrols()
		cancel(nil)
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(of, w)
		if len(of) == 0 && len(h.waits[session.User]) == 0 {
			delete(h.waits, session.User)
		}
	}
}

// watch ends the waits of sessions that have ended, until ctx does.
func (h *hub) watch(ctx context.Context, bus cluster.Bus) error {
	wakes, cancel := bus.Subscribe(cluster.Sessions)
	defer cancel()
	for {
		select {
		case user := <-wakes:
			h.heard(store.UserNID(user))
			h.review(ctx, store.UserNID(user))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// review looks again at the sessions of a user, or with cluster.Lost at all of them.
func (h *hub) review(ctx context.Context, user store.UserNID) {
	var waits []*wait
	h.mu.Lock()
	for of, set := range h.waits {
		if of != user && int64(user) != cluster.Lost {
			continue
		}
		for w := range set {
			waits = append(waits, w)
		}
	}
	h.mu.Unlock()
	for _, w := range waits {
		h.look(ctx, w)
	}
}

// look ends a wait whose session has ended, or may only set up a second factor by now.
func (h *hub) look(ctx context.Context, w *wait) {
	now, err := h.check(ctx, w.session)
	if err == nil && now.MustEnrol {
		err = errEnrolFirst()
	}
	if err != nil {
		w.cancel(ended{err})
	}
}

// drain ends all waits, and those to come at once.
func (h *hub) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	for _, set := range h.waits {
		for w := range set {
			w.cancel(errDraining)
		}
	}
}
