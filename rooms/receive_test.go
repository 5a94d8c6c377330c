package rooms

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// versions are room versions with all three state resolutions and both forms of event IDs and room IDs.
var versions = []matrix.RoomVersion{1, 2, 6, 10, 12}

func TestJoinThroughAnotherServer(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range matrix.RoomVersions() {
			w := newWorldNamed(t, v, matrix.RoomID("!room"+v.String()+":near.test"))
			n := newNode(t, db, w)
			before := w.say(alice, "before")
			ref := n.join()
			if ref.Version != v {
				t.Errorf("version %s", ref.Version)
			}
			n.sameState(ref, w.tip)
			n.bring(w.say(bob, "one"), w.say(eve, "two"))
			mine := n.say(ref, "three")
			if want := []matrix.EventID{w.all[mine.ID()].PrevEvents()[0]}; !slices.Equal(mine.PrevEvents(), want) {
				t.Errorf("ours follows %s", mine.PrevEvents())
			}
			if got := n.bodies(ref, me); !slices.Equal(got, []string{"one", "two", "three"}) {
				t.Errorf("version %s: timeline %q", v, got)
			}
			if n.row(ref, before.ID()) != nil {
				t.Error("history is there before anybody asked for it")
			}
			if got := n.ends(ref); len(got) != 1 || got[0] != mine.ID() {
				t.Errorf("ends are %s", got)
			}
		}
	})
}

func TestAdmitJudgesEachOnItsOwn(t *testing.T) {
	proof.Of(t, "F01", "PD-05", "SG-08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		good := w.say(alice, "good")
		forged := w.build(event{sender: bob, typ: "m.room.message", content: map[string]any{"body": "forged"}, prev: []matrix.EventID{w.tip}, by: other})
		changed := w.say(bob, "changed")
		text := json.RawMessage(strings.Replace(string(changed.JSON()), `"body":"changed"`, `"body":"liar!!!"`, 1))
		foreign := json.RawMessage(strings.Replace(string(good.JSON()), string(w.room), "!elsewhere:near.test", 1))
		deep := json.RawMessage(strings.Replace(string(good.JSON()), `"depth":`, `"depth":9007199254740993,"x":`, 1))
		verdicts := n.deliver(near, good.JSON(), forged.JSON(), text, foreign, deep, json.RawMessage(`{"room_id":1}`), json.RawMessage(`{`))
		n.settled()
		want := []bool{true, false, true, false, false, false, false}
		for i, v := range verdicts {
			if (v.Err == nil) != want[i] || (v.Err == nil) != (v.Event != nil) {
				t.Errorf("event %d: %v", i, v.Err)
			}
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"good"}) {
			t.Errorf("timeline %q", got)
		}
		if n.row(ref, forged.ID()) != nil {
			t.Error("the forged event is held")
		}
		if row := n.row(ref, changed.ID()); row == nil || !row.Event.IsRedacted() || !row.Visible() {
			t.Errorf("the event with a wrong hash: %v", row)
		}
	})
}

func TestAccessLists(t *testing.T) {
	proof.Of(t, "F20", "PD-09")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		n.bring(w.send(alice, "m.room.server_acl", key(""), map[string]any{"allow": []string{"*"}, "deny": []string{"other.test"}}))
		late := w.say(eve, "shut out")
		for _, origin := range []matrix.ServerName{other, near} {
			if v := n.deliver(origin, late.JSON()); v[0].Err == nil {
				t.Errorf("let in from %s", origin)
			}
		}
		// By the way of another server's event that follows it, it gets no further.
		n.bring(w.say(bob, "after it"))
		if row := n.row(ref, late.ID()); row == nil || row.Visible() || !row.Flags.Has(store.FlagSoftFailed) {
			t.Errorf("%+v", row)
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"after it"}) {
			t.Errorf("timeline %q", got)
		}
	})
}

