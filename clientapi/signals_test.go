package clientapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// typists waits for the list of who types in a room.
func typists(u *testserver.User, since, room string, want ...string) (next string) {
	return u.SyncUntil(since, fmt.Sprint("that there type ", want), func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "ephemeral", "events")) {
			if e["type"] != "m.typing" {
				continue
			}
			list, _ := testserver.At(e, "content", "user_ids").([]any)
			var got []string
			for _, user := range list {
				got = append(got, fmt.Sprint(user))
			}
			slices.Sort(got)
			return slices.Equal(got, slices.Sorted(slices.Values(want)))
		}
		return false
	})
}

// TestSignals: typing lasts as long as its user says and its list replaces the one before; the read marker moves by its own
// requests alone; a receipt belongs to the thread that relations lead to.
func TestSignals(t *testing.T) {
	s := testserver.Start(t, testserver.Options{})
	alice, bob, room := together(t, s)
	mallory := s.Register("mallory")

	t.Run("typing", func(t *testing.T) {
		proof.Of(t, "US-11")
		typing := func(u *testserver.User, on bool, timeout int) {
			u.Must("PUT", testserver.Path("rooms", room, "typing", u.ID), object{"typing": on, "timeout": timeout})
		}
		since := token(bob.Sync("", 0))
		typing(alice, true, 60_000)
		since = typists(bob, since, room, alice.ID)
		typing(bob, true, 60_000)
		since = typists(bob, since, room, alice.ID, bob.ID)
		typing(alice, false, 0)
		since = typists(bob, since, room, bob.ID)
		typing(bob, true, 1) // which ends by itself
		typists(bob, since, room)
		mallory.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", testserver.Path("rooms", room, "typing", mallory.ID), object{"typing": true, "timeout": 1000})
		bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", testserver.Path("rooms", room, "typing", alice.ID), object{"typing": true, "timeout": 1000})
	})

	t.Run("read marker", func(t *testing.T) {
		proof.Of(t, "US-09")
		first, second := alice.Say(room, "1"), alice.Say(room, "2")
		mark := testserver.Path("user", bob.ID, "rooms", room, "account_data", "m.fully_read")
		at := func(want string) {
			t.Helper()
			if a := bob.Must("GET", mark, nil); a.Body["event_id"] != want {
				t.Errorf("the marker is at %s, want %s", a.Raw, want)
			}
		}
		bob.Must("POST", testserver.Path("rooms", room, "read_markers"), object{"m.fully_read": first, "m.read": second})
		at(first)
		bob.Refused(http.StatusMethodNotAllowed, "M_BAD_JSON", "PUT", mark, object{"event_id": second})
		bob.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", second), object{})
		at(first)
		bob.Must("POST", testserver.Path("rooms", room, "receipt", "m.fully_read", second), object{})
		at(second)
	})

	t.Run("threads of receipts", func(t *testing.T) {
		proof.Of(t, "US-10")
		root := alice.Say(room, "root")
		of := func(relType, target string) string {
			return alice.Send(room, "org.example.thing", object{"m.relates_to": object{"rel_type": relType, "event_id": target}})
		}
		inThread := of("m.thread", root)
		reaction := of("m.annotation", inThread)
		reference := of("m.reference", reaction)
		elsewhere := of("m.reference", root)
		for _, event := range []string{inThread, reaction, reference} {
			path := testserver.Path("rooms", room, "receipt", "m.read", event)
			bob.Must("POST", path, object{"thread_id": root})
			bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", path, object{"thread_id": "main"})
		}
		for _, event := range []string{root, elsewhere} {
			path := testserver.Path("rooms", room, "receipt", "m.read", event)
			bob.Must("POST", path, object{"thread_id": "main"})
		}
		bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", testserver.Path("rooms", room, "receipt", "m.read", elsewhere), object{"thread_id": root})
	})
}
