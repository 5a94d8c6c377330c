package federation_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// siege is a whole server whose user is in a room of a homeserver that signs what it sends and lies.
type siege struct {
	t     *testing.T
	s     *testserver.Server
	p     *peer.Peer
	us    peer.Target
	alice *testserver.User
	room  *peer.Room
}

// besiege makes a siege. spoil is how the peer answers, nil for honestly.
func besiege(t *testing.T, engine string, v matrix.RoomVersion, spoil peer.Spoiler) *siege {
	t.Helper()
	return besiegeServer(t, testserver.Options{Engine: engine}, v, spoil)
}

// besiegeServer is besiege for a server with options.
func besiegeServer(t *testing.T, o testserver.Options, v matrix.RoomVersion, spoil peer.Spoiler) *siege {
	t.Helper()
	w := &siege{t: t, s: testserver.Start(t, o)}
	w.p = peer.New(t, w.s.CA, peer.Options{})
	w.us = peer.Target{Server: w.s.Name, URL: "https://" + string(w.s.Name)}
	w.alice = w.s.Register("alice")
	w.room = w.p.NewRoom(v, "mallory")
	w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(w.p.User("bob"))), Sender: w.p.User("bob"), Content: map[string]any{"membership": "join"}})
	w.room.Host(spoil)
	w.alice.Join(string(w.room.ID), string(w.p.Name))
	return w
}

// message makes a message of the peer's user bob.
func (w *siege) message(body string, knobs ...peer.Knob) *peer.Event {
	return w.room.Make(peer.Spec{Type: "m.room.message", Sender: w.p.User("bob"), Content: map[string]any{"msgtype": "m.text", "body": body}}, knobs...)
}

// apart makes a message that is no part of the room.
func (w *siege) apart(body string, knobs ...peer.Knob) *peer.Event {
	return w.room.Make(peer.Spec{Type: "m.room.message", Sender: w.p.User("bob"), Content: map[string]any{"msgtype": "m.text", "body": body}, Apart: true}, knobs...)
}

func (w *siege) send(txn string, events ...*peer.Event) peer.Verdicts {
	w.t.Helper()
	var pdus [][]byte
	for _, e := range events {
		pdus = append(pdus, e.JSON)
	}
	return w.p.Send(w.t, w.us, txn, pdus, nil)
}

// bodies are the texts of the room's newest messages as alice sees them, newest first.
func (w *siege) bodies() (all []string) {
	w.t.Helper()
	a := w.alice.Must("GET", testserver.Path("rooms", string(w.room.ID), "messages")+"?dir=b&limit=1000", nil)
	for _, e := range testserver.Events(testserver.At(a.Body, "chunk")) {
		if body, ok := testserver.At(e, "content", "body").(string); ok {
			all = append(all, body)
		}
	}
	return all
}

// sees waits until alice sees a message.
func (w *siege) sees(body string) {
	w.t.Helper()
	wait.Until(w.t, "the message "+body, func() bool { return slices.Contains(w.bodies(), body) })
}