func TestOutOfOrderAndGaps(t *testing.T) {
	proof.Of(t, "PD-06")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		a, b, c := w.say(alice, "a"), w.say(bob, "b"), w.say(eve, "c")
		n.bring(c, a, b)
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"a", "b", "c"}) || w.count("missing") != 0 {
			t.Errorf("timeline %q, asked %d times", got, w.count("missing"))
		}
		// Thirty events never come; the one after them does.
		want := []string{"a", "b", "c"}
		for i := range 30 {
			text := strings.Repeat("x", i+1)
			w.say(bob, text)
			want = append(want, text)
		}
		w.member(alice, "@new:near.test", "invite")
		n.bring(w.say(eve, "d"))
		want = append(want, "d")
		if got := n.bodies(ref, me); !slices.Equal(got, want) {
			t.Errorf("timeline %q", got)
		}
		n.sameState(ref, w.tip)
		if asked := w.count("missing"); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func TestGapTooWide(t *testing.T) {
	proof.Of(t, "PD-06")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		for range 400 {
			w.say(bob, "flood")
		}
		w.member(bob, "@a:near.test", "invite")
		w.member(alice, eve, "ban")
		last := w.say(bob, "last")
		n.bring(last)
		if row := n.row(ref, last.ID()); row == nil || !row.Visible() {
			t.Fatalf("%+v", row)
		}
		n.sameState(ref, w.tip)
		total := 0
		for _, name := range []string{"missing", "state_ids", "state", "event", "event_auth"} {
			total += w.count(name)
		}
		if total > 20 {
			t.Errorf("%d requests: %v", total, w.calls)
		}
	})
}

func TestGapThatNobodyFills(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		w.now = newTickingClock().now // no time passes
		n := newNode(t, db, w)
		ref := n.join()
		lost := w.say(bob, "lost")
		w.down[near], w.down[other] = true, true
		late := w.say(bob, "late")
		for range 20 {
			n.deliver(near, late.JSON())
			n.settled()
		}
		if n.row(ref, late.ID()) != nil || w.count("missing") > maxRounds || w.count("state_ids") > maxServers {
			t.Errorf("asked %v", w.calls)
		}
		w.down = map[matrix.ServerName]bool{}
		n.bring(lost)
		n.delays.forget(late.ID())
		n.bring(late)
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"lost", "late"}) {
			t.Errorf("timeline %q", got)
		}
	})
}

// TestGapOfAServerThatHasNotHeardOfUs is what a split network leaves behind: the server that brings an event does not know
// yet that we have joined, and the one that we joined through lacks what the event follows.
func TestGapOfAServerThatHasNotHeardOfUs(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		clock := newTickingClock()
		n := startNode(t, db, func(o *Options) { o.Source, o.Clock = w, clock.now })
		n.w = w
		ref := n.join()
		w.say(bob, "lost")
		w.deaf = map[matrix.ServerName]bool{near: true}
		w.down[other] = true
		late := w.say(bob, "late")
		n.bring(late)
		if n.row(ref, late.ID()) != nil {
			t.Fatal("placed without what it follows")
		}
		if wait := n.delays.wait(late.ID(), near, clock.now()); wait > firstRetry {
			t.Errorf("asked again after %s", wait)
		}
		w.deaf = nil
		clock.pass(firstRetry)
		n.bring(late)
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"lost", "late"}) {
			t.Errorf("timeline %q", got)
		}

		// Who shuts us out for good is not waited for for ever.
		w.say(bob, "kept from us")
		w.deaf = map[matrix.ServerName]bool{near: true, other: true}
		w.down = map[matrix.ServerName]bool{}
		last := w.say(bob, "last")
		var wait time.Duration
		for range patience + 1 {
			clock.pass(wait)
			n.bring(last)
			wait = n.delays.wait(last.ID(), near, clock.now())
		}
		if n.row(ref, last.ID()) != nil || wait != firstAsk {
			t.Errorf("asked again after %s", wait)
		}
	})
}

func TestBanEvasionIsSoftFailed(t *testing.T) {
	proof.Of(t, "F11", "PD-03")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 12)
		n := newNode(t, db, w)
		ref := n.join()
		old := w.tip
		ban := w.member(alice, eve, "ban")
		n.bring(ban)
		evasion := w.sayAfter(eve, "still here", old)
		n.bring(evasion)
		row := n.row(ref, evasion.ID())
		if row == nil || !row.Flags.Has(store.FlagSoftFailed) || row.Visible() {
			t.Fatalf("%+v", row)
		}
		mine := n.say(ref, "mine")
		if !slices.Equal(mine.PrevEvents(), []matrix.EventID{ban.ID()}) {
			t.Errorf("ours follows %s", mine.PrevEvents())
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"mine"}) {
			t.Errorf("timeline %q", got)
		}
	})
}

