package rooms

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// TestHostileJoin has the server that we join through lie, one lie at a time. None of them may make the room appear.
func TestHostileJoin(t *testing.T) {
	swap := func(w *world, typ, with string) func(string, json.RawMessage) json.RawMessage {
		return func(call string, raw json.RawMessage) json.RawMessage {
			if name, _ := matrix.GetString(raw, "type"); call == "send_join" && name == typ {
				if with == "" {
					return nil
				}
				return json.RawMessage(with)
			}
			return raw
		}
	}
	lies := map[string]func(w *world){
		"no creation": func(w *world) { w.spoil = swap(w, "m.room.create", "") },
		"another room's creation": func(w *world) {
			w.spoil = swap(w, "m.room.create", string(newWorldNamed(w.t, w.version, "!other:near.test").create.JSON()))
		},
		"no power levels":      func(w *world) { w.spoil = swap(w, "m.room.power_levels", "") },
		"no join rule":         func(w *world) { w.spoil = swap(w, "m.room.join_rules", "") },
		"another version":      func(w *world) { w.drafts = func(d *Draft) { d.Version = 9 } },
		"auth events made up":  func(w *world) { w.drafts = func(d *Draft) { d.AuthEvents = []matrix.EventID{"$nothing"} } },
		"auth events left out": func(w *world) { w.drafts = func(d *Draft) { d.AuthEvents = nil } },
		"two creations": func(w *world) {
			w.spoil = func(call string, raw json.RawMessage) json.RawMessage { return raw }
			second := w.build(event{sender: alice, typ: "m.room.create", key: key(""), content: map[string]any{"room_version": w.version.String(), "x": 1}})
			w.extra = second
		},
		"members forged": func(w *world) {
			w.spoil = func(call string, raw json.RawMessage) json.RawMessage {
				if k, _ := matrix.GetString(raw, "state_key"); call == "send_join" && k == string(alice) {
					return json.RawMessage(strings.Replace(string(raw), `"signatures":{"near.test"`, `"signatures":{"fear.test"`, 1))
				}
				return raw
			}
		},
	}
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		i := 0
		for name, lie := range lies {
			i++
			w := newWorldNamed(t, 10, matrix.RoomID(fmt.Sprintf("!hostile%d:near.test", i)))
			lie(w)
			n := newNode(t, db, w)
			tip := w.tip
			if err := n.tryJoin(near); err == nil {
				t.Errorf("%s: joined", name)
			}
			joined, err := n.JoinedRooms(t.Context(), n.sender(me).NID)
			if err != nil || len(joined) != 0 {
				t.Fatalf("%s: joined to %v, %v", name, joined, err)
			}
			// An honest server helps.
			w.spoil, w.drafts, w.extra, w.tip = nil, nil, nil, tip
			if err := n.tryJoin(near); err != nil {
				t.Errorf("%s: then honestly: %v", name, err)
				continue
			}
			ref := n.ref()
			n.sameState(ref, w.tip)
			if _, err := n.change(t.Context(), MemberRequest{Room: ref, Sender: n.sender(me), Target: me}, "leave"); err != nil {
				t.Fatal(err)
			}
			n.nothingStaged()
		}
	})
}

// nothingStaged waits until nothing is kept of any join: no staged events, no jobs.
func (n *node) nothingStaged() {
	n.t.Helper()
	wait.Until(n.t, "the end of clearing up behind joins", func() bool {
		left := int64(0)
		err := n.db.Read(n.t.Context(), func(tx *store.Tx) error {
			return tx.Query(`SELECT (SELECT count(*) FROM join_events) + (SELECT count(*) FROM jobs WHERE kind = 'join')`, func(r *store.Row) error {
				left = r.Int64(0)
				return nil
			})
		})
		return err == nil && left == 0
	})
}

// TestJoinLeavesOutWhatIsForged: a bad event in an answer harms nothing but itself.
func TestJoinLeavesOutWhatIsForged(t *testing.T) {
	proof.Of(t, "F01")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		name := w.send(alice, "m.room.name", key(""), map[string]any{"name": "good"})
		topic := w.send(alice, "m.room.topic", key(""), map[string]any{"topic": "good"})
		w.spoil = func(call string, raw json.RawMessage) json.RawMessage {
			switch typ, _ := matrix.GetString(raw, "type"); typ {
			case "m.room.name":
				return json.RawMessage(strings.Replace(string(raw), `"near.test":{"ed25519:1":"`, `"near.test":{"ed25519:1":"AAAA`, 1))
			case "m.room.topic":
				return json.RawMessage(strings.Replace(string(raw), `"topic":"good"`, `"topic":"evil"`, 1))
			}
			return raw
		}
		n := newNode(t, db, w)
		ref := n.join()
		state := n.state(ref)
		if _, there := state[stateres.StateKey{Type: "m.room.name"}]; there || n.row(ref, name.ID()) != nil {
			t.Error("an event with a wrong signature is in the state")
		}
		if row := n.row(ref, topic.ID()); row == nil || strings.Contains(string(row.Event.JSON()), "evil") {
			t.Errorf("the event with a wrong hash: %+v", row)
		}
	})
}

