package federation_test

import (
	"fmt"
	"net/http"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestEventsByTheirTime: the event nearest to a time is found in either direction, and fetched from another server where
// history is not here yet; what one may not see is not found.
func TestEventsByTheirTime(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(w.t, "EV-09")
		room := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
		var ids []string
		var times []int64
		for i := range 40 {
			id := w.alice.Say(room, fmt.Sprint(i))
			event := w.alice.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body
			ids, times = append(ids, id), append(times, int64(event["origin_server_ts"].(float64)))
		}
		path := func(ts int64, dir string) string {
			return fmt.Sprintf("/_matrix/client/v1%s?ts=%d&dir=%s", testserver.Path("rooms", room, "timestamp_to_event"), ts, dir)
		}
		check := func(u *testserver.User, ts int64, dir string, at int) {
			w.t.Helper()
			got := u.Must("GET", path(ts, dir), nil).Body
			if got["event_id"] != ids[at] || got["origin_server_ts"] != float64(times[at]) {
				w.t.Errorf("%s, %s of %d: %v, want %s at %d", u.ID, dir, ts, got, ids[at], times[at])
			}
		}
		// Of several in the same millisecond the first one forwards, the last one backwards.
		first, last := 20, 20
		for first > 0 && times[first-1] == times[20] {
			first--
		}
		for last < 39 && times[last+1] == times[20] {
			last++
		}
		check(w.alice, times[20], "f", first)
		check(w.alice, times[20], "b", last)
		check(w.alice, times[39]+100_000, "b", 39)
		w.alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", path(times[39]+100_000, "f"), nil)
		w.alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", path(1000, "b"), nil)

		// bob's server came long after: what it answers was fetched, and can be read from there on.
		w.bob.Join(room, string(w.a.Name))
		check(w.bob, times[first], "f", first)
		around := w.bob.Must("GET", testserver.Path("rooms", room, "context", ids[first])+"?limit=4", nil).Body
		if got := len(testserver.Events(around["events_before"])) + len(testserver.Events(around["events_after"])); got != 4 {
			w.t.Errorf("around the event are %d others, want 4", got)
		}
		check(w.bob, times[39]+1, "b", 39)

		// What one may not see is not there.
		private := w.alice.CreateRoom(testserver.JSON{"preset": "private_chat", "initial_state": []testserver.JSON{{
			"type": "m.room.history_visibility", "content": testserver.JSON{"history_visibility": "joined"},
		}}})
		w.alice.Say(private, "before")
		room = private
		w.bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", path(1000, "f"), nil)
		w.alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", path(1000, "x"), nil)
		w.alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET",
			"/_matrix/client/v1"+testserver.Path("rooms", private, "timestamp_to_event")+"?dir=f", nil)
	})
}