func TestRejectedStaysRejected(t *testing.T) {
	proof.Of(t, "F09", "PD-02")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		root := w.tip
		coup := w.on(event{sender: eve, typ: "m.room.power_levels", key: key(""), content: map[string]any{"users": map[string]any{string(eve): 100}}, prev: []matrix.EventID{root}})
		use := w.on(event{sender: eve, typ: "m.room.name", key: key(""), content: map[string]any{"name": "eve's"}, prev: []matrix.EventID{coup.ID()}})
		was := w.after[root]
		plain := w.on(event{
			sender: bob, typ: "m.room.message", content: map[string]any{"body": "plain"}, prev: []matrix.EventID{use.ID()},
			auth: []matrix.EventID{
				was[stateres.StateKey{Type: "m.room.create"}], was[stateres.StateKey{Type: "m.room.power_levels"}],
				was[stateres.StateKey{Type: "m.room.member", Key: string(bob)}],
			},
		})
		n.bring(coup, use, plain)
		for _, ev := range []*matrix.Event{coup, use} {
			if row := n.row(ref, ev.ID()); row == nil || !row.Flags.Has(store.FlagRejected) || row.Pos != 0 {
				t.Errorf("%s: %+v", ev.Type(), row)
			}
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"plain"}) {
			t.Errorf("timeline %q", got)
		}
		n.bring(coup, use)
		if row := n.row(ref, coup.ID()); !row.Flags.Has(store.FlagRejected) {
			t.Error("accepted when it came again")
		}
		n.sameState(ref, root)
		mine := n.say(ref, "mine")
		if !slices.Equal(mine.PrevEvents(), []matrix.EventID{plain.ID()}) {
			t.Errorf("ours follows %s", mine.PrevEvents())
		}
	})
}

func TestAuthEventsOfAnotherRoom(t *testing.T) {
	proof.Of(t, "F08", "AU-03")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		w2 := newWorldNamed(t, 10, "!second:near.test")
		n.source, n.w = w2, w2
		n.join()
		n.source, n.w = w, w
		foreign := w2.after[w2.tip][stateres.StateKey{Type: "m.room.power_levels"}]
		now := w.after[w.tip]
		bad := w.build(event{
			sender: bob, typ: "m.room.message", content: map[string]any{"body": "bad"}, prev: []matrix.EventID{w.tip},
			auth: []matrix.EventID{now[stateres.StateKey{Type: "m.room.create"}], foreign, now[stateres.StateKey{Type: "m.room.member", Key: string(bob)}]},
		})
		n.bring(bad)
		if row := n.row(ref, bad.ID()); row == nil || !row.Flags.Has(store.FlagRejected) {
			t.Errorf("%+v", row)
		}
		if w.count("event_auth") != 0 {
			t.Error("the network was asked")
		}
	})
}

func TestForkWithStateOnBothSides(t *testing.T) {
	proof.Of(t, "SR-01")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range versions {
			w := newWorldNamed(t, v, matrix.RoomID("!fork"+v.String()+":near.test"))
			n := newNode(t, db, w)
			ref := n.join()
			root := w.tip
			left := w.on(event{sender: alice, typ: "m.room.name", key: key(""), content: map[string]any{"name": "left"}, prev: []matrix.EventID{root}})
			left2 := w.on(event{sender: alice, typ: "m.room.member", key: key(string(eve)), content: map[string]any{"membership": "ban"}, prev: []matrix.EventID{left.ID()}})
			right := w.on(event{sender: alice, typ: "m.room.name", key: key(""), content: map[string]any{"name": "right"}, prev: []matrix.EventID{root}})
			right2 := w.on(event{sender: eve, typ: "m.room.member", key: key(string(eve)), content: map[string]any{"membership": "join", "displayname": "Eve"}, prev: []matrix.EventID{right.ID()}})
			n.bring(left, left2, right, right2)
			n.sameState(ref, left2.ID(), right2.ID())
			if got := n.ends(ref); len(got) > 2 {
				t.Errorf("%d ends", len(got))
			}
			mine := n.say(ref, "joined")
			n.sameState(ref, mine.ID())
			if got := n.ends(ref); len(got) != 1 {
				t.Errorf("%d ends after our event", len(got))
			}
		}
	})
}

