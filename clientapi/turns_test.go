package clientapi

import (
	"context"
	"errors"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
	until "conclave/internal/testserver/wait"
)

// TestTurnsOfOneUser shows the bounds of what a user has under way: a place for each of the first, then a queue in order,
// then a refusal; other users never wait for it, and nothing is remembered in the end.
func TestTurnsOfOneUser(t *testing.T) {
	proof.Of(t, "A16")
	var s turns
	var leaves []func()
	for range turnPlaces {
		leave, err := s.take(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leave)
	}
	waiting := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.of[1].waiting)
	}
	order := make(chan int, turnQueue)
	for i := range turnQueue - 1 {
		go func() {
			if leave, err := s.take(t.Context(), 1); err == nil {
				order <- i
				leave()
			}
		}()
		until.Until(t, "the next in the queue", func() bool { return waiting() == i+1 })
	}
	ctx, gone := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.take(ctx, 1)
		ended <- err
	}()
	until.Until(t, "the last in the queue", func() bool { return waiting() == turnQueue })
	var refused *matrix.Error
	if _, err := s.take(t.Context(), 1); !errors.As(err, &refused) || refused.Code != "M_LIMIT_EXCEEDED" || refused.Fields["retry_after_ms"] != int64(turnRetry) {
		t.Errorf("beyond the queue: %v", err)
	}
	other, err := s.take(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	other()
	gone()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("who went away: %v", err)
	}
	leaves[0]() // one place alone: the queue goes through it in order
	for i := range turnQueue - 1 {
		if got := <-order; got != i {
			t.Fatalf("number %d came in the place of %d", got, i)
		}
	}
	for _, leave := range leaves[1:] {
		leave()
	}
	until.Until(t, "the end of all", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.of) == 0
	})
}
