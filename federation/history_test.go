package federation

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// pdus are the events of an answer, by ID, with whether each is whole.
func pdus(t *testing.T, v matrix.RoomVersion, a peer.Answer, list string) (ids []matrix.EventID, whole map[matrix.EventID]bool) {
	t.Helper()
	var body map[string]json.RawMessage
	var raws []json.RawMessage
	if a.Status != 200 || json.Unmarshal(a.Body, &body) != nil || json.Unmarshal(body[list], &raws) != nil {
		t.Fatalf("answered %d %s", a.Status, a.Body)
	}
	whole = map[matrix.EventID]bool{}
	for _, raw := range raws {
		ev, err := matrix.ParseEvent(raw, v)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, ev.ID())
		whole[ev.ID()] = ev.CheckContentHash()
	}
	return ids, whole
}

// reads are the operations by which a server reads a room, at an event.
func (w *houseWorld) reads(room matrix.RoomID, id matrix.EventID) map[string]func(*peer.Peer) peer.Answer {
	get := func(uri string) func(*peer.Peer) peer.Answer {
		return func(p *peer.Peer) peer.Answer { return p.Do(w.t, w.us, "GET", v1+uri, nil) }
	}
	at := "?event_id=" + url.QueryEscape(string(id))
	body, _ := json.Marshal(map[string]any{"earliest_events": []string{}, "latest_events": []matrix.EventID{id}})
	return map[string]func(*peer.Peer) peer.Answer{
		"getRoomState":    get("/state" + seg(string(room)) + at),
		"getRoomStateIds": get("/state_ids" + seg(string(room)) + at),
		"getEventAuth":    get("/event_auth" + seg(string(room), string(id))),
		"getEvent":        get("/event" + seg(string(id))),
		"backfillRoom":    get("/backfill" + seg(string(room)) + "?limit=10&v=" + url.QueryEscape(string(id))),
		"getMissingPreviousEvents": func(p *peer.Peer) peer.Answer {
			return p.Do(w.t, w.us, "POST", v1+"/get_missing_events"+seg(string(room)), body)
		},
	}
}

// TestRoomsAreReadByTheirServersAlone is threats F15.
func TestRoomsAreReadByTheirServersAlone(t *testing.T) {
	proof.Of(t, "F15", "FD-18")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref, other := w.room(12, "public_chat"), w.room(12, "public_chat")
		stranger := peer.New(t, w.ca, peer.Options{})
		w.joins(w.p, ref, w.p.User("bob"))
		id, foreign := w.say(ref, "alice", "here"), w.say(other, "alice", "there")
		for name, read := range w.reads(ref.ID, id) {
			if got := read(stranger); got.Status != 403 {
				t.Errorf("%s by a stranger: %d %s", name, got.Status, got.Body)
			}
			if got := read(w.p); got.Status != 200 {
				t.Errorf("%s: %d %s", name, got.Status, got.Body)
			}
		}
		for name, read := range w.reads(ref.ID, foreign) {
			got := read(w.p)
			switch name {
			case "getEvent":
				if got.Status != 403 {
					t.Errorf("%s of a room it is not in: %d %s", name, got.Status, got.Body)
				}
			case "backfillRoom":
				if ids, _ := pdus(t, 12, got, "pdus"); len(ids) != 0 {
					t.Errorf("%s gives %v of another room", name, ids)
				}
			case "getMissingPreviousEvents":
				if ids, _ := pdus(t, 12, got, "events"); len(ids) != 0 {
					t.Errorf("%s gives %v of another room", name, ids)
				}
			default:
				if got.Status != 404 {
					t.Errorf("%s of another room's event: %d %s", name, got.Status, got.Body)
				}
			}
		}
		w.setState(ref, "m.room.server_acl", "", `{"allow":["*"],"deny":["localhost"]}`)
		for name, read := range w.reads(ref.ID, id) {
			if got := read(w.p); got.Status != 403 {
				t.Errorf("%s by a server that is shut out: %d %s", name, got.Status, got.Body)
			}
		}
	})
}