func TestStagedSurvivesRestart(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			url := dbtest.URL(t, engine)
			w := newWorld(t, 10)
			db, err := store.Open(t.Context(), store.Options{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			n := newNode(t, db, w)
			ref := n.join()
			first, second := w.say(alice, "first"), w.say(bob, "second")
			verdicts := n.Admit(t.Context(), near, raws(second, first))
			n.settled() // the join has looked for what waits
			n.inbound.mu.Lock()
			n.inbound.active[ref.NID] = true // as if the server stopped before the drain began
			n.inbound.mu.Unlock()
			if err := db.Write(t.Context(), func(tx *store.Tx) error { return n.Stage(tx, near, verdicts) }); err != nil {
				t.Fatal(err)
			}
			if got := n.bodies(ref, me); len(got) != 0 {
				t.Fatalf("timeline %q", got)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			n = newNode(t, dbtest.OpenURL(t, url), w)
			if err := n.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			n.settled()
			if got := n.bodies(n.ref(), me); !slices.Equal(got, []string{"first", "second"}) {
				t.Errorf("timeline %q", got)
			}
		})
	}
}

// TestAnyOrder lets the events of small random graphs come in any order and in any portions: the room ends in the state
// that the graph has, whatever came first.
func TestAnyOrder(t *testing.T) {
	db := dbtest.Open(t, "sqlite")
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		v := rapid.SampledFrom(versions).Draw(rt, "version")
		w := newWorldNamed(t, v, matrix.RoomID("!any"+string(rune('a'+round%26))+strings.Repeat("x", round/26)+":near.test"))
		n := newNode(t, db, w)
		ref := n.join()
		root := w.tip
		graph := []matrix.EventID{root}
		var events []*matrix.Event
		for range rapid.IntRange(3, 9).Draw(rt, "events") {
			parents := rapid.SliceOfNDistinct(rapid.SampledFrom(graph), 1, min(2, len(graph)), rapid.ID).Draw(rt, "parents")
			ev := w.on(randomEvent(rt, w, parents))
			graph = append(graph, ev.ID())
			events = append(events, ev)
		}
		order := rapid.Permutation(events).Draw(rt, "order")
		for len(order) > 0 {
			k := rapid.IntRange(1, len(order)).Draw(rt, "portion")
			n.deliver(near, raws(order[:k]...)...)
			n.settled()
			order = order[k:]
		}
		if diff := n.stateDiff(ref, endsOf(root, events, n, ref)...); diff != "" {
			for _, ev := range events {
				row := n.row(ref, ev.ID())
				rt.Logf("%s %s prev %s: %d flags %d", ev.ID(), ev.Type(), ev.PrevEvents(), row.Pos, row.Flags)
			}
			rt.Fatal(diff, n.ends(ref), endsOf(root, events, n, ref))
		}
	})
}

// randomEvent is an event that the state before it allows.
func randomEvent(rt *rapid.T, w *world, parents []matrix.EventID) event {
	name := rapid.StringMatching(`[a-z]{4}`).Draw(rt, "name")
	switch rapid.IntRange(0, 9).Draw(rt, "kind") { // half of them messages, so that there are runs
	case 0:
		return event{sender: alice, typ: "m.room.name", key: key(""), content: map[string]any{"name": name}, prev: parents}
	case 1:
		return event{sender: alice, typ: "m.room.topic", key: key(""), content: map[string]any{"topic": name}, prev: parents}
	case 2:
		return event{sender: alice, typ: "m.room.member", key: key(string(eve)), content: map[string]any{"membership": "ban", "reason": name}, prev: parents}
	case 3:
		users := map[string]any{string(bob): 50}
		if !w.version.CreatorsPrivileged() {
			users[string(alice)] = 100
		}
		return event{sender: alice, typ: "m.room.power_levels", key: key(""), content: map[string]any{"users": users, "events": map[string]any{"x." + name: 10}}, prev: parents}
	}
	return event{sender: alice, typ: "m.room.message", content: map[string]any{"body": name}, prev: parents}
}

// endsOf are the events of a graph that nothing in it follows, as far as they are in the room's present.
func endsOf(root matrix.EventID, events []*matrix.Event, n *node, ref Ref) []matrix.EventID {
	followed := map[matrix.EventID]bool{}
	for _, ev := range events {
		for _, id := range ev.PrevEvents() {
			followed[id] = true
		}
	}
	var ends []matrix.EventID
	for _, ev := range events {
		if row := n.row(ref, ev.ID()); !followed[ev.ID()] && row != nil && row.Visible() {
			ends = append(ends, ev.ID())
		}
	}
	if len(ends) == 0 {
		return []matrix.EventID{root}
	}
	return ends
}

