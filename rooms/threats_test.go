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
)

// forge spoils the signature of every event that says it is forged, on whatever road it is asked for, and counts the roads.
func (w *world) forge() (roads map[string]int) {
	roads = map[string]int{}
	w.spoil = func(call string, raw json.RawMessage) json.RawMessage {
		if !strings.Contains(string(raw), "forged") {
			return raw
		}
		roads[call]++
		return json.RawMessage(strings.Replace(string(raw), `"ed25519:1":"`, `"ed25519:1":"AAAA`, 1))
	}
	return roads
}

// TestSignaturesCountOnEverySidePath is threats F01: an event with a wrong signature comes with missing events, alone, in a
// state, in an auth chain, and with history. It is never held, and what comes with it is.
func TestSignaturesCountOnEverySidePath(t *testing.T) {
	proof.Of(t, "F01")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		room := 0
		inRoom := func(road string, test func(w *world, join func() (*node, Ref)) *matrix.Event) {
			t.Helper()
			room++
			w := newWorldNamed(t, 10, matrix.RoomID(fmt.Sprintf("!f%d:near.test", room)))
			roads := w.forge()
			var n *node
			var ref Ref
			forged := test(w, func() (*node, Ref) {
				n = newNode(t, db, w)
				ref = n.join()
				return n, ref
			})
			if roads[road] == 0 {
				t.Errorf("%s: the forged event came by %v", road, roads)
			}
			if row := n.row(ref, forged.ID()); row != nil {
				t.Errorf("%s: the forged event is held: %+v", road, row)
			}
			if k, ok := forged.StateKey(); ok && n.state(ref)[stateres.StateKey{Type: forged.Type(), Key: k}] == forged.ID() {
				t.Errorf("%s: the forged event is in the state", road)
			}
		}
		said := func(n *node, ref Ref, want ...string) {
			t.Helper()
			if got := n.bodies(ref, me); !slices.Equal(got, want) {
				t.Errorf("the room says %q, want %q", got, want)
			}
		}
		inRoom("missing", func(w *world, join func() (*node, Ref)) *matrix.Event {
			n, ref := join()
			root := w.tip
			forged, good := w.sayAfter(bob, "forged", root), w.sayAfter(bob, "good", root)
			n.bring(w.sayAfter(alice, "last", forged.ID(), good.ID()))
			said(n, ref, "good", "last")
			return forged
		})
		state := func(more int) func(w *world, join func() (*node, Ref)) *matrix.Event {
			return func(w *world, join func() (*node, Ref)) *matrix.Event {
				n, ref := join()
				for i := range more {
					w.send(alice, "org.example.more", key(fmt.Sprint(i)), map[string]any{})
				}
				forged := w.send(alice, "m.room.topic", key(""), map[string]any{"topic": "forged"})
				name := w.send(alice, "m.room.name", key(""), map[string]any{"name": "good"})
				for range maxGathered + 5 { // more than is fetched event by event: the state is asked for
					w.say(bob, "flood")
				}
				last := w.say(bob, "last")
				n.bring(last)
				if row := n.row(ref, last.ID()); row == nil || !row.Visible() {
					t.Errorf("with %d more state events the last one is %+v", more, row)
				}
				if n.state(ref)[stateres.StateKey{Type: "m.room.name"}] != name.ID() {
					t.Errorf("with %d more state events the good one is not there", more)
				}
				return forged
			}
		}
		inRoom("event", state(0))
		inRoom("state", state(maxSingle))
		inRoom("event_auth", func(w *world, join func() (*node, Ref)) *matrix.Event {
			n, ref := join()
			root := w.tip
			forged := w.send("@new:near.test", "m.room.member", key("@new:near.test"), map[string]any{"membership": "join", "displayname": "forged"})
			last := w.say("@new:near.test", "last")
			n.deliver(near, raws(last)...)
			n.settled()
			if row := n.row(ref, last.ID()); row != nil && row.Visible() {
				t.Errorf("what stands on a forged event is %+v", row)
			}
			n.bring(w.sayAfter(bob, "good", root))
			said(n, ref, "good")
			return forged
		})
		inRoom("backfill", func(w *world, join func() (*node, Ref)) *matrix.Event {
			root := w.tip
			forged, good := w.sayAfter(bob, "forged", root), w.sayAfter(bob, "good", root)
			w.sayAfter(alice, "last", forged.ID(), good.ID())
			n, ref := join()
			n.history(ref, []string{"good", "last"})
			return forged
		})
	})
}

