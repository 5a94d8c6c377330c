package clientapi

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// TestWaitsAreBounded: one user cannot have any number of long polls and sockets open, which keeps nobody else from having
// some, and the user from coming back when some have ended.
func TestWaitsAreBounded(t *testing.T) {
	h := newHub(nil, nil)
	enter := func(session *accounts.Session) (func(), error) {
		_, leave, err := h.wait(context.Background(), session)
		return leave, err
	}
	alice, bob := &accounts.Session{User: 1}, &accounts.Session{User: 2}
	var leave func()
	for range maxWaits {
		var err error
		if leave, err = enter(alice); err != nil {
			t.Fatal(err)
		}
	}
	var limit *matrix.Error
	if _, err := enter(alice); !errors.As(err, &limit) || limit.Code != "M_LIMIT_EXCEEDED" {
		t.Errorf("one too many: %v", err)
	}
	if _, err := enter(bob); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	leave()
	if _, err := enter(alice); err != nil {
		t.Errorf("once one has ended: %v", err)
	}
}

// TestWaitsEndWhenTheirSessionMayNotWait: where a session ends on another node this one forgets what it remembers of it
// before it looks again; and one whose second factor is overdue from some time on ends then, though nobody says so.
func TestWaitsEndWhenTheirSessionMayNotWait(t *testing.T) {
	bus := cluster.NewLocal()
	var mu sync.Mutex
	gone, overdue := map[store.UserNID]bool{}, false
	h := newHub(func(_ context.Context, s *accounts.Session) (*accounts.Session, error) {
		mu.Lock()
		defer mu.Unlock()
		if gone[s.User] {
			return nil, matrix.UnknownToken(false)
		}
		return &accounts.Session{User: s.User, MustEnrol: overdue && !s.EnrolBy.IsZero()}, nil
	}, func(user store.UserNID) {
		mu.Lock()
		defer mu.Unlock()
		gone[user] = true // what was remembered said that it stands
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go h.watch(ctx, bus) //nolint:errcheck // it ends with the test

	alice, leave := h.enter(ctx, &accounts.Session{User: 1})
	defer leave()
	for context.Cause(alice) == nil {
		bus.Publish(cluster.Sessions, 1) // until somebody listens
		runtime.Gosched()
	}
	if cause := context.Cause(alice); !errors.Is(cause, errSessionEnded) || !errors.Is(cause, matrix.UnknownToken(false)) {
		t.Errorf("a session that ended elsewhere: %v", cause)
	}

	mu.Lock()
	overdue = true
	mu.Unlock()
	bob, leave := h.enter(ctx, &accounts.Session{User: 2, EnrolBy: time.Now().Add(time.Millisecond)})
	defer leave()
	<-bob.Done()
	if cause := context.Cause(bob); !errors.Is(cause, errSessionEnded) || !errors.Is(cause, matrix.Forbidden("")) {
		t.Errorf("a session that has to set up a second factor: %v", cause)
	}
}
