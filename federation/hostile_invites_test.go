package federation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// forgedCreations are what a hostile server shows as the creation of a room of version 12, whose ID is that event's hash.
func forgedCreations(p, q *peer.Peer, r *peer.Room) map[string][]json.RawMessage {
	create := func(change func(object), knobs ...peer.Knob) json.RawMessage {
		members := object{}
		for name, value := range r.Create.Members {
			if name != "signatures" && name != "hashes" {
				members[name] = value
			}
		}
		if change != nil {
			change(members)
		}
		return p.Seal(r.Version, members, knobs...).JSON
	}
	whole := json.RawMessage(r.Create.JSON)
	name := json.RawMessage(r.Make(peer.Spec{Type: "m.room.name", StateKey: peer.Key(""), Content: object{"name": "Salary"}, Apart: true}).JSON)
	return map[string][]json.RawMessage{
		"none":                       {name},
		"nothing at all":             {},
		"of another room":            {p.NewRoom(12, "other").Create.JSON},
		"of another server's room":   {q.NewRoom(12, "other").Create.JSON},
		"changed afterwards":         {create(nil, peer.SetLate("content", object{"room_version": "12", "m.federate": false}))},
		"by somebody else":           {create(func(m object) { m["sender"] = string(p.User("admin")) })},
		"of another version":         {create(func(m object) { m["content"] = object{"room_version": "11"} })},
		"that names the room":        {create(func(m object) { m["room_id"] = string(r.ID) })},
		"with a wrong signature":     {create(nil, p.BadSignature())},
		"without a signature":        {create(nil, peer.NoSignature())},
		"signed by another server":   {create(nil, peer.SignedWith(q.Name, q.KeyID, q.Key))},
		"stripped":                   {json.RawMessage(`{"type":"m.room.create","state_key":"","sender":"` + string(r.Creator) + `","content":{"room_version":"12"}}`)},
		"the right and a forged one": {whole, create(func(m object) { m["content"] = object{"room_version": "12", "type": "m.space"} })},
		"and a forged name":          {whole, r.Make(peer.Spec{Type: "m.room.name", StateKey: peer.Key(""), Apart: true, Content: object{"name": "Salary"}}, p.BadSignature()).JSON},
	}
}

// TestHostileInvitations is threats F06 on a whole server: invitations that no room stands behind, or for people who are
// not to be invited, are refused, not signed, and leave nothing behind: no row, nothing that would wake the user.
func TestHostileInvitations(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "F06", "MB-05", "MB-06")
		w := besiege(t, engine, 12, nil)
		q := peer.New(t, w.s.CA, peer.Options{})
		gone := w.s.Register("gone")
		gone.Must("POST", "/account/deactivate", object{"auth": object{
			"type": "m.login.password", "password": testserver.Password, "identifier": object{"type": "m.id.user", "user": "gone"},
		}})
		since, _ := w.alice.Sync("", 0)["next_batch"].(string)
		var rooms []*peer.Room
		invite := func(r *peer.Room, user string, state []json.RawMessage, knobs ...peer.Knob) peer.Answer {
			rooms = append(rooms, r)
			e := r.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(user), Content: object{"membership": "invite"}, Apart: true}, knobs...)
			body, err := json.Marshal(object{"room_version": r.Version.String(), "event": json.RawMessage(e.JSON), "invite_room_state": state})
			if err != nil {
				t.Fatal(err)
			}
			return w.p.Do(t, w.us, "PUT", peer.V2+testserver.Path("invite", string(r.ID), string(e.ID)), body)
		}
		refused := func(what string, a peer.Answer) {
			t.Helper()
			if a.Status != 400 && a.Status != 403 || strings.Contains(string(a.Body), `"signatures"`) {
				t.Errorf("%s: %d %s", what, a.Status, a.Body)
			}
		}
		room := w.p.NewRoom(12, "host")
		for name, state := range forgedCreations(w.p, q, room) {
			refused("with a creation "+name, invite(room, w.alice.ID, state))
		}
		for _, v := range []matrix.RoomVersion{6, 11, 12} {
			r := w.p.NewRoom(v, "host")
			state := []json.RawMessage{r.Create.JSON}
			for user, what := range map[string]string{
				gone.ID: "who is gone", "@nobody:" + string(w.s.Name): "who never was", "@x:other.test": "of another server", string(w.p.User("x")): "of its own",
				string(q.User("x")): "of a third server", "": "without a name", "alice": "that is no user ID", strings.ToUpper(w.alice.ID): "in capitals",
			} {
				refused("version "+v.String()+", for a user "+what, invite(r, user, state))
			}
			refused("version "+v.String()+", unsigned", invite(r, w.alice.ID, state, peer.NoSignature()))
			refused("version "+v.String()+", wrongly signed", invite(r, w.alice.ID, state, w.p.BadSignature()))
			refused("version "+v.String()+", in another's name", invite(r, w.alice.ID, state, peer.Set("sender", string(q.User("x")))))
		}
		refused("into a room that she is in", invite(w.room, w.alice.ID, []json.RawMessage{w.room.Create.JSON}))
		// Every row that anybody could be told of has a position, and so would move the stream on.
		after := w.alice.Sync(since, 0)
		if after["next_batch"] != since || after["rooms"] != nil {
			t.Errorf("from %s a sync leads to %v", since, after)
		}
		for _, r := range rooms {
			if r != w.room && (len(w.s.EventIDs(string(r.ID))) != 0 || len(w.s.Waiting(string(r.ID))) != 0) {
				t.Errorf("of room %s something is held", r.ID)
			}
		}
		if got := members(w.alice, string(w.room.ID)); len(got) != 3 {
			t.Errorf("in the room that alice is in are %v", got)
		}
		if a := invite(room, w.alice.ID, []json.RawMessage{room.Create.JSON}); a.Status != 200 || !strings.Contains(string(a.Body), string(w.s.Name)) {
			t.Errorf("as it should be: %d %s", a.Status, a.Body)
		}
		w.alice.SyncUntil(since, "the one invitation", func(body testserver.JSON) bool {
			invited, _ := testserver.At(body, "rooms", "invite").(testserver.JSON)
			if len(invited) > 1 {
				t.Errorf("alice is invited to %v", invited)
			}
			return invited[string(room.ID)] != nil
		})
	})
}