func TestJoinTriesTheNextServer(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 12)
		w.down[near] = true
		n := newNode(t, db, w)
		if err := n.tryJoin(near, other); err != nil {
			t.Fatal(err)
		}
		n.sameState(n.ref(), w.tip)
	})
}

func TestRestrictedJoin(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for i, signer := range []matrix.ServerName{"", other, ours} {
			w := newWorldNamed(t, 10, matrix.RoomID(fmt.Sprintf("!restricted%d:near.test", i)))
			w.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": "restricted", "allow": []any{}})
			w.wrongSigner = signer
			w.drafts = func(d *Draft) {
				d.AuthorisedVia = alice
				now := w.after[w.tip]
				d.AuthEvents = []matrix.EventID{
					now[stateres.StateKey{Type: "m.room.create"}], now[stateres.StateKey{Type: "m.room.power_levels"}],
					now[stateres.StateKey{Type: "m.room.join_rules"}], now[stateres.StateKey{Type: "m.room.member", Key: string(alice)}],
				}
			}
			n := newNode(t, db, w)
			if err := n.tryJoin(near); (err == nil) != (signer == "") {
				t.Errorf("signed by %q: %v", signer, err)
			}
			if signer != "" {
				continue
			}
			row := n.row(n.ref(), w.tip)
			if _, ok := row.Event.Signature(near, keyID); !ok {
				t.Error("the join is held without the signature of the server that let us in")
			}
		}
	})
}

func TestRejoinAfterAbsence(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 12)
		n := newNode(t, db, w)
		ref := n.join()
		n.bring(w.say(bob, "first stay"))
		if err := n.Leave(t.Context(), MemberRequest{Room: ref, Sender: n.sender(me)}); err != nil {
			t.Fatal(err)
		}
		gone := n.ends(ref)[0]
		w.add(n.row(ref, gone).Event)
		w.member(alice, eve, "ban")
		w.say(bob, "while away")
		w.member(alice, "@dan:near.test", "invite")
		n.join()
		n.sameState(ref, w.tip)
		n.bring(w.say(bob, "second stay"))
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"first stay", "second stay"}) {
			t.Errorf("timeline %q", got)
		}
		n.history(ref, []string{"first stay", "while away", "second stay"})
	})
}

// history pages backward through a room, asking others for what is missing, and compares the messages.
func (n *node) history(ref Ref, want []string) {
	n.t.Helper()
	viewer, err := n.Viewer(n.t.Context(), ref.NID, n.sender(me))
	if err != nil {
		n.t.Fatal(err)
	}
	var got []string
	from := Newest
	for range 50 {
		page, err := n.History(n.t.Context(), PageRequest{Ref: ref, Viewer: viewer, From: from, Backward: true, Limit: 20})
		if err != nil {
			n.t.Fatal(err)
		}
		for _, row := range page.Events {
			if body, ok := matrix.GetString(row.Event.Content(), "body"); ok {
				got = append(got, body)
			}
		}
		from = page.End
		if page.Done {
			break
		}
	}
	slices.Reverse(got)
	if !slices.Equal(got, want) {
		n.t.Errorf("history %q, want %q", got, want)
	}
}

func TestHistoryIsBackfilled(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range versions {
			w := newWorldNamed(t, v, matrix.RoomID("!past"+v.String()+":near.test"))
			var want []string
			for i := range 250 {
				text := fmt.Sprint(i)
				w.say([]matrix.UserID{alice, bob, eve}[i%3], text)
				want = append(want, text)
				if i%100 == 50 {
					w.send(alice, "m.room.topic", key(""), map[string]any{"topic": text})
				}
			}
			n := newNode(t, db, w)
			ref := n.join()
			n.bring(w.say(bob, "now"))
			present := n.ends(ref)
			n.history(ref, append(want, "now"))
			n.history(ref, append(want, "now"))
			if !slices.Equal(n.ends(ref), present) {
				t.Error("history changed the present")
			}
			n.sameState(ref, w.tip)
			if row := n.row(ref, w.create.ID()); row == nil || !row.Visible() {
				t.Errorf("the creation: %+v", row)
			}
			if asked := w.count("backfill"); asked > 4 {
				t.Errorf("asked %d times", asked)
			}
		}
	})
}

