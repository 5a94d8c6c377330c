package main

import (
	"strings"
	"testing"

	"conclave/internal/testserver"
)

// TestVerifyPartners compares a room of two real servers: alike, with the other server down, and afterwards.
func TestVerifyPartners(t *testing.T) {
	a, b := testserver.Pair(t, testserver.Options{})
	alice, bob := a.Register("alice"), b.Register("bob")
	room := alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
	bob.Join(room, string(a.Name))
	compare := func(args ...string) (string, bool) { return a.Run("verify", append([]string{"-partners"}, args...)...) }
	if out, ok := compare(); !ok || !strings.Contains(out, "1 rooms compared: 1 times the same (0 after a repair), 0 differences") {
		t.Errorf("alike: %v\n%s", ok, out)
	}
	if out, ok := compare("-room", room); !ok || !strings.Contains(out, "same  "+room+"  "+string(b.Name)) {
		t.Errorf("one room: %v\n%s", ok, out)
	}
	if out, ok := compare("-room", "!nowhere"); ok || !strings.Contains(out, "conclave: ") {
		t.Errorf("a room that is not here: %v\n%s", ok, out)
	}
	b.Stop()
	alice.Say(room, "while you were away")
	if out, ok := compare(); ok || !strings.Contains(out, "unreachable  "+room) || !strings.Contains(out, "1 times no answer") {
		t.Errorf("the other server is down: %v\n%s", ok, out)
	}
	b.Start()
	a.Stop()
	if out, ok := compare(); ok || !strings.Contains(out, "the server does not run") {
		t.Errorf("our server is stopped: %v\n%s", ok, out)
	}
	for _, args := range [][]string{{"-full"}} {
		if out, ok := compare(args...); ok || !strings.Contains(out, "usage: ") {
			t.Errorf("%v: %v\n%s", args, ok, out)
		}
	}
	if out, ok := a.Run("verify", "-repair"); ok || !strings.Contains(out, "go with -partners") {
		t.Errorf("-repair alone: %v\n%s", ok, out)
	}
}
