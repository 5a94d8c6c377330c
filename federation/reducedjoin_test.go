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
	"conclave/rooms"
)

// reducedJoin is the answer to a join with omit_members=true, by type and state key or by event ID.
type reducedJoin struct {
	state    map[string]*matrix.Event
	chain    map[matrix.EventID]*matrix.Event
	servers  []string
	omitted  bool
	memberOf []string // whose member events are in the state
}

// joinsReduced brings a user of a peer into a room and reads what is answered.
func (w *houseWorld) joinsReduced(p *peer.Peer, ref rooms.Ref, user matrix.UserID, query string) (join *peer.Event, r reducedJoin) {
	w.t.Helper()
	members, a := w.proposal(p, "make_join", ref, user)
	if a.Status != 200 {
		w.t.Fatalf("make_join: %d %s", a.Status, a.Body)
	}
	join = p.Seal(ref.Version, members)
	a = p.Do(w.t, w.us, "PUT", v2+"/send_join"+seg(string(ref.ID), string(join.ID))+query, join.JSON)
	var welcome struct {
		State   []json.RawMessage `json:"state"`
		Chain   []json.RawMessage `json:"auth_chain"`
		Omitted bool              `json:"members_omitted"`
		Servers []string          `json:"servers_in_room"`
	}
	if err := matrix.Decode(a.Body, &welcome); err != nil || a.Status != 200 {
		w.t.Fatalf("send_join: %d %s", a.Status, a.Body)
	}
	r = reducedJoin{state: map[string]*matrix.Event{}, chain: map[matrix.EventID]*matrix.Event{}, servers: welcome.Servers, omitted: welcome.Omitted}
	parse := func(raw json.RawMessage) *matrix.Event {
		ev, err := matrix.ParseEvent(raw, ref.Version)
		if err != nil {
			w.t.Fatalf("an event of the answer: %v", err)
		}
		return ev
	}
	for _, raw := range welcome.State {
		ev := parse(raw)
		key, _ := ev.StateKey()
		r.state[ev.Type()+" "+key] = ev
		if ev.Type() == "m.room.member" {
			r.memberOf = append(r.memberOf, key)
		}
	}
	for _, raw := range welcome.Chain {
		ev := parse(raw)
		r.chain[ev.ID()] = ev
	}
	slices.Sort(r.memberOf)
	return join, r
}

// lacks is what somebody with this answer alone could not authorise, of the join and of the state: events cited as auth
// events that are nowhere.
func (r *reducedJoin) lacks(join *peer.Event) (missing []matrix.EventID) {
	held := map[matrix.EventID]bool{}
	var cited []matrix.EventID
	for _, ref := range join.Members["auth_events"].([]any) {
		cited = append(cited, matrix.EventID(ref.(string)))
	}
	for _, ev := range r.state {
		held[ev.ID()] = true
		cited = append(cited, ev.AuthEvents()...)
	}
	for id, ev := range r.chain {
		held[id] = true
		cited = append(cited, ev.AuthEvents()...)
	}
	for _, id := range cited {
		if !held[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// TestJoinsWithoutMembers: who can do without the members is told the state without them, who is needed for the room's
// name if it has none, what authorises all of that, each event once, and which servers are there.
func TestJoinsWithoutMembers(t *testing.T) {
	proof.Of(t, "MB-04")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		q, gone := peer.New(t, w.ca, peer.Options{}), peer.New(t, w.ca, peer.Options{})
		ref := w.room(11, "public_chat")
		for i := range 8 {
			w.joins(w.p, ref, w.p.User(fmt.Sprint("u", i)))
		}
		w.joins(gone, ref, gone.User("x"))
		w.leaves(gone, ref, gone.User("x"))
		alias := matrix.RoomAlias("#room:" + ourName)
		if err := w.rooms.AddAlias(t.Context(), alias, ref, w.user("alice")); err != nil {
			t.Fatal(err)
		}
		heroes := []string{"@alice:" + ourName, string(w.p.User("u0")), string(w.p.User("u1")), string(w.p.User("u2")), string(w.p.User("u3"))}
		slices.Sort(heroes)
		first := []string{ourName, string(w.p.Name)}
		for _, c := range []struct {
			name, typ, content, query string
			omitted                   bool
			members                   []string // nil: all
			servers                   []string
		}{
			{"of a room without a name", "", "", "?omit_members=true", true, heroes, first},
			{"by its first user again", "", "", "?omit_members=true", true, heroes, append(first, string(q.Name))},
			{"of a room with an alias", "m.room.canonical_alias", `{"alias":"#room:us.test"}`, "?omit_members=true", true, []string{}, append(first, string(q.Name))},
			{"of a room with a name", "m.room.name", `{"name":"A room"}`, "?omit_members=true", true, []string{}, append(first, string(q.Name))},
			{"with its members", "", "", "", false, nil, append(first, string(q.Name))},
		} {
			if c.typ != "" {
				w.setState(ref, c.typ, "", c.content)
			}
			join, r := w.joinsReduced(q, ref, q.User("bob"), c.query)
			if r.omitted != c.omitted || !slices.Equal(r.servers, c.servers) {
				t.Errorf("a join %s: omitted %v, servers %v, want %v", c.name, r.omitted, r.servers, c.servers)
			}
			if c.members != nil && !slices.Equal(r.memberOf, c.members) || c.members == nil && len(r.memberOf) < 10 {
				t.Errorf("a join %s shows the members %v, want %v", c.name, r.memberOf, c.members)
			}
			for _, place := range []string{"m.room.create ", "m.room.power_levels ", "m.room.join_rules ", "m.room.history_visibility ", "m.room.guest_access "} {
				if r.state[place] == nil {
					t.Errorf("a join %s does not tell of %s", c.name, place)
				}
			}
			if missing := r.lacks(join); len(missing) != 0 {
				t.Errorf("a join %s: nothing is known of the auth events %v", c.name, missing)
			}
			for _, ev := range r.state {
				if c.omitted && r.chain[ev.ID()] != nil {
					t.Errorf("a join %s tells %s twice", c.name, ev.Type())
				}
			}
		}
	})
}
