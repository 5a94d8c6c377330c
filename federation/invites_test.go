package federation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// invites sends an invitation of a peer's room by the second version of the operation.
func (w *houseWorld) invites(p *peer.Peer, r *peer.Room, e *peer.Event, state []json.RawMessage) peer.Answer {
	w.t.Helper()
	body, err := json.Marshal(map[string]any{"room_version": r.Version.String(), "event": json.RawMessage(e.JSON), "invite_room_state": state})
	if err != nil { // broken on purpose
		body = fmt.Appendf(nil, `{"room_version":%q,"event":%s,"invite_room_state":[]}`, r.Version, e.JSON)
	}
	return p.Do(w.t, w.us, "PUT", v2+"/invite"+seg(string(r.ID), string(e.ID)), body)
}

func inviteSpec(user string) peer.Spec {
	return peer.Spec{Type: "m.room.member", StateKey: peer.Key(user), Content: map[string]any{"membership": "invite"}, Apart: true}
}

func stateOf(r *peer.Room, types ...string) (state []json.RawMessage) {
	for _, e := range r.State() {
		if kind, _ := e.Members["type"].(string); slices.Contains(types, kind) {
			state = append(state, e.JSON)
		}
	}
	return state
}

func TestInvitationsAreSignedAndShown(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		alice := w.user("alice")
		for _, v := range []matrix.RoomVersion{1, 3, 9, 12} {
			r := w.p.NewRoom(v, "host")
			e := r.Make(inviteSpec(string(alice.ID)))
			state := stateOf(r, "m.room.create", "m.room.join_rules")
			a := w.invites(w.p, r, e, state)
			var answer struct {
				Event json.RawMessage `json:"event"`
			}
			if err := matrix.Decode(a.Body, &answer); err != nil || a.Status != 200 {
				t.Fatalf("version %s: %d %s", v, a.Status, a.Body)
			}
			signed, err := matrix.ParseEvent(answer.Event, v)
			if err != nil || signed.ID() != e.ID || len(signed.SignatureKeys(ourName)) != 1 || len(signed.SignatureKeys(w.p.Name)) != 1 {
				t.Errorf("version %s: signed as %s (%v)", v, answer.Event, err)
			}
			ref, err := w.rooms.Lookup(t.Context(), r.ID)
			if err != nil || w.stands(ref, alice.ID) != "invite" {
				t.Fatalf("version %s: alice is %q (%v)", v, w.stands(ref, alice.ID), err)
			}
			row, err := w.rooms.Membership(t.Context(), ref.NID, alice.NID)
			if err != nil {
				t.Fatal(err)
			}
			shown, err := w.rooms.StrippedState(t.Context(), ref, *row)
			if err != nil || len(shown) != 3 || strings.Contains(string(shown[0]), "signatures") {
				t.Errorf("version %s: the invitation shows %s (%v)", v, shown, err)
			}
			if again := w.invites(w.p, r, e, state); again.Status != 200 {
				t.Errorf("version %s: repeated, it is answered %d %s", v, again.Status, again.Body)
			}
		}
	})
}

func TestInvitationsByTheFirstVersion(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		alice := w.user("alice")
		r := w.p.NewRoom(1, "host")
		e := r.Make(inviteSpec(string(alice.ID)))
		e.Members["unsigned"] = map[string]any{"invite_room_state": []any{
			map[string]any{"type": "m.room.name", "state_key": "", "sender": string(r.Creator), "content": map[string]any{"name": "A room"}},
			map[string]any{"type": "m.room.topic", "sender": string(r.Creator), "content": map[string]any{"topic": "no state"}}, "garbage",
		}}
		body, _ := json.Marshal(e.Members)
		a := w.p.Do(t, w.us, "PUT", v1+"/invite"+seg(string(r.ID), string(e.ID)), body)
		var pair []json.RawMessage
		if err := json.Unmarshal(a.Body, &pair); err != nil || len(pair) != 2 || string(pair[0]) != "200" {
			t.Fatalf("answered %d %s", a.Status, a.Body)
		}
		ref, err := w.rooms.Lookup(t.Context(), r.ID)
		if err != nil || w.stands(ref, alice.ID) != "invite" {
			t.Errorf("alice is %q (%v)", w.stands(ref, alice.ID), err)
		}
	})
}

