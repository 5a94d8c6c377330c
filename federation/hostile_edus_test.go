package federation_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// edu is an EDU as it travels.
func edu(typ string, content any) []byte {
	raw, err := json.Marshal(map[string]any{"edu_type": typ, "content": content})
	if err != nil {
		panic(err)
	}
	return raw
}

type object = map[string]any

// spoofs are EDUs of every type about a user.
func (w *siege) spoofs(user matrix.UserID, event string) [][]byte {
	room := string(w.room.ID)
	return [][]byte{
		edu("m.receipt", object{room: object{"m.read": object{string(user): object{"data": object{"ts": 1}, "event_ids": []string{event}}}}}),
		edu("m.typing", object{"room_id": room, "user_id": user, "typing": true}),
		edu("m.presence", object{"push": []object{{"user_id": user, "presence": "online", "status_msg": "spoofed", "last_active_ago": 1}}}),
		edu("m.device_list_update", object{"user_id": user, "device_id": "SPOOFED", "stream_id": 1, "prev_id": []int{}, "device_display_name": "spoofed"}),
		edu("m.signing_key_update", object{"user_id": user, "master_key": object{"user_id": user, "usage": []string{"master"}, "keys": object{"ed25519:" + strings.Repeat("A", 43): strings.Repeat("A", 43)}}}),
		edu("m.direct_to_device", object{"sender": user, "type": "m.spoofed", "message_id": testserver.Unique("spoofed"), "messages": object{w.alice.ID: object{"*": object{"x": 1}}}}),
	}
}

// TestNobodySpeaksForOthers is threats F18: what a server says about users that are not its own, or about rooms that they
// left, has no effect that alice would see.
func TestNobodySpeaksForOthers(t *testing.T) {
	proof.Of(t, "F18")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiegeServer(t, testserver.Options{Engine: engine, Presence: true}, 12, nil)
		q := peer.New(t, w.s.CA, peer.Options{})
		first := w.message("first")
		gone := w.p.User("gone")
		in := func(membership string) *peer.Event {
			return w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(gone)), Sender: gone, Content: object{"membership": membership}})
		}
		w.send("before", first, in("join"), in("leave"))
		w.sees("first")
		// A second account, whose devices alice has to hear of when they change.
		carol := w.s.Register("carol")
		carol.Join(string(w.room.ID))
		since, _ := w.alice.Sync("", 0)["next_batch"].(string)
		event := string(first.ID)
		var edus [][]byte
		for _, user := range []matrix.UserID{matrix.UserID(w.alice.ID), matrix.UserID(carol.ID), w.p.User("bob"), "@x:other.test", "not a user"} {
			edus = append(edus, w.spoofs(user, event)...)
		}
		q.Send(t, w.us, "spoofed", nil, edus) // q is not in the room, and none of these is its user
		edus = w.spoofs(gone, event)[:2]      // of the room that gone has left
		edus = append(edus, w.spoofs(q.User("eve"), event)[:2]...)
		edus = append(edus, w.spoofs(w.p.User("bob"), "$"+strings.Repeat("A", 43))[0]) // for an event that is not
		w.p.Send(t, w.us, "spoofed", nil, edus)
		last := w.message("last")
		w.send("after", last)
		var seen []string
		w.alice.SyncUntil(since, "the last message", func(body testserver.JSON) bool {
			for _, e := range testserver.Events(testserver.At(body, "rooms", "join", string(w.room.ID), "ephemeral", "events")) {
				seen = append(seen, fmt.Sprint(e))
			}
			for _, part := range []string{"presence", "to_device"} {
				for _, e := range testserver.Events(testserver.At(body, part, "events")) {
					if e["sender"] != w.alice.ID && e["sender"] != carol.ID || strings.Contains(fmt.Sprint(e), "spoofed") { // who is there is no secret
						seen = append(seen, fmt.Sprint(e))
					}
				}
			}
			changed, _ := testserver.At(body, "device_lists", "changed").([]any)
			for _, user := range changed {
				seen = append(seen, fmt.Sprint("devices of ", user))
			}
			return testserver.Has(testserver.Timeline(body, string(w.room.ID)), string(last.ID))
		})
		if len(seen) != 0 {
			t.Errorf("alice sees %q", seen)
		}
		a := w.alice.Must("POST", "/keys/query", object{"device_keys": object{carol.ID: []string{}, w.alice.ID: []string{}}})
		if strings.Contains(string(a.Raw), "SPOOFED") || strings.Contains(string(a.Raw), strings.Repeat("A", 43)) {
			t.Errorf("keys are %s", a.Raw)
		}
		// The same by the server that may say it.
		w.p.Send(t, w.us, "right", nil, w.spoofs(w.p.User("bob"), event)[:3])
		var receipt, presence bool
		w.alice.SyncUntil(since, "bob's receipt and presence", func(body testserver.JSON) bool {
			receipt = receipt || strings.Contains(fmt.Sprint(testserver.At(body, "rooms", "join", string(w.room.ID), "ephemeral")), event)
			presence = presence || slices.ContainsFunc(testserver.Events(testserver.At(body, "presence", "events")), func(e testserver.JSON) bool {
				return e["sender"] == string(w.p.User("bob")) && testserver.At(e, "content", "status_msg") == "spoofed"
			})
			return receipt && presence
		})
	})
}