// corpus are two hundred items of transactions that are no events of the room: broken texts, every member of an event
// with values that do not belong there, numbers that nobody can write again, texts that no database wants.
func (w *siege) corpus() (items [][]byte) {
	raw := func(texts ...string) {
		for _, text := range texts {
			items = append(items, []byte(text))
		}
	}
	room := string(w.room.ID)
	raw(`1`, `-1`, `null`, `true`, `"text"`, `""`, `[]`, `[[]]`, `{}`, `{"":""}`, `{"room_id":1}`, `{"room_id":null}`, `{"room_id":"!none:x.test"}`,
		`{"room_id":"\ud800"}`, `{"room_id":"\udc00\ud800"}`, "{\"room_id\":\"\xff\"}", "{\"room_id\":\"\xed\xa0\x80\"}", "{\"room_id\":\"\xc0\xaf\"}",
		`{"a":1,"a":2}`, `{"a":1e400}`, `{"a":-0}`, `{"a":0.1}`, `{"a":99999999999999999999999999}`, `{"room_id":"`+room+"\\u0000"+`"}`,
		strings.Repeat("[", 80)+strings.Repeat("]", 80), strings.Repeat(`{"a":`, 70)+"1"+strings.Repeat("}", 70),
		fmt.Sprintf(`{"room_id":%q}`, room), fmt.Sprintf(`{"room_id":%q,"type":"m.room.message"}`, room),
		fmt.Sprintf(`{"room_id":%q,"content":%q}`, room, strings.Repeat("x", 300<<10)),
		fmt.Sprintf(`{"room_id":%q,"content":[%s0]}`, room, strings.Repeat("0,", 20_000)))
	bad := func(knobs ...peer.Knob) {
		items = append(items, w.apart(fmt.Sprint("bad ", len(items)), knobs...).JSON)
	}
	number := func(text string) json.Number { return json.Number(text) }
	odd := []any{
		nil, true, 1, number("-1"), number("1.5"), number("9007199254740992"), number("9223372036854775807"), number("18446744073709551616"), "", "x",
		"a\x00b", strings.Repeat("x", 256), []any{}, []any{1}, []any{"x", 1}, map[string]any{}, map[string]any{"a": nil},
	}
	fits := map[string][]string{ // what does belong there
		"content": {"map[]", "map[a:<nil>]"}, "type": {"x", "", "a\x00b"}, "depth": {"1"}, "origin_server_ts": {"1", "-1"}, "prev_events": {}, "auth_events": {},
		"hashes": {}, "sender": {}, "room_id": {}, "state_key": {"<nil>"}, "signatures": {},
	}
	for _, member := range []string{"type", "sender", "room_id", "content", "depth", "origin_server_ts", "prev_events", "auth_events", "hashes", "state_key", "signatures"} {
		for _, value := range odd {
			if slices.Contains(fits[member], fmt.Sprint(value)) {
				continue
			}
			knob := peer.Set
			if member == "hashes" || member == "signatures" {
				knob = peer.SetLate
			}
			bad(knob(member, value))
		}
	}
	bad(peer.NoSignature())
	bad(w.p.BadSignature())
	bad(peer.DuplicateMember(`"type":"m.room.message"`))
	bad(peer.DuplicateMember(`"z":1.5`))
	bad(peer.Set("content", map[string]any{"body": "bad", "n": number("1e3")}))
	bad(peer.Set("prev_events", slices.Repeat([]any{"$x"}, 21)))
	bad(peer.Set("auth_events", slices.Repeat([]any{"$x"}, 11)))
	bad(peer.Set("content", map[string]any{"body": strings.Repeat("bad", 30_000)}))
	return items
}

// TestHostileItems is threats F16: whatever stands beside it in its transaction, the one good event arrives; before and
// after a restart, on either database.
func TestHostileItems(t *testing.T) {
	proof.Of(t, "F16", "PD-05", "JS-02")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 12, nil)
		items := w.corpus()
		if len(items) < 200 {
			t.Fatalf("only %d hostile items", len(items))
		}
		for life := range 2 {
			n := 0
			for part := range slices.Chunk(items, 49) {
				n++
				body := fmt.Sprintf("good %d.%d", life, n)
				good := w.message(body)
				at := (n * 13) % (len(part) + 1) // among the others
				pdus := slices.Insert(slices.Clone(part), at, good.JSON)
				verdicts := w.p.Send(t, w.us, body, pdus, nil)
				if v, ok := verdicts[good.ID]; !ok || v != "" {
					t.Errorf("%s is judged %q (%v)", body, v, ok)
				}
				w.sees(body)
			}
			for _, body := range w.bodies() {
				if strings.Contains(body, "bad") {
					for _, item := range items {
						if strings.Contains(string(item), `"`+body+`"`) {
							t.Errorf("alice sees %.300s", item)
						}
					}
				}
			}
			w.s.Stop()
			if out, ok := w.s.Run("verify", "-full"); !ok {
				t.Errorf("the database after %d items: %s", len(items), out)
			}
			w.s.Start()
		}
		w.alice.Say(string(w.room.ID), "and on")
	})
}

