package clientapi

import (
	"context"
	"errors"
	"testing"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
)

// TestWaitsAreBounded: one user cannot have any number of long polls and sockets open, which keeps nobody else from having
// some, and the user from coming back when some have ended.
func TestWaitsAreBounded(t *testing.T) {
	h := newHub(nil)
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