// TestNonCompliantUsersStayInEvents: a user whose ID has characters that IDs have no more is in the room and speaks, and
// nothing else than events tells alice of it.
func TestNonCompliantUsersStayInEvents(t *testing.T) {
	proof.Of(t, "ID-02", "ID-03")
	w := besiegeServer(t, testserver.Options{Presence: true}, 11, nil)
	odd := w.p.User("Frau Bär")
	join := w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(odd)), Sender: odd, Content: object{"membership": "join"}})
	says := w.room.Make(peer.Spec{Type: "m.room.message", Sender: odd, Content: object{"msgtype": "m.text", "body": "hello"}})
	w.send("joins", join, says)
	w.sees("hello")
	since, _ := w.alice.Sync("", 0)["next_batch"].(string)
	w.p.Send(t, w.us, "odd", nil, w.spoofs(odd, string(says.ID)))
	last := w.message("last")
	w.send("last", last)
	w.alice.SyncUntil(since, "the last message", func(body testserver.JSON) bool {
		if text := fmt.Sprint(body); strings.Contains(text, string(odd)) {
			t.Errorf("alice is told of %s: %s", odd, text)
		}
		return testserver.Has(testserver.Timeline(body, string(w.room.ID)), string(last.ID))
	})
}

// TestDeviceListsCannotBePoisoned is threats F19.
func TestDeviceListsCannotBePoisoned(t *testing.T) {
	proof.Of(t, "F19")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 12, nil)
		bob := w.p.User("bob")
		keys := func(change func(object)) object {
			k := object{
				"user_id": w.alice.ID, "device_id": w.alice.Device, "algorithms": []string{"m.megolm.v1.aes-sha2"},
				"keys": object{"ed25519:" + w.alice.Device: strings.Repeat("A", 43)}, "signatures": object{},
			}
			change(k)
			return object{"device_keys": k}
		}
		for name, body := range map[string]any{
			"a list":               object{"device_keys": []any{}},
			"text":                 object{"device_keys": "keys"},
			"another user's":       keys(func(k object) { k["user_id"] = string(bob) }),
			"another device's":     keys(func(k object) { k["device_id"] = "OTHER" }),
			"keys that are a list": keys(func(k object) { k["keys"] = []any{} }),
			"a mebibyte":           keys(func(k object) { k["keys"] = object{"ed25519:" + w.alice.Device: strings.Repeat("A", 1<<20)} }),
			"wrongly signed": keys(func(k object) {
				k["signatures"] = object{w.alice.ID: object{"ed25519:" + w.alice.Device: strings.Repeat("A", 86)}}
			}),
		} {
			a, err := w.alice.Do("POST", "/keys/upload", body)
			if err != nil || a.Status < 400 || a.Status > 413 {
				t.Errorf("%s: %d %.200s (%v)", name, a.Status, a.Raw, err)
			}
		}
		// What the peer asks about others is not ours to tell.
		for _, user := range []string{"@x:other.test", string(bob), "@nobody:" + string(w.s.Name)} {
			if a := w.p.Do(t, w.us, "GET", peer.V1+testserver.Path("user", "devices", user), nil); a.Status != 404 && a.Status != 403 {
				t.Errorf("devices of %s: %d %s", user, a.Status, a.Body)
			}
			body, _ := json.Marshal(object{"device_keys": object{user: []string{}}})
			if a := w.p.Do(t, w.us, "POST", peer.V1+"/user/keys/query", body); a.Status != 200 || strings.Contains(string(a.Body), `"`+user) {
				t.Errorf("keys of %s: %d %s", user, a.Status, a.Body)
			}
		}
		// Gap after gap: the list is fetched once, when somebody asks, and once more at most.
		w.p.Handle("GET", peer.V1+"/user/devices/{userId}", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: object{"user_id": bob, "stream_id": 1, "devices": []any{
				object{"device_id": "LIST", "keys": []any{}}, object{"device_id": "WRONG", "keys": object{"user_id": "@x:other.test", "device_id": "WRONG", "algorithms": []string{}, "keys": object{}}},
			}}}
		})
		w.p.Handle("POST", peer.V1+"/user/keys/query", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: object{"device_keys": object{string(bob): object{"LIST": []any{}}, "@x:other.test": object{}}}}
		})
		ask := func() string {
			return string(w.alice.Must("POST", "/keys/query", object{"device_keys": object{string(bob): []string{}}}).Raw)
		}
		_ = ask()
		for part := range 10 {
			var edus [][]byte
			for i := range 100 {
				n := 100*part + i
				edus = append(edus, edu("m.device_list_update", object{"user_id": bob, "device_id": fmt.Sprint("D", n%7), "stream_id": 10 + 2*n, "prev_id": []int{9 + 2*n}}))
			}
			w.p.Send(t, w.us, fmt.Sprint("gaps", part), nil, edus)
			if got := ask(); strings.Contains(got, "LIST") || strings.Contains(got, "WRONG") || strings.Contains(got, "other.test") {
				t.Errorf("alice is told %s", got)
			}
		}
		w.alice.Say(string(w.room.ID), "goes on")
		w.p.WaitCalls(t, peer.V1+"/send/", 1)
		if n := len(w.p.Calls(peer.V1 + "/user/devices/")); n == 0 || n > 2 { // at most once a minute
			t.Errorf("1,000 updates with gaps fetched the list %d times", n)
		}
		if n := len(w.p.Calls(peer.V1 + "/user/keys/query")); n > 11 { // alice's own questions
			t.Errorf("11 questions made %d requests", n)
		}
	})
}