// TestInvitationsThatAreNotSigned is threats F04 and F06.
func TestInvitationsThatAreNotSigned(t *testing.T) {
	proof.Of(t, "F01", "F04", "F06", "MB-05", "MB-06")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		alice := w.user("alice")
		gone := w.user("gone")
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Deactivate(gone.NID) }); err != nil {
			t.Fatal(err)
		}
		q := peer.New(t, w.ca, peer.Options{})
		r, foreign := w.p.NewRoom(12, "host"), w.p.NewRoom(12, "other")
		create := stateOf(r, "m.room.create")
		make := func(user string, knobs ...peer.Knob) *peer.Event { return r.Make(inviteSpec(user), knobs...) }
		for name, a := range map[string]peer.Answer{
			"for another server's user":  w.invites(w.p, r, make("@x:other.test"), create),
			"for the sender's own":       w.invites(w.p, r, make(string(w.p.User("x"))), create),
			"for nobody":                 w.invites(w.p, r, make("alice"), create),
			"for a user that is not":     w.invites(w.p, r, make("@nobody:us.test"), create),
			"for one who is gone":        w.invites(w.p, r, make(string(gone.ID)), create),
			"a join":                     w.invites(w.p, r, make(string(alice.ID), peer.Set("content", map[string]any{"membership": "join"})), create),
			"power levels":               w.invites(w.p, r, make(string(alice.ID), peer.Set("type", "m.room.power_levels")), create),
			"another server's":           w.invites(w.p, r, make(string(alice.ID), peer.Set("sender", string(q.User("x")))), create),
			"in our name":                w.invites(w.p, r, make(string(alice.ID), peer.Set("sender", "@bob:us.test")), create),
			"by somebody else":           w.invites(q, r, make(string(alice.ID)), create),
			"of another room":            w.invites(w.p, r, make(string(alice.ID), peer.Set("room_id", string(foreign.ID))), create),
			"unsigned":                   w.invites(w.p, r, make(string(alice.ID), peer.NoSignature()), create),
			"wrongly signed":             w.invites(w.p, r, make(string(alice.ID), w.p.BadSignature()), create),
			"with a wrong hash":          w.invites(w.p, r, make(string(alice.ID), peer.BadHash()), create),
			"without the creation":       w.invites(w.p, r, make(string(alice.ID)), stateOf(r, "m.room.join_rules")),
			"with another room's":        w.invites(w.p, r, make(string(alice.ID)), stateOf(foreign, "m.room.create")),
			"with stripped state":        w.invites(w.p, r, make(string(alice.ID)), append(slices.Clone(create), json.RawMessage(`{"type":"m.room.name","state_key":"","sender":"@x:x.test","content":{}}`))),
			"with forged state":          w.invites(w.p, r, make(string(alice.ID)), append(slices.Clone(create), r.Make(peer.Spec{Type: "m.room.name", StateKey: peer.Key(""), Apart: true}, w.p.BadSignature()).JSON)),
			"with too much of the room":  w.invites(w.p, r, make(string(alice.ID)), slices.Repeat(create, 101)),
			"of an unknown room version": w.p.Do(t, w.us, "PUT", v2+"/invite"+seg(string(r.ID), "$x"), []byte(`{"room_version":"99","event":{},"invite_room_state":[]}`)),
			"without an event":           w.p.Do(t, w.us, "PUT", v2+"/invite"+seg(string(r.ID), "$x"), []byte(`{"room_version":"12","invite_room_state":[]}`)),
			"of another event":           w.p.Do(t, w.us, "PUT", v2+"/invite"+seg(string(r.ID), "$x"), fmt.Appendf(nil, `{"room_version":"12","event":%s,"invite_room_state":[]}`, make(string(alice.ID)).JSON)),
		} {
			if a.Status != 400 && a.Status != 403 && a.Status != 413 || strings.Contains(string(a.Body), "ed25519:ours") {
				t.Errorf("an invitation %s: %d %s", name, a.Status, a.Body)
			}
		}
		if ref, err := w.rooms.Lookup(t.Context(), r.ID); err == nil && w.stands(ref, alice.ID) != "" {
			t.Errorf("alice is %q", w.stands(ref, alice.ID))
		}
		if a := w.invites(w.p, r, make(string(alice.ID)), create); a.Status != 200 {
			t.Errorf("an invitation as it should be: %d %s", a.Status, a.Body)
		}
	})
}

func TestInvitationsIntoRoomsThatWeAreIn(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		carol := w.user("carol")
		var sent *peer.Event
		invite := func(user string) peer.Answer {
			e := g.message("", peer.Set("type", "m.room.member"), peer.Set("state_key", user), peer.Set("content", map[string]any{"membership": "invite"}))
			sent = e
			return w.invites(w.p, &peer.Room{ID: ref.ID, Version: 11}, e, nil)
		}
		proof.Of(t, "MB-08")
		if a := invite(string(carol.ID)); a.Status != 200 || w.stands(ref, carol.ID) != "" {
			t.Errorf("carol: %d %s, she is %q before the event comes", a.Status, a.Body, w.stands(ref, carol.ID))
		}
		// The same invitation once more, as any event of the room: by the endpoint it was only signed.
		if a := w.send(w.p, "invitation", []string{string(sent.JSON)}, nil); a.Status != 200 {
			t.Errorf("the invitation in a transaction: %d %s", a.Status, a.Body)
		}
		w.arrives(ref, sent.ID)
		if again := w.invites(w.p, &peer.Room{ID: ref.ID, Version: 11}, sent, nil); again.Status != 200 || w.stands(ref, carol.ID) != "invite" {
			t.Errorf("and by the endpoint again: %d %s, carol is %q", again.Status, again.Body, w.stands(ref, carol.ID))
		}
		if a := invite("@alice:us.test"); a.Status != 403 {
			t.Errorf("who is in the room already: %d %s", a.Status, a.Body)
		}
		if w.stands(ref, "@alice:us.test") != "join" {
			t.Error("an invitation has put alice out of the room")
		}
	})
}