func TestHistoryKeepsToItsVisibility(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		w.say(bob, "shared")
		w.send(alice, "m.room.history_visibility", key(""), map[string]any{"history_visibility": "joined"})
		w.say(bob, "hidden")
		secret := w.say(bob, "redacted")
		w.on(event{sender: alice, typ: "m.room.redaction", content: map[string]any{}, redacts: secret.ID(), prev: []matrix.EventID{w.tip}})
		w.send(alice, "m.room.history_visibility", key(""), map[string]any{"history_visibility": "world_readable"})
		w.say(bob, "open")
		n := newNode(t, db, w)
		ref := n.join()
		n.history(ref, []string{"shared", "open"})
		if row := n.row(ref, secret.ID()); row == nil || strings.Contains(string(row.Event.JSON()), `"body"`) {
			t.Errorf("%+v", row)
		}
	})
}

func TestHistoryFromAHostileServer(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		root := w.tip
		good := w.say(bob, "good")
		coup := w.on(event{sender: eve, typ: "m.room.name", key: key(""), content: map[string]any{"name": "eve's"}, prev: []matrix.EventID{root}})
		w.after[coup.ID()] = w.after[root] // nobody honest takes it into the state
		w.sayAfter(bob, "merged", good.ID(), coup.ID())
		unrelated := w.build(event{sender: eve, typ: "m.room.message", content: map[string]any{"body": "unrelated"}, prev: []matrix.EventID{root}})
		n := newNode(t, db, w)
		ref := n.join()
		w.extra = unrelated
		n.history(ref, []string{"good", "merged"})
		if n.row(ref, unrelated.ID()) != nil {
			t.Error("an event that nothing follows came in as history")
		}
		if row := n.row(ref, coup.ID()); row == nil || row.Visible() || !row.Flags.Has(store.FlagRejected) {
			t.Errorf("%+v", row)
		}
	})
}

func TestDeclinedInvitation(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, reachable := range []bool{true, false} {
			w := newWorldNamed(t, 10, matrix.RoomID(fmt.Sprintf("!declined%v:near.test", reachable)))
			n := newNode(t, db, w)
			invite := w.member(alice, me, "invite")
			nid, err := db.AddRoom(t.Context(), w.room, w.version)
			if err != nil {
				t.Fatal(err)
			}
			ref := Ref{NID: nid, ID: w.room, Version: w.version}
			if err := n.PutOutside(t.Context(), ref, invite, "[]"); err != nil {
				t.Fatal(err)
			}
			w.down[near] = !reachable
			if err := n.Leave(t.Context(), MemberRequest{Room: ref, Sender: n.sender(me)}); err != nil {
				t.Fatal(err)
			}
			if row, err := n.Membership(t.Context(), ref.NID, n.sender(me).NID); err != nil || row.Membership != store.Leave {
				t.Errorf("reachable %v: %+v, %v", reachable, row, err)
			}
			if told := w.after[w.tip][stateres.StateKey{Type: "m.room.member", Key: string(me)}] != invite.ID(); told != reachable {
				t.Errorf("reachable %v: told %v", reachable, told)
			}
			// The room can still be joined afterwards, being public.
			w.down[near] = false
			n.join()
			n.sameState(ref, w.tip)
		}
	})
}

// TestVersionOfAnInvitation: whoever invites first says a wrong version of the room. The room's creation puts it right.
func TestVersionOfAnInvitation(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		nid, err := db.AddRoom(t.Context(), w.room, 5)
		if err != nil {
			t.Fatal(err)
		}
		if ref := n.ref(); ref.NID != nid || ref.Version != 5 {
			t.Fatalf("%+v", ref)
		}
		ref := n.join()
		if byNumber, err := n.LookupNID(t.Context(), nid); err != nil || ref.NID != nid || ref.Version != 10 || byNumber != ref {
			t.Errorf("%+v, %+v, %v", ref, byNumber, err)
		}
		n.sameState(ref, w.tip)
		if _, err := db.AddVerifiedRoom(t.Context(), w.room, 5); err == nil {
			t.Error("the version of a room that is in use was changed")
		}
	})
}