// TestCommandsFromOutside is threats F24: what a stranger writes in a room is never a command.
func TestCommandsFromOutside(t *testing.T) {
	proof.Of(t, "F24")
	w := besiege(t, "sqlite", 12, nil)
	commands := []string{
		"!admin users create eve", "\\!admin users create eve", "!conclave deactivate @alice", "/admin make @bob", "@conclave: !admin debug", "!admin\nusers list",
		"`!admin federation disable`", "!admin\n```\nusers\n```", "\u200b!admin users make-admin @bob", "! admin help", "!ADMIN help",
	}
	var events []*peer.Event
	for _, text := range commands {
		events = append(events, w.message(text))
		events = append(events, w.room.Make(peer.Spec{Type: "m.room.message", Sender: w.p.User("bob"), Content: map[string]any{
			"msgtype": "m.notice", "body": text, "format": "org.matrix.custom.html", "formatted_body": "<b>" + text + "</b>", "m.mentions": map[string]any{"user_ids": []string{w.alice.ID}},
		}}))
	}
	accounts, _ := w.s.Run("user list")
	w.send("commands", events...)
	wait.Until(t, "all that was said", func() bool { return len(w.bodies()) == len(events) })
	if calls := w.p.Calls(peer.V1 + "/send/"); len(calls) != 0 {
		t.Errorf("the server answered with %s", calls[0].Body)
	}
	if after, _ := w.s.Run("user list"); after != accounts {
		t.Errorf("the accounts were %q and are %q", accounts, after)
	}
}

// TestTransactionsAreTakenOnce is threats F26 on a whole server: three times at once, and again after its answer was
// cut off.
func TestTransactionsAreTakenOnce(t *testing.T) {
	proof.Of(t, "F26", "FD-15")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiege(t, engine, 12, nil)
		toDevice := func(id string) []byte {
			return fmt.Appendf(nil, `{"edu_type":"m.direct_to_device","content":{"type":"m.test","sender":%q,"message_id":%q,"messages":{%q:{%q:{"id":%q}}}}}`,
				w.p.User("bob"), id, w.alice.ID, w.alice.Device, id)
		}
		e := w.message("three times")
		answers := make([]peer.Answer, 3)
		body := peer.Transaction(w.p.Name, [][]byte{e.JSON}, [][]byte{toDevice("one")})
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = w.p.Do(t, w.us, "PUT", peer.V1+"/send/parallel", body) })
		}
		wg.Wait()
		for _, a := range answers {
			if a.Status != 200 || string(a.Body) != string(answers[0].Body) {
				t.Errorf("answered %d %s", a.Status, a.Body)
			}
		}
		w.sees("three times")

		cut := w.message("cut off")
		body = peer.Transaction(w.p.Name, [][]byte{cut.JSON}, [][]byte{toDevice("two")})
		hangUp := w.p.DoAndHangUp(t, w.us, "PUT", peer.V1+"/send/cut", body)
		w.sees("cut off")
		hangUp()
		if v := w.send("cut", cut); len(v) != 1 || v[cut.ID] != "" {
			t.Errorf("answered %v", v)
		}
		// The same event and message in another transaction are no other event and message.
		w.p.Send(t, w.us, "another", [][]byte{e.JSON, cut.JSON}, [][]byte{toDevice("one"), toDevice("two")})
		last := w.message("last")
		w.send("last", last)
		w.sees("last")
		if got := w.bodies(); !slices.Equal(got, []string{"last", "cut off", "three times"}) {
			t.Errorf("the room says %q", got)
		}
		var got []string
		for _, m := range testserver.Events(testserver.At(w.alice.Sync("", 0), "to_device", "events")) {
			got = append(got, fmt.Sprint(testserver.At(m, "content", "id")))
		}
		if !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("alice's device got %q", got)
		}
	})
}
