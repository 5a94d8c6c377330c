package federation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// nul is a text that JSON can say and no database can hold.
const nul = "a\x00b"

// TestTextsThatNoDatabaseHolds is threats F16: wherever a server can say a text with a NUL, or a longer one than an index
// takes, it is passed over or refused by itself, and what comes with it is taken.
func TestTextsThatNoDatabaseHolds(t *testing.T) {
	proof.Of(t, "F16")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 11, nil)
		room, bob, us := string(w.room.ID), string(w.p.User("bob")), string(w.s.Name)
		first := w.message("first")
		w.send("first", first)
		w.sees("first")

		for path, body := range map[string]object{
			"/user/keys/query": {"device_keys": object{"@" + nul + ":" + us: []string{}, w.alice.ID: []string{}}},
			"/user/keys/claim": {"one_time_keys": object{"@" + nul + ":" + us: object{"D": "a"}, w.alice.ID: object{w.alice.Device: nul}}},
		} {
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			if a := w.p.Do(t, w.us, "POST", peer.V1+path, raw); a.Status != 200 {
				t.Errorf("%s: %d %s", path, a.Status, a.Body)
			}
		}

		receipt := func(room, thread, event string) []byte {
			return edu("m.receipt", object{room: object{"m.read": object{bob: object{"data": object{"ts": 1, "thread_id": thread}, "event_ids": []string{event}}}}})
		}
		devices := func(change func(object)) []byte {
			u := object{"user_id": bob, "device_id": "D", "stream_id": 2, "prev_id": []int{1}, "device_display_name": "D"}
			change(u)
			return edu("m.device_list_update", u)
		}
		// Bob's list is held, so that updates of it are stored.
		w.p.Handle("GET", peer.V1+"/user/devices/{userId}", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: object{"user_id": bob, "stream_id": 1, "devices": []any{}}}
		})
		w.p.Handle("POST", peer.V1+"/user/keys/query", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: object{"device_keys": object{bob: object{}}}}
		})
		w.alice.Must("POST", "/keys/query", object{"device_keys": object{bob: []string{}}})
		w.p.Send(t, w.us, "list", nil, [][]byte{devices(func(u object) { u["stream_id"], u["prev_id"] = 1, []int{} })})
		w.p.WaitCalls(t, peer.V1+"/user/devices/", 1)
		second := w.message("second")
		w.p.Send(t, w.us, "texts", [][]byte{second.JSON}, [][]byte{
			edu("m.typing", object{"room_id": "!" + nul, "user_id": bob, "typing": true}),
			edu("m.typing", object{"room_id": nul, "user_id": bob, "typing": true}),
			edu("m.typing", object{"room_id": room, "user_id": "@" + nul + ":" + string(w.p.Name), "typing": true}),
			receipt("!"+nul, "", string(first.ID)), receipt(room, nul, string(first.ID)), receipt(room, "", "$"+nul),
			edu("m.direct_to_device", object{"sender": bob, "type": "m.x", "message_id": nul, "messages": object{w.alice.ID: object{"*": object{}}}}),
			edu("m.direct_to_device", object{"sender": bob, "type": nul, "message_id": "a", "messages": object{w.alice.ID: object{nul: object{"a": nul}}}}),
			edu("m.presence", object{"push": []object{{"user_id": bob, "presence": "online", "status_msg": nul, "last_active_ago": 1}}}),
			edu("m.signing_key_update", object{"user_id": bob, "master_key": object{"user_id": bob, "usage": []string{nul}, "keys": object{nul: nul}}}),
			devices(func(u object) { u["device_id"] = nul }),
			devices(func(u object) { u["device_display_name"] = nul }),
			devices(func(u object) { u["stream_id"], u["prev_id"], u["keys"] = 3, []int{2}, object{"a": nul} }),
		})
		w.sees("second")

		// Of events: what they follow and cite, and a type that an index of relations would hold.
		long := "$" + strings.Repeat("x", 4000)
		pdus := [][]byte{}
		for _, name := range []string{"prev_events", "auth_events"} {
			for _, id := range []string{"$" + nul, long, "x", ""} {
				pdus = append(pdus, w.apart("bad", peer.Set(name, []any{id})).JSON)
			}
		}
		odd := w.room.Make(peer.Spec{Type: "m." + nul, Sender: matrix.UserID(bob), Content: object{
			"body": "odd " + nul, "m.relates_to": object{"rel_type": "m.reference", "event_id": string(first.ID)},
		}})
		related := w.room.Make(peer.Spec{Type: "m.room.message", Sender: matrix.UserID(bob), Content: object{
			"body": "related", "m.relates_to": object{"rel_type": nul, "event_id": nul},
		}})
		w.p.Send(t, w.us, "events", append(pdus, odd.JSON, related.JSON, w.message("third").JSON), nil)
		w.sees("third")
		w.sees("related")
		w.sees("odd " + nul)
		wait.Until(t, "nothing waits", func() bool { return len(w.s.Waiting(room)) == 0 })

		// A room that names its policy server so has none, and one that lets in the members of such a room lets in nobody.
		policy := w.room.Make(peer.Spec{Type: "m.room.policy", StateKey: peer.Key(""), Content: object{"via": nul, "public_keys": object{"ed25519": "a"}}})
		rules := w.room.Make(peer.Spec{Type: "m.room.join_rules", StateKey: peer.Key(""), Content: object{
			"join_rule": "restricted", "allow": []object{{"type": "m.room_membership", "room_id": "!" + nul}},
		}})
		w.send("state", policy, rules, w.message("fourth"))
		w.sees("fourth")
		w.alice.Say(room, "goes on")
		carol := w.s.Register("carol")
		space := w.alice.CreateRoom(object{"preset": "public_chat", "creation_content": object{"type": "m.space"}})
		w.alice.Must("PUT", testserver.Path("rooms", space, "state", "m.space.child", room), object{"via": []string{us}})
		carol.Must("GET", "/_matrix/client/v1"+testserver.Path("rooms", space, "hierarchy"), nil)
		carol.Refused(403, "M_FORBIDDEN", "POST", testserver.Path("join", room), object{})
	})
}