// TestSizesAreCountedAlike is threats F17 on a whole server: in bytes of the canonical form, received and sent.
func TestSizesAreCountedAlike(t *testing.T) {
	proof.Of(t, "F17", "PD-08")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 12, nil)
		room := string(w.room.ID)
		sized := func(size int) *peer.Event {
			empty := w.apart("")
			return w.apart(strings.Repeat("x", size-len(empty.JSON)))
		}
		fits, over := sized(matrix.MaxEventSize), sized(matrix.MaxEventSize+1)
		if len(fits.JSON) != 65536 || len(over.JSON) != 65537 {
			t.Fatalf("the events have %d and %d bytes", len(fits.JSON), len(over.JSON))
		}
		long := func(n int) *peer.Event {
			return w.room.Make(peer.Spec{Type: "org.example.x", Sender: w.room.Creator, StateKey: peer.Key(strings.Repeat("\U0001f600", n)), Apart: true})
		}
		v := w.send("sizes", fits, over, long(63), long(64), long(255))
		why, known := v[over.ID]
		if v[fits.ID] != "" || known && why == "" {
			t.Errorf("judged %v", v)
		}
		last := w.message("last")
		w.send("last", last)
		w.sees("last")
		bodies := w.bodies()
		if !slices.ContainsFunc(bodies, func(b string) bool { return len(b) > 60_000 }) || slices.Contains(bodies, over.Members["content"].(map[string]any)["body"].(string)) {
			t.Errorf("the room says %d messages", len(bodies))
		}
		for keys, there := range map[int]bool{63: true, 64: false, 255: false} {
			a, err := w.alice.Do("GET", testserver.Path("rooms", room, "state", "org.example.x", strings.Repeat("\U0001f600", keys)), nil)
			if err != nil || (a.Status == 200) != there {
				t.Errorf("the state under a key of %d bytes: %d (%v)", 4*keys, a.Status, err)
			}
		}
		// Our own: the largest message that is taken is one byte smaller than the smallest that is not.
		own := w.alice.CreateRoom(object{})
		try := func(n int) int {
			a, err := w.alice.Do("PUT", testserver.Path("rooms", own, "send", "m.room.message", testserver.Unique("size")), object{"body": strings.Repeat("y", n), "msgtype": "m.text"})
			if err != nil {
				t.Fatal(err)
			}
			if a.Status != 200 && (a.Status != 413 || a.Body["errcode"] != "M_TOO_LARGE") {
				t.Fatalf("%d bytes: %d %s", n, a.Status, a.Raw)
			}
			return a.Status
		}
		least, most := 60_000, 65_536
		for least+1 < most {
			if mid := (least + most) / 2; try(mid) == 200 {
				least = mid
			} else {
				most = mid
			}
		}
		if least < 64_000 {
			t.Errorf("the largest message has %d bytes", least)
		}
		for n, status := range map[int]int{63: 200, 64: 400} {
			a, err := w.alice.Do("PUT", testserver.Path("rooms", own, "state", "org.example.x", strings.Repeat("\U0001f600", n)), object{})
			if err != nil || a.Status != status && a.Status != 413 || a.Status == 413 && status == 200 {
				t.Errorf("a state key of %d bytes: %d %s (%v)", 4*n, a.Status, a.Raw, err)
			}
		}
	})
}

