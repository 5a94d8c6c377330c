package federation_test

import (
	"encoding/json"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestAnInvitationThatLiesAboutTheVersion is threats F06: whoever says of a room that it has another version keeps nobody
// from being invited to it by others, from joining it or from reading on.
func TestAnInvitationThatLiesAboutTheVersion(t *testing.T) {
	proof.Of(t, "F06")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 11, nil)
		q := peer.New(t, w.s.CA, peer.Options{})
		carol, dave := w.s.Register("carol"), w.s.Register("dave")
		for said, real := range map[matrix.RoomVersion]matrix.RoomVersion{1: 11, 2: 12, 11: 1} {
			r := w.p.NewRoom(real, "host")
			r.Host(nil)
			refs := []any{"$x:" + string(q.Name)}
			if said.EventIDsInEvent() {
				refs = []any{[]any{"$x:" + string(q.Name), object{}}}
			}
			member := object{
				"type": "m.room.member", "room_id": string(r.ID), "sender": string(q.User("liar")), "state_key": carol.ID, "depth": 5, "origin_server_ts": 1,
				"content": object{"membership": "invite"}, "prev_events": refs, "auth_events": refs,
			}
			if said.EventIDsInEvent() {
				member["event_id"] = testserver.Unique("$lie") + ":" + string(q.Name)
			}
			invite := func(p *peer.Peer, v matrix.RoomVersion, e *peer.Event) {
				t.Helper()
				body, err := json.Marshal(object{"room_version": v.String(), "event": json.RawMessage(e.JSON), "invite_room_state": []json.RawMessage{r.Create.JSON}})
				if err != nil {
					t.Fatal(err)
				}
				if a := p.Do(t, w.us, "PUT", peer.V2+testserver.Path("invite", string(r.ID), string(e.ID)), body); a.Status != 200 {
					t.Fatalf("version %s, said to be %s: %d %s", real, v, a.Status, a.Body)
				}
			}
			invite(q, said, q.Seal(said, member))
			since := carol.SyncUntil("", "the lie", section("invite", string(r.ID)))
			invite(w.p, real, r.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(dave.ID), Content: object{"membership": "invite"}}))
			dave.SyncUntil("", "the invitation", section("invite", string(r.ID)))
			carol.SyncUntil("", "the lie, from the beginning", section("invite", string(r.ID)))
			dave.Join(string(r.ID), string(w.p.Name))
			// Inside the room nobody knows of the lie: it ends there, since carol could not decline it.
			carol.SyncUntil(since, "its end", section("leave", string(r.ID)))
			if now := carol.Sync("", 0); section("invite", string(r.ID))(now) {
				t.Errorf("version %s: carol is still invited", real)
			}
			carol.Join(string(r.ID))
			dave.SyncUntil("", "carol's join", func(testserver.JSON) bool { return slices.Contains(members(dave, string(r.ID)), carol.ID) })
		}
	})
}
