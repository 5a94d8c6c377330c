package rooms

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/stateres"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// crowded is a room with a large state, stored as evidence.
type crowded struct {
	*node
	w     *world
	ref   Ref
	state worldState
	base  store.State
	clock int64
	depth int64
}

// newCrowded makes a room with members and other state beside them, many of each.
func newCrowded(t *testing.T, db *store.DB, v matrix.RoomVersion, members, others int) *crowded {
	t.Helper()
	w := newWorldNamed(t, v, matrix.RoomID("!crowd"+v.String()+":near.test"))
	n := newNode(t, db, w)
	c := &crowded{node: n, w: w, ref: n.join(), clock: w.clock, depth: 100}
	c.state = maps.Clone(w.after[w.tip])
	var events []*matrix.Event
	for i := range members {
		user := matrix.UserID(fmt.Sprintf("@u%d:near.test", i))
		events = append(events, c.build(c.state, user, "m.room.member", string(user), fmt.Sprintf(`{"displayname":"User %d","membership":"join"}`, i)))
	}
	for i := range others {
		events = append(events, c.build(c.state, alice, "org.example.state", fmt.Sprint(i), `{"value":"something"}`))
	}
	c.base = c.store(n.current(c.ref), events)
	return c
}

func (n *node) current(ref Ref) store.State {
	n.t.Helper()
	s, err := n.CurrentState(n.t.Context(), ref.NID)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// build makes a state event by the rules, on a state, and puts it there.
func (c *crowded) build(on worldState, sender matrix.UserID, typ, stateKey, content string) *matrix.Event {
	c.t.Helper()
	c.clock++
	c.depth++
	tmpl := matrix.Template{
		RoomID: c.ref.ID, Sender: sender, Type: typ, StateKey: &stateKey, Content: []byte(content), PrevEvents: []matrix.EventID{c.w.tip},
		Depth: c.depth, OriginServerTS: c.clock,
	}
	for _, k := range authrules.NeededFor(c.w.version, typ, &stateKey, sender, tmpl.Content) {
		if id, ok := on[k]; ok {
			tmpl.AuthEvents = append(tmpl.AuthEvents, id)
		}
	}
	ev, err := tmpl.Build(c.w.version, sender.Server(), keyID, c.w.keys[sender.Server()])
	if err != nil {
		c.t.Fatal(err)
	}
	on[stateres.StateKey{Type: typ, Key: stateKey}] = ev.ID()
	return ev
}

// store keeps events and returns a state with them in their places.
func (c *crowded) store(on store.State, events []*matrix.Event) store.State {
	c.t.Helper()
	var members, rest []statetree.Entry
	for left := events; len(left) > 0; {
		part := left[:min(len(left), evidenceChunk)]
		left = left[len(part):]
		w, err := c.weigh(c.t.Context(), c.ref, c.w.create.ID(), part)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, ev := range part {
			if w.good[ev.ID()] == nil {
				c.t.Fatalf("%s %s is refused", ev.Type(), ev.Content())
			}
			key, _ := ev.StateKey()
			entry := statetree.Entry{Key: c.hasher.KeyOf(ev.Type(), key), Event: int64(w.nids[ev.ID()])}
			if ev.Type() == "m.room.member" {
				members = append(members, entry)
			} else {
				rest = append(rest, entry)
			}
		}
	}
	s, err := c.writeState(c.t.Context(), c.ref, on, members, rest)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// fork is a branch on which alice changes the levels, bans, and sets many things under the new levels.
func (c *crowded) fork(n int) (worldState, store.State) {
	on := maps.Clone(c.state)
	users := fmt.Sprintf(`{"users":{"@alice:near.test":100,"@bob:near.test":%d}}`, 50+n)
	if c.w.version.CreatorsPrivileged() {
		users = fmt.Sprintf(`{"users":{"@bob:near.test":%d}}`, 50+n)
	}
	events := []*matrix.Event{
		c.build(on, alice, "m.room.power_levels", "", users),
		c.build(on, alice, "m.room.member", fmt.Sprintf("@u%d:near.test", n), `{"membership":"ban"}`),
		c.build(on, bob, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, n)),
	}
	for i := range 20 {
		events = append(events, c.build(on, alice, "org.example.state", fmt.Sprint(i), fmt.Sprintf(`{"value":"%d"}`, n)))
	}
	return on, c.store(c.base, events)
}

// TestForkOfALargeRoom resolves a fork into three in a room of 20,000 members and 50,000 state events, of a fortieth of that
// in the short form, with nothing of it in memory: the result is that of the algorithm over whole states, in a second
// and 300 MiB.
func TestForkOfALargeRoom(t *testing.T) {
	members, others, limit := 500, 750, 5*time.Second
	if os.Getenv("CONCLAVE_LONG") != "" {
		members, others, limit = 20_000, 30_000, time.Second
	}
	for _, v := range []matrix.RoomVersion{1, 11, 12} {
		t.Run(v.String(), func(t *testing.T) {
			dbtest.EachInTurn(t, func(t *testing.T, db *store.DB) {
				c := newCrowded(t, db, v, members, others)
				var sets []map[stateres.StateKey]matrix.EventID
				var states []store.State
				for n := range 3 {
					on, s := c.fork(n)
					sets, states = append(sets, on), append(states, s)
				}
				c.cache = newCaches()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				got, err := c.resolve(t.Context(), c.ref, states)
				took := time.Since(began)
				runtime.ReadMemStats(&after)
				if err != nil {
					t.Fatal(err)
				}
				made := (after.TotalAlloc - before.TotalAlloc) >> 20
				t.Logf("version %s: %d members, %d state events: %s, %d MiB in all", v, members, members+others, took.Round(time.Millisecond), made)
				if took > limit || made > 300 {
					t.Errorf("%s, %d MiB", took, made)
				}
				c.same(got, sets)
			})
		})
	}
}

// same compares a state with what whole states resolve to.
func (c *crowded) same(got store.State, sets []map[stateres.StateKey]matrix.EventID) {
	c.t.Helper()
	get := func(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
		found := map[matrix.EventID]*matrix.Event{}
		return found, c.db.Read(c.t.Context(), func(tx *store.Tx) error {
			return tx.EventsByID(c.ref.NID, ids, func(row *store.EventRow) { found[row.Event.ID()] = row.Event })
		})
	}
	want, err := stateres.Resolve(c.w.version, sets, get, func(matrix.EventID) bool { return false })
	if err != nil {
		c.t.Fatal(err)
	}
	rows, err := c.stateRows(c.t.Context(), c.ref.NID, got)
	if err != nil {
		c.t.Fatal(err)
	}
	differ := 0
	for _, row := range rows {
		key, _ := row.Event.StateKey()
		if want[stateres.StateKey{Type: row.Event.Type(), Key: key}] != row.Event.ID() {
			differ++
		}
	}
	if differ > 0 || len(rows) < len(want) {
		c.t.Errorf("%d places of %d differ from %d", differ, len(rows), len(want))
	}
}
