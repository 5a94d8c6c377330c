package federation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// guest is a peer's idea of one of our rooms, enough to make events in it.
type guest struct {
	w    *houseWorld
	p    *peer.Peer
	ref  rooms.Ref
	user matrix.UserID
	auth []any // of its user's messages
}

// guestIn brings a user of the peer into a room and learns what its events cite.
func (w *houseWorld) guestIn(p *peer.Peer, ref rooms.Ref, user matrix.UserID) *guest {
	w.t.Helper()
	join, a := w.joins(p, ref, user)
	var welcome struct {
		State []json.RawMessage `json:"state"`
	}
	if err := matrix.Decode(a.Body, &welcome); err != nil {
		w.t.Fatal(err)
	}
	g := &guest{w: w, p: p, ref: ref, user: user, auth: []any{string(join.ID)}}
	for _, raw := range welcome.State {
		ev, err := matrix.ParseEvent(raw, ref.Version)
		if err != nil {
			w.t.Fatal(err)
		}
		if ev.Type() == "m.room.power_levels" || ev.Type() == "m.room.create" && !ref.Version.RoomIDIsCreateHash() {
			g.auth = append(g.auth, string(ev.ID()))
		}
	}
	return g
}

// message makes a message of the guest's on the room's present.
func (g *guest) message(text string, knobs ...peer.Knob) *peer.Event {
	g.w.t.Helper()
	var head *store.EventRow
	err := g.w.db.Read(g.w.t.Context(), func(tx *store.Tx) (err error) {
		head, err = tx.Head(g.ref.NID)
		return err
	})
	if err != nil {
		g.w.t.Fatal(err)
	}
	return g.p.Seal(g.ref.Version, map[string]any{
		"type": "m.room.message", "sender": string(g.user), "room_id": string(g.ref.ID), "depth": head.Event.Depth() + 1,
		"content": map[string]any{"msgtype": "m.text", "body": text}, "prev_events": []any{string(head.Event.ID())},
		"auth_events": g.auth, "origin_server_ts": g.w.clk.now().UnixMilli(),
	}, knobs...)
}

// send sends a transaction of raw items.
func (w *houseWorld) send(p *peer.Peer, txn string, pdus, edus []string) peer.Answer {
	w.t.Helper()
	body := fmt.Sprintf(`{"origin":%q,"origin_server_ts":1,"pdus":[%s],"edus":[%s]}`, p.Name, strings.Join(pdus, ","), strings.Join(edus, ","))
	return p.Do(w.t, w.us, "PUT", v1+"/send"+seg(txn), []byte(body))
}

// arrives waits until an event is in its room.
func (w *houseWorld) arrives(ref rooms.Ref, id matrix.EventID) {
	w.t.Helper()
	wait.Until(w.t, string(id)+" in its room", func() bool {
		row, err := w.rooms.EventInRoom(w.t.Context(), ref.NID, id)
		return err == nil && row.Visible()
	})
}

func accepted(t *testing.T, a peer.Answer) map[matrix.EventID]map[string]any {
	t.Helper()
	var body struct {
		PDUs map[matrix.EventID]map[string]any `json:"pdus"`
	}
	if a.Status != 200 || json.Unmarshal(a.Body, &body) != nil {
		t.Fatalf("answered %d %s", a.Status, a.Body)
	}
	return body.PDUs
}