// TestNumbersByRoomVersion has numbers that canonical JSON forbids in rooms that allow them and in rooms that do not, from
// our own people and from outside.
func TestNumbersByRoomVersion(t *testing.T) {
	proof.Of(t, "JS-02", "JS-03")
	const odd = `{"msgtype":"m.text","body":"odd","half":1.5,"huge":12345678901234567890,"far":1e3}`
	for v, strict := range map[matrix.RoomVersion]bool{5: false, 6: true, 12: true} {
		t.Run("version "+v.String(), func(t *testing.T) {
			w := besiege(t, "sqlite", v, nil)
			a, err := w.alice.Do("PUT", testserver.Path("rooms", string(w.room.ID), "send", "m.room.message", "odd"), []byte(odd))
			if err != nil {
				t.Fatal(err)
			}
			if strict && (a.Status != 400 || a.Body["errcode"] != "M_BAD_JSON") || !strict && a.Status != 200 && a.Body["errcode"] != "M_BAD_JSON" {
				t.Errorf("ours: %d %s", a.Status, a.Raw)
			}
			for _, number := range []string{"1.5", "12345678901234567890", "-9007199254740992"} {
				e := w.room.Make(peer.Spec{Type: "m.room.message", Sender: w.p.User("bob"), Content: object{"body": "odd " + number, "n": json.Number(number)}, Apart: true})
				if v == 5 {
					if why := w.send(number, e)[e.ID]; why != "" {
						t.Errorf("%s: %s", number, why)
					}
					w.sees("odd " + number)
					got := w.alice.Must("GET", testserver.Path("rooms", string(w.room.ID), "event", string(e.ID)), nil)
					if !strings.Contains(string(got.Raw), number) {
						t.Errorf("%s does not survive: %s", number, got.Raw)
					}
					continue
				}
				if why, known := w.send(number, e)[e.ID]; known && why == "" {
					t.Errorf("%s is taken", number)
				}
			}
			last := w.message("last")
			w.send("last", last)
			w.sees("last")
			if strict && slices.ContainsFunc(w.bodies(), func(b string) bool { return strings.HasPrefix(b, "odd") }) {
				t.Errorf("the room says %q", w.bodies())
			}
		})
	}
}
