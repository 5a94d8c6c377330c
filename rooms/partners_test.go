package rooms

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// refusing is a world that says in so many words that it does not have an event, or does not know a user.
type refusing struct {
	*world
	stranger bool
}

type refusal4xx struct{}

func (refusal4xx) Error() string  { return "refused" }
func (refusal4xx) Answered() bool { return true }

func (w *refusing) Event(ctx context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error) {
	raw, err := w.world.Event(ctx, server, id)
	if err != nil {
		err = refusal4xx{}
	}
	return raw, err
}

func (w *refusing) MakeMembership(ctx context.Context, server matrix.ServerName, membership string, room matrix.RoomID, user matrix.UserID) (*Draft, error) {
	if w.stranger {
		return nil, refusal4xx{}
	}
	return w.world.MakeMembership(ctx, server, membership, room, user)
}

// TestCompare: what is found when rooms are compared with other servers, and what repair brings.
func TestCompare(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := &refusing{world: newWorld(t, matrix.DefaultRoomVersion)}
		n := newNode(t, db, w.world)
		ref := n.join()
		n.SetSource(w)
		compare := func(repair bool) (kind ComparisonKind, text string) {
			t.Helper()
			var all []Comparison
			done := 0
			err := n.Compare(t.Context(), CompareRequest{Room: w.room, Repair: repair, Settle: time.Millisecond},
				func(c Comparison) { all = append(all, c) }, func(i, of int) { done = i })
			if err != nil {
				t.Fatal(err)
			}
			servers := make([]matrix.ServerName, len(all))
			for i, c := range all {
				servers[i] = c.Server
			}
			slices.Sort(servers)
			if done != 1 || !slices.Equal(servers, []matrix.ServerName{near, other}) || all[0].Room != w.room {
				t.Fatalf("compared %v, %d rooms done", all, done)
			}
			return all[0].Kind, all[0].Text
		}
		expect := func(what string, repair bool, want ComparisonKind, says string) {
			t.Helper()
			if kind, text := compare(repair); kind != want || !strings.Contains(text, says) {
				t.Errorf("%s: found %s: %s; want %s with %q", what, kind, text, want, says)
			}
		}
		expect("nothing is wrong", false, Same, "the ends "+string(w.tip))

		w.say(bob, "one")
		w.send(alice, "m.room.topic", key(""), map[string]any{"topic": "new"})
		w.say(eve, "two")
		expect("they have more", false, Ahead, string(w.tip))
		expect("they have more, repaired", true, Repaired, "events were asked for")
		if got := n.bodies(ref, me); !slices.Equal(got[max(0, len(got)-2):], []string{"one", "two"}) {
			t.Errorf("after the repair the room says %q", got)
		}
		n.sameState(ref, w.tip)
		expect("after the repair", false, Same, "")

		tip := w.tip
		id, err := n.Send(t.Context(), SendRequest{Room: ref, Sender: n.sender(me), Type: "m.room.message", Content: []byte(`{"body":"ours"}`)})
		if err != nil {
			t.Fatal(err)
		}
		expect("we have more", false, Behind, string(id))
		w.add(n.row(ref, id).Event)
		expect("they have got it", false, Same, "")

		w.stranger = true
		expect("they do not know our user", false, Membership, string(me))
		w.stranger = false
		w.down[near], w.down[other] = true, true
		expect("they are down", false, Unreachable, "cannot be asked")
		w.down[near], w.down[other] = false, false

		// They count a name of the room among its state that never came here.
		hidden := w.build(event{sender: alice, typ: "m.room.name", key: key(""), content: map[string]any{"name": "hidden"}, prev: []matrix.EventID{tip}})
		w.mu.Lock()
		w.all[hidden.ID()] = hidden
		w.after[tip][stateres.StateKey{Type: "m.room.name"}] = hidden.ID()
		w.mu.Unlock()
		expect("the state differs", false, StateKind, "only there "+string(hidden.ID())+" (not here)")
		expect("the state differs, asked for", true, StateKind, "only there "+string(hidden.ID())+" (\"m.room.name\"")
		if n.row(ref, hidden.ID()) == nil {
			t.Error("the event of their state was not asked for")
		}

		if err := n.Compare(t.Context(), CompareRequest{Room: "!nowhere:near.test"}, nil, nil); err == nil {
			t.Error("a room that we are not in is compared")
		}
	})
}