func TestHistoryIsServedAsItCouldBeSeen(t *testing.T) {
	proof.Of(t, "F15")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		for _, visibility := range []string{"joined", "shared"} {
			ref := w.room(11, "public_chat", rooms.StateEvent{Type: "m.room.history_visibility", Content: json.RawMessage(fmt.Sprintf(`{"history_visibility":%q}`, visibility))})
			before := w.say(ref, "alice", "before bob")
			w.joins(w.p, ref, w.p.User("bob"))
			during := w.say(ref, "alice", "with bob")
			w.leaves(w.p, ref, w.p.User("bob"))
			after := w.say(ref, "alice", "after bob")
			seen := map[matrix.EventID]bool{before: visibility == "shared", during: true, after: false}
			_, whole := pdus(t, 11, w.reads(ref.ID, after)["backfillRoom"](w.p), "pdus")
			_, missing := pdus(t, 11, w.reads(ref.ID, after)["getMissingPreviousEvents"](w.p), "events")
			for id, want := range seen {
				_, single := pdus(t, 11, w.reads(ref.ID, id)["getEvent"](w.p), "pdus")
				if got, there := whole[id]; !there || got != want || single[id] != want {
					t.Errorf("%s: %s is whole: %v in backfill (%v), %v alone", visibility, id, got, there, single[id])
				}
				if got, there := missing[id]; there == (id == after) || got != (want && id != after) {
					t.Errorf("%s: %s is whole: %v in missing events (%v)", visibility, id, got, there)
				}
			}
			for name, read := range w.reads(ref.ID, after) {
				if got := read(w.p); got.Status != 403 && (name == "getRoomState" || name == "getRoomStateIds" || name == "getEventAuth") {
					t.Errorf("%s: %s after it left: %d %s", visibility, name, got.Status, got.Body)
				}
			}
		}
	})
}

func TestStateAndHistoryAreWhatTheyShouldBe(t *testing.T) {
	proof.Of(t, "FD-19")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(10, "public_chat")
		w.joins(w.p, ref, w.p.User("bob"))
		first := w.say(ref, "alice", "1")
		name := w.setState(ref, "m.room.name", "", `{"name":"A room"}`)
		last := w.say(ref, "alice", "2")

		reads := w.reads(ref.ID, name)
		state, _ := pdus(t, 10, reads["getRoomState"](w.p), "pdus")
		chain, _ := pdus(t, 10, reads["getRoomState"](w.p), "auth_chain")
		var ids struct {
			State []matrix.EventID `json:"pdu_ids"`
			Chain []matrix.EventID `json:"auth_chain_ids"`
		}
		if err := json.Unmarshal(reads["getRoomStateIds"](w.p).Body, &ids); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(state, name) || len(state) < 6 || !slices.Equal(state, ids.State) || !slices.Equal(chain, ids.Chain) || len(chain) < 4 {
			t.Errorf("the state before the name is %v, %v; their chain %v, %v", state, ids.State, chain, ids.Chain)
		}
		if after, _ := pdus(t, 10, w.reads(ref.ID, last)["getRoomState"](w.p), "pdus"); !slices.Contains(after, name) {
			t.Error("the state after the name does not hold it")
		}
		back := func(limit string) []matrix.EventID {
			ids, _ := pdus(t, 10, w.p.Do(t, w.us, "GET", v1+"/backfill"+seg(string(ref.ID))+"?v="+url.QueryEscape(string(last))+"&limit="+limit, nil), "pdus")
			return ids
		}
		if got := back("3"); !slices.Equal(got, []matrix.EventID{last, name, first}) {
			t.Errorf("backfill gives %v", got)
		}
		if got := back("100000"); len(got) < 8 || len(got) > 100 {
			t.Errorf("backfill without a bound gives %d", len(got))
		}
		missing := func(body map[string]any) peer.Answer {
			raw, _ := json.Marshal(body)
			return w.p.Do(t, w.us, "POST", v1+"/get_missing_events"+seg(string(ref.ID)), raw)
		}
		got, _ := pdus(t, 10, missing(map[string]any{"earliest_events": []any{first}, "latest_events": []any{last}}), "events")
		if !slices.Equal(got, []matrix.EventID{name}) {
			t.Errorf("missing events are %v", got)
		}
		got, _ = pdus(t, 10, missing(map[string]any{"earliest_events": []any{}, "latest_events": []any{last}, "limit": 2}), "events")
		if !slices.Equal(got, []matrix.EventID{first, name}) {
			t.Errorf("missing events are %v", got)
		}
		for name, a := range map[string]peer.Answer{
			"no limit":            w.p.Do(t, w.us, "GET", v1+"/backfill"+seg(string(ref.ID))+"?v=$x", nil),
			"a negative limit":    missing(map[string]any{"earliest_events": []any{}, "latest_events": []any{last}, "limit": -1}),
			"events that are not": missing(map[string]any{"earliest_events": []any{}, "latest_events": []any{"x"}}),
			"too many events":     missing(map[string]any{"earliest_events": slices.Repeat([]string{"$x"}, 101), "latest_events": []any{last}}),
			"no event":            w.p.Do(t, w.us, "GET", v1+"/state"+seg(string(ref.ID)), nil),
		} {
			if a.Status != 400 {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
	})
}
