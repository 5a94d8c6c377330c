package clientapi_test

import (
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// TestErasureAbroad closes an account that is in rooms with users of another server: that one sees the user leave, keeps what it
// had, and gets what it did not have without its content.
func TestErasureAbroad(t *testing.T) {
	proof.Of(t, "AN-16")
	a, b := testserver.Pair(t, testserver.Options{})
	alice, carol, bob := a.Register("alice"), a.Register("carol"), b.Register("bob")
	early := alice.CreateRoom(object{"preset": "public_chat"})
	late := alice.CreateRoom(object{"preset": "public_chat"})
	theirs := bob.CreateRoom(object{"preset": "private_chat", "invite": []string{carol.ID}})
	for _, room := range []string{early, late} {
		carol.Join(room)
	}
	bob.Join(early, string(a.Name))
	had := carol.Say(early, "word of carol")
	wait.Until(t, "bob to have it", func() bool {
		r, err := bob.Do("GET", testserver.Path("rooms", early, "event", had), nil)
		return err == nil && r.Status == 200
	})
	never := carol.Say(late, "word of carol")
	wait.Until(t, "the invitation to arrive", func() bool {
		return testserver.At(carol.Sync("", 0), "rooms", "invite", theirs) != nil
	})
	erasing(carol)
	left := func(u *testserver.User, room string) {
		wait.Until(t, "carol to leave", func() bool {
			r, err := u.Do("GET", testserver.Path("rooms", room, "state", "m.room.member", carol.ID), nil)
			return err == nil && r.Body["membership"] == "leave"
		})
	}
	left(bob, early)
	left(bob, theirs) // the invitation is refused
	left(alice, late)
	bob.Join(late, string(a.Name))
	if text := string(bob.Must("GET", testserver.Path("rooms", early, "event", had), nil).Raw); !strings.Contains(text, "word of carol") {
		t.Errorf("what bob had is %s", text)
	}
	var text string
	wait.Until(t, "the history to come", func() bool {
		text = string(bob.Must("GET", testserver.Path("rooms", late, "messages")+"?dir=b&limit=100", nil).Raw)
		return strings.Contains(text, never)
	})
	if strings.Contains(text, "word of carol") {
		t.Errorf("whoever came later reads %s", text)
	}
}