// TestBrokenItemsSpoilNothingElse is threats F16.
func TestBrokenItemsSpoilNothingElse(t *testing.T) {
	proof.Of(t, "F16", "ED-07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		good := g.message("good")
		pdus := []string{
			`1`, `null`, `"text"`, `[]`, `{}`, `{"room_id":1}`, `{"room_id":"!none:x.test"}`, `{"a":1,"a":2}`, `{"a":1e400}`, `{"room_id":"\ud800"}`,
			`{"room_id":"` + "\xff" + `"}`, strings.Repeat("[", 80) + strings.Repeat("]", 80), strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70),
			fmt.Sprintf(`{"room_id":%q,"type":"m.room.message"}`, ref.ID),
			fmt.Sprintf(`{"room_id":%q,"content":%q}`, ref.ID, strings.Repeat("x", 300<<10)),
		}
		for _, knobs := range [][]peer.Knob{
			{peer.Set("depth", json.Number("9223372036854775807"))}, {peer.Set("depth", json.Number("-1"))}, {peer.Set("depth", "1")},
			{peer.Set("depth", json.Number("1.5"))}, {peer.Set("depth", nil)}, {peer.Set("type", strings.Repeat("x", 256))},
			{peer.Set("sender", "@x:other.test")}, {peer.Set("sender", "nobody")}, {peer.Set("content", "text")}, {peer.Set("room_id", "!none:x.test")},
			{peer.Set("auth_events", "$x")}, {peer.Set("prev_events", slices.Repeat([]any{"$x"}, 21))}, {peer.Set("origin_server_ts", "now")},
			{peer.NoSignature()}, {w.p.BadSignature()}, {peer.DuplicateMember(`"type":"m.room.message"`)}, {peer.DuplicateMember(`"z":1.5`)},
		} {
			pdus = append(pdus, string(g.message("bad", knobs...).JSON))
		}
		bad := len(pdus)
		pdus = append(pdus, string(good.JSON))
		edus := []string{`1`, `null`, `{}`, `{"edu_type":"m.typing"}`, `{"edu_type":"m.typing","content":[]}`, `{"edu_type":"m.receipt","content":{"a":1}}`,
			`{"edu_type":"org.example.unknown","content":{}}`, `{"edu_type":"m.receipt","edu_type":"m.receipt","content":{}}`}
		verdicts := accepted(t, w.send(w.p, "broken", pdus, edus))
		if v, ok := verdicts[good.ID]; !ok || len(v) != 0 {
			t.Errorf("the good event is judged %v", verdicts)
		}
		delete(verdicts, good.ID)
		for id, v := range verdicts {
			if v["error"] == nil {
				t.Errorf("%s of %d bad ones is judged %v", id, bad, v)
			}
		}
		w.arrives(ref, good.ID)
		if again := accepted(t, w.send(w.p, "broken", pdus, edus)); len(again[good.ID]) != 0 {
			t.Errorf("repeated, it is answered %v", again)
		}
	})
}

// TestATransactionHasItsEffectOnce is threats F26.
func TestATransactionHasItsEffectOnce(t *testing.T) {
	proof.Of(t, "F26")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		e := g.message("once")
		var wg sync.WaitGroup
		answers := make([]peer.Answer, 6)
		for i := range answers {
			wg.Go(func() { answers[i] = w.send(w.p, "same", []string{string(e.JSON)}, nil) })
		}
		wg.Wait()
		for _, a := range answers {
			if a.Status != 200 || string(a.Body) != string(answers[0].Body) {
				t.Errorf("answered %d %s", a.Status, a.Body)
			}
		}
		w.arrives(ref, e.ID)
		// The same ID with another content is the same transaction; another server's is its own.
		other := g.message("never")
		if a := w.send(w.p, "same", []string{string(other.JSON)}, nil); string(a.Body) != string(answers[0].Body) {
			t.Errorf("answered %s", a.Body)
		}
		q := peer.New(t, w.ca, peer.Options{})
		if v := accepted(t, w.send(q, "same", nil, nil)); len(v) != 0 {
			t.Errorf("another server's transaction is answered %v", v)
		}
		last := g.message("last")
		w.send(w.p, "next", []string{string(last.JSON)}, nil)
		w.arrives(ref, last.ID)
		if _, err := w.rooms.EventInRoom(t.Context(), ref.NID, other.ID); err == nil {
			t.Error("a transaction has had a second effect")
		}
	})
}

func TestTransactionsAreBounded(t *testing.T) {
	proof.Of(t, "FD-15")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		for name, a := range map[string]peer.Answer{
			"51 events":    w.send(w.p, "a", slices.Repeat([]string{"{}"}, 51), nil),
			"101 EDUs":     w.send(w.p, "b", nil, slices.Repeat([]string{"{}"}, 101)),
			"no lists":     w.p.Do(t, w.us, "PUT", v1+"/send/c", []byte(`{"pdus":{}}`)),
			"no object":    w.p.Do(t, w.us, "PUT", v1+"/send/d", []byte(`[]`)),
			"a long ID":    w.send(w.p, strings.Repeat("x", 256), nil, nil),
			"11 megabytes": w.send(w.p, "e", []string{`"` + strings.Repeat("x", 11<<20) + `"`}, nil),
		} {
			if a.Status != 400 && a.Status != 413 {
				t.Errorf("%s: %d %.200s", name, a.Status, a.Body)
			}
		}
	})
}

