package federation

import (
	"encoding/json"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// TestInvitationsComeBackAsTheyWere is threats F04 on an answer to us: the server of whom we invite signs the invitation,
// and whatever else it makes of it, in our user's name, does not come into the room.
func TestInvitationsComeBackAsTheyWere(t *testing.T) {
	proof.Of(t, "F04")
	type members = map[string]any
	content := func(name string, value any) func(members) {
		return func(m members) { m["content"].(members)[name] = value }
	}
	forged := map[string]func(members){
		"another reason":      content("reason", "forged"),
		"another name":        content("displayname", "forged"),
		"a membership":        content("membership", "join"),
		"something besides":   func(m members) { m["forged"] = true },
		"without its content": func(m members) { m["content"] = members{"membership": "invite"}; m["hashes"] = members{} },
		"power levels": func(m members) {
			m["type"], m["state_key"], m["content"] = "m.room.power_levels", "", members{"users": members{m["sender"].(string): 100, "@mallory:x.test": 100}}
		},
		"a ban of the inviter": func(m members) { m["state_key"], m["content"] = m["sender"], members{"membership": "ban"} },
	}
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		bob := w.p.User("bob")
		for _, v := range []matrix.RoomVersion{1, 2, 3, 11, 12} {
			ref := w.room(v, "private_chat")
			invite := func(change func(members)) error {
				w.p.Handle("PUT", v2+"/invite/{roomId}/{eventId}", func(c *peer.Call) peer.Reply {
					var body struct {
						Event json.RawMessage `json:"event"`
					}
					c.JSON(t, &body)
					var event members
					if err := json.Unmarshal(body.Event, &event); err != nil {
						t.Error(err)
					}
					signatures, _ := event["signatures"].(members)
					signatures[string(w.p.Name)] = members{string(w.p.KeyID): matrix.EncodeBase64(make([]byte, signatureSize))}
					change(event)
					return peer.Reply{Body: members{"event": event}}
				})
				_, err := w.rooms.Invite(t.Context(), rooms.MemberRequest{Room: ref, Sender: w.user("alice"), Target: bob, Reason: "said by alice"})
				return err
			}
			state, err := w.rooms.CurrentState(t.Context(), ref.NID)
			if err != nil {
				t.Fatal(err)
			}
			for name, change := range forged {
				if err := invite(change); err == nil {
					t.Errorf("version %s, %s: taken", v, name)
				}
				if now, err := w.rooms.CurrentState(t.Context(), ref.NID); err != nil || now != state {
					t.Fatalf("version %s, %s: the room is another (%v)", v, name, err)
				}
			}
			// As it was, and without our signature: ours stays, theirs comes to it.
			err = invite(func(m members) { delete(m["signatures"].(members), ourName) })
			if err != nil {
				t.Fatalf("version %s: %v", v, err)
			}
			if state, err = w.rooms.CurrentState(t.Context(), ref.NID); err != nil {
				t.Fatal(err)
			}
			row, err := w.rooms.StateEvent(t.Context(), ref.NID, state, "m.room.member", string(bob))
			if err != nil || row == nil {
				t.Fatalf("version %s: the invitation is not there (%v)", v, err)
			}
			reason, _ := matrix.GetString(row.Event.Content(), "reason")
			if reason != "said by alice" || !row.Event.CheckContentHash() || len(row.Event.SignatureKeys(ourName)) != 1 || len(row.Event.SignatureKeys(w.p.Name)) != 1 {
				t.Errorf("version %s: the invitation is %s", v, row.Event.JSON())
			}
		}
	})
}
