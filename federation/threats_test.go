package federation

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// endless makes messages of the guest's that follow one another, the first one an event that may be made up.
func (g *guest) endless(n int, first matrix.EventID) []*peer.Event {
	g.w.t.Helper()
	events := make([]*peer.Event, n)
	for i := range events {
		events[i] = g.message(fmt.Sprint("deep ", i), peer.Set("prev_events", []any{string(first)}), peer.Set("depth", 1000+i))
		first = events[i].ID
	}
	return events
}

// asked are the requests for parts of a room that a peer got.
func asked(p *peer.Peer) (n int) {
	for _, op := range []string{"get_missing_events", "state_ids", "state/", "event_auth", "event/", "backfill"} {
		n += len(p.Calls(v1 + "/" + op))
	}
	return n
}

// TestDeepGapsAreLeftAlone is threats F14: an event stands on others without end, and the server that sent it answers
// every question with more of them.
func TestDeepGapsAreLeftAlone(t *testing.T) {
	proof.Of(t, "F14")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(12, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		deep := g.endless(2000, "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA") // far more than is ever asked for
		at := map[matrix.EventID]int{}
		for i, e := range deep {
			at[e.ID] = i
		}
		w.p.Handle("POST", v1+"/get_missing_events/{roomId}", func(c *peer.Call) peer.Reply {
			var q struct {
				Latest []matrix.EventID `json:"latest_events"`
			}
			c.JSON(t, &q)
			var events []json.RawMessage
			for _, id := range q.Latest {
				for i := at[id] - 1; i >= 0 && len(events) < 500; i-- { // more than it was asked for
					events = append(events, deep[i].JSON, deep[i].JSON)
				}
			}
			slices.Reverse(events)
			return peer.Reply{Body: map[string]any{"events": events}}
		})
		w.p.Handle("GET", v1+"/state_ids/{roomId}", func(*peer.Call) peer.Reply {
			var ids []string
			for i := range 3 {
				ids = append(ids, fmt.Sprintf("$%043d", i))
			}
			return peer.Reply{Body: map[string]any{"pdu_ids": ids, "auth_chain_ids": ids}}
		})
		w.p.Handle("GET", v1+"/event/{eventId}", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: map[string]any{"pdus": []json.RawMessage{deep[0].JSON}}}
		})
		last := deep[len(deep)-1]
		takes := func(txn string) {
			t.Helper()
			good := g.message(txn)
			accepted(t, w.send(w.p, txn, []string{string(last.JSON), string(good.JSON)}, nil))
			w.arrives(ref, good.ID)
		}
		takes("once")
		first := asked(w.p)
		if first == 0 || first > 20 {
			t.Errorf("one event made %d requests", first)
		}
		for i := range 100 {
			takes(fmt.Sprint("again ", i))
		}
		if more := asked(w.p) - first; more != 0 {
			t.Errorf("100 repetitions made %d more requests", more)
		}
		if _, err := w.rooms.EventInRoom(t.Context(), ref.NID, last.ID); err == nil {
			t.Error("an event without a place was given one")
		}
	})
}