func TestOldTransactionsAreForgotten(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		w.p.Handle("GET", "/_matrix/key/v2/server", func(*peer.Call) peer.Reply {
			return peer.Reply{Body: w.p.KeyDocument(func(doc map[string]any) {
				doc["valid_until_ts"] = w.clk.now().Add(24 * time.Hour).UnixMilli()
			})}
		})
		known := func(id string) (found bool) {
			from, err := db.Server(t.Context(), w.p.Name)
			if err == nil {
				err = db.Read(t.Context(), func(tx *store.Tx) (err error) {
					_, found, err = tx.InboundTxn(from, id)
					return err
				})
			}
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		accepted(t, w.send(w.p, "old", nil, nil))
		w.clk.add(7 * 24 * time.Hour)
		accepted(t, w.send(w.p, "new", nil, nil))
		if !known("old") {
			t.Error("a transaction is forgotten within a week")
		}
		w.clk.add(25 * time.Hour)
		accepted(t, w.send(w.p, "newest", nil, nil))
		if known("old") || !known("new") {
			t.Errorf("old is known: %v, new: %v", known("old"), known("new"))
		}
	})
}

// TestSpoofedEDUsHaveNoEffect is threats F18, and F20 for EDUs.
func TestSpoofedEDUsHaveNoEffect(t *testing.T) {
	proof.Of(t, "F18", "F20", "ED-01", "ED-03")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref, other := w.room(11, "public_chat"), w.room(11, "public_chat")
		bob, gone := w.p.User("bob"), w.p.User("gone")
		w.guestIn(w.p, ref, bob)
		w.joins(w.p, ref, gone)
		w.leaves(w.p, ref, gone)
		id, foreign := w.say(ref, "alice", "read this"), w.say(other, "alice", "not this")
		receipt := func(room matrix.RoomID, typ string, user matrix.UserID, id matrix.EventID) string {
			return fmt.Sprintf(`{"edu_type":"m.receipt","content":{%q:{%q:{%q:{"data":{"ts":5},"event_ids":[%q]}}}}}`, room, typ, user, id)
		}
		typing := func(room matrix.RoomID, user matrix.UserID) string {
			return fmt.Sprintf(`{"edu_type":"m.typing","content":{"room_id":%q,"user_id":%q,"typing":true}}`, room, user)
		}
		accepted(t, w.send(w.p, "spoofed", nil, []string{
			receipt(ref.ID, "m.read", "@alice:us.test", id), receipt(ref.ID, "m.read", "@x:other.test", id), receipt(ref.ID, "m.read", gone, id),
			receipt(ref.ID, "m.read", bob, foreign), receipt(ref.ID, "m.read", bob, "$none"), receipt(other.ID, "m.read", bob, foreign),
			receipt(ref.ID, "m.read.private", bob, id), receipt(ref.ID, "m.fully_read", bob, id), receipt("!none:x.test", "m.read", bob, id),
			fmt.Sprintf(`{"edu_type":"m.receipt","content":{%q:{"m.read":{%q:{"data":{"ts":5},"event_ids":[%q,%q]}}}}}`, ref.ID, bob, id, id),
			typing(ref.ID, "@alice:us.test"), typing(ref.ID, "@x:other.test"), typing(ref.ID, gone), typing(other.ID, bob), typing("!none:x.test", bob),
		}))
		if got := w.receipts(ref, other); len(got) != 0 || len(w.typed()) != 0 {
			t.Errorf("receipts %v, typing %v", got, w.typed())
		}
		accepted(t, w.send(w.p, "good", nil, []string{
			receipt(ref.ID, "m.read", bob, id), receipt(ref.ID, "im.conclave.delivered", bob, id), typing(ref.ID, bob),
		}))
		want := []string{fmt.Sprint(bob, " 1 ", id), fmt.Sprint(bob, " 3 ", id)}
		if got := w.receipts(ref, other); !slices.Equal(got, want) {
			t.Errorf("receipts are %v, want %v", got, want)
		}
		if got := w.typed(); !slices.Equal(got, []string{string(bob)}) {
			t.Errorf("typing are %v", got)
		}
		w.setState(ref, "m.room.server_acl", "", `{"allow":["*"],"deny":["localhost"]}`)
		later := w.say(ref, "alice", "and this")
		accepted(t, w.send(w.p, "shut out", nil, []string{receipt(ref.ID, "m.read", bob, later), typing(ref.ID, bob)}))
		if got := w.receipts(ref, other); !slices.Equal(got, want) || len(w.typed()) != 1 {
			t.Errorf("receipts are %v, typing %v", got, w.typed())
		}
	})
}

// receipts are all public receipts of rooms.
func (w *houseWorld) receipts(refs ...rooms.Ref) (all []string) {
	w.t.Helper()
	err := w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		all = nil
		for _, ref := range refs {
			err := tx.Receipts(ref.NID, w.user("alice").NID, 0, 1<<60, 100, func(r store.Receipt) {
				all = append(all, fmt.Sprint(r.UserID, " ", r.Kind, " ", r.Event))
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}