// TestLateParent: an event comes after one that follows it. It is shown as it came, and the room goes on from where it is.
func TestLateParent(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		w.spoil = func(call string, raw json.RawMessage) json.RawMessage {
			if call == "missing" {
				return nil
			}
			return raw
		}
		early := w.say(bob, "early")
		topic := w.send(alice, "m.room.topic", key(""), map[string]any{"topic": "x"})
		late := w.say(eve, "late")
		n.bring(late)
		n.sameState(ref, late.ID())
		n.bring(topic, early)
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"late", "early"}) {
			t.Errorf("timeline %q", got)
		}
		if got := n.ends(ref); !slices.Equal(got, []matrix.EventID{late.ID()}) {
			t.Errorf("ends are %s", got)
		}
		n.sameState(ref, late.ID())
		if mine := n.say(ref, "mine"); !slices.Equal(mine.PrevEvents(), []matrix.EventID{late.ID()}) {
			t.Errorf("ours follows %s", mine.PrevEvents())
		}
	})
}

// TestLocalAndRemoteAtOnce has our users change the state while another server's forks of it come in.
func TestLocalAndRemoteAtOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 12)
		n := newNode(t, db, w)
		ref := n.join()
		n.bring(w.send(alice, "m.room.power_levels", key(""), map[string]any{"users": map[string]any{string(me): 50}}))
		root := w.tip
		var remote []*matrix.Event
		for i := range 8 {
			kind := []string{"m.room.topic", "m.room.name"}[i%2]
			remote = append(remote, w.on(event{sender: alice, typ: kind, key: key(""), content: map[string]any{"x": i}, prev: []matrix.EventID{root}}))
		}
		sender := n.sender(me)
		var mine sync.WaitGroup
		var mu sync.Mutex
		var ids []matrix.EventID
		for i := range 12 {
			mine.Go(func() {
				id, err := n.Send(t.Context(), SendRequest{Room: ref, Sender: sender, Type: "m.room.topic", StateKey: key(""), Content: fmt.Appendf(nil, `{"topic":"%d"}`, i)})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, id)
			})
		}
		for _, ev := range remote {
			n.deliver(near, ev.JSON())
		}
		mine.Wait()
		n.settled()
		rows := make([]*store.EventRow, len(ids))
		for i, id := range ids {
			rows[i] = n.row(ref, id)
		}
		slices.SortFunc(rows, func(a, b *store.EventRow) int { return int(a.Pos - b.Pos) })
		for _, row := range rows {
			w.add(row.Event)
		}
		for _, ev := range remote {
			if row := n.row(ref, ev.ID()); row == nil || !row.Visible() {
				t.Errorf("%s: %+v", ev.ID(), row)
			}
		}
		n.sameState(ref, n.ends(ref)...)
		last := n.say(ref, "last")
		if got := n.ends(ref); !slices.Equal(got, []matrix.EventID{last.ID()}) {
			t.Errorf("ends are %s", got)
		}
		n.sameState(ref, last.ID())
	})
}

// TestRestrictedJoinBesideOurs: others of ours are in the room already, and another server lets one more in. The room's
// present goes on as it is.
func TestRestrictedJoinBesideOurs(t *testing.T) {
	const friend matrix.UserID = "@friend:ours.test"
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		w.send(alice, "m.room.power_levels", key(""), map[string]any{"users": map[string]any{string(alice): 100}, "invite": 50})
		w.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": "restricted", "allow": []any{map[string]any{"type": "m.room_membership", "room_id": w.room}}})
		n.bring(w.all[w.tip], w.all[w.all[w.tip].PrevEvents()[0]])
		mine := n.say(ref, "mine")
		w.drafts = func(d *Draft) {
			d.AuthorisedVia = alice
			d.AuthEvents = nil
			for _, k := range []stateres.StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}, {Type: "m.room.join_rules"}, {Type: "m.room.member", Key: string(alice)}} {
				d.AuthEvents = append(d.AuthEvents, w.after[w.tip][k])
			}
		}
		if err := n.joinRemote(t.Context(), JoinRequest{Room: w.room, User: n.sender(friend), Via: []matrix.ServerName{near}}, &ref); err != nil {
			t.Fatal(err)
		}
		n.sameState(ref, w.tip)
		if row := n.row(ref, w.tip); !slices.Equal(row.Event.PrevEvents(), []matrix.EventID{mine.ID()}) || len(n.ends(ref)) != 1 {
			t.Errorf("%+v", row)
		}
	})
}