// TestRedactionsNeedARight is threats F23: who has neither the power nor the target's server removes nothing, and a
// redaction that is redacted has still had its effect.
func TestRedactionsNeedARight(t *testing.T) {
	proof.Of(t, "F23", "RD-07", "F08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range []matrix.RoomVersion{1, 10, 12} {
			w := newWorldNamed(t, v, matrix.RoomID("!r"+v.String()+":near.test"))
			n := newNode(t, db, w)
			ref := n.join()
			redact := func(by matrix.UserID, target *matrix.Event) *matrix.Event {
				e := event{sender: by, typ: "m.room.redaction", content: map[string]any{}, prev: []matrix.EventID{w.tip}}
				if e.redacts = target.ID(); v.RedactsInContent() {
					e.content, e.redacts = map[string]any{"redacts": target.ID()}, ""
				}
				return w.on(e)
			}
			kept, gone := w.say(bob, "kept"), w.say(bob, "gone")
			n.bring(kept, gone)
			n.bring(redact(eve, kept))
			first := redact(bob, gone)
			n.bring(first)
			n.bring(redact(alice, first))
			n.bring(redact(bob, w.create))
			if got := n.bodies(ref, me); !slices.Equal(got, []string{"kept"}) {
				t.Errorf("version %s: the room says %q", v, got)
			}
			if n.row(ref, w.create.ID()).Flags.Has(store.FlagRedacted) {
				t.Errorf("version %s: the creation is redacted", v)
			}
			n.say(ref, "goes on")
		}
	})
}

// TestOneEventAsksLittle is threats F14: events of a gap that each lack something else make us ask for little of it.
func TestOneEventAsksLittle(t *testing.T) {
	proof.Of(t, "F14")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		clock := newTickingClock() // on a slow machine delays would be over while the test goes on
		n := startNode(t, db, func(o *Options) { o.Source, o.Clock = w, clock.now })
		n.w = w
		ref := n.join()
		root := w.tip
		auth := func(i int) []matrix.EventID {
			lost := w.build(event{sender: bob, typ: "m.room.member", key: key(string(bob)), content: map[string]any{"membership": "join", "n": i}, prev: []matrix.EventID{root}})
			return []matrix.EventID{w.create.ID(), lost.ID()}
		}
		for i := range 150 {
			w.on(event{sender: bob, typ: "m.room.message", content: map[string]any{"body": fmt.Sprint(i)}, prev: []matrix.EventID{w.tip}, auth: auth(i)})
		}
		last := w.say(eve, "last")
		asked := func() (total int) {
			for _, call := range []string{"missing", "state_ids", "state", "event", "event_auth"} {
				total += w.count(call)
			}
			return total
		}
		n.deliver(near, last.JSON())
		n.settled()
		first := asked()
		if first > maxRequests {
			t.Errorf("%d requests: %v", first, w.calls)
		}
		for range 100 {
			n.deliver(near, last.JSON())
			n.settled()
		}
		if more := asked() - first; more != 0 {
			t.Errorf("100 repetitions made %d more requests", more)
		}
		n.bring(w.sayAfter(alice, "good", root))
		if got := n.bodies(ref, me); !slices.Contains(got, "good") {
			t.Errorf("the room says %q", got)
		}
	})
}
