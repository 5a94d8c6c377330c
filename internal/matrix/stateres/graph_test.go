package stateres

import (
	"crypto/ed25519"
	"fmt"
	"maps"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
)

type state = map[StateKey]matrix.EventID

// graph is a room in the making: its events and the state after each.
type graph struct {
	t      testing.TB
	v      matrix.RoomVersion
	room   matrix.RoomID
	events map[matrix.EventID]*matrix.Event
	after  map[matrix.EventID]state
	order  []matrix.EventID
	create *matrix.Event
	names  map[matrix.EventID]string
	high   map[matrix.EventID]int64
	ts     int64
}

// sketch is an event to be made: on top of prev, or where prev is nil on the newest event.
type sketch struct {
	sender, typ, key, content string
	prev                      []matrix.EventID
	state                     state // the state to make it in, if not the one after prev
	ts                        int64 // 0: one later than the last
	depth                     int64
}

var testKey = ed25519.NewKeyFromSeed(make([]byte, 32))

const (
	alice = "@alice:one"
	bob   = "@bob:one"
	carol = "@carol:two"
	dave  = "@dave:two"
)

// newGraph makes a room of alice's, with her in it.
func newGraph(t testing.TB, v matrix.RoomVersion) *graph {
	g := &graph{t: t, v: v, events: map[matrix.EventID]*matrix.Event{}, after: map[matrix.EventID]state{}, names: map[matrix.EventID]string{}, high: map[matrix.EventID]int64{}}
	content := fmt.Sprintf(`{"room_version":%q}`, v.String())
	if !v.CreatorInSender() {
		content = fmt.Sprintf(`{"room_version":%q,"creator":%q}`, v.String(), alice)
	}
	if !v.RoomIDIsCreateHash() {
		g.room = "!room:one"
	}
	g.create = g.must(sketch{sender: alice, typ: "m.room.create", content: content})
	g.room = g.create.RoomID()
	g.must(sketch{sender: alice, typ: "m.room.member", key: alice, content: `{"membership":"join"}`})
	return g
}

func (g *graph) newest() []matrix.EventID {
	if len(g.order) == 0 {
		return nil
	}
	return g.order[len(g.order)-1:]
}

// add makes an event, or says why its place does not allow it.
func (g *graph) add(s sketch) (*matrix.Event, error) {
	g.t.Helper()
	if s.prev == nil {
		s.prev = g.newest()
	}
	before := s.state
	if before == nil {
		before = g.at(s.prev...)
	}
	if s.ts == 0 {
		g.ts += 1000
		s.ts = g.ts
	}
	for _, id := range s.prev {
		s.depth = max(s.depth, g.events[id].Depth()+1)
	}
	tmpl := matrix.Template{RoomID: g.room, Sender: matrix.UserID(s.sender), Type: s.typ, StateKey: &s.key, Content: []byte(s.content),
		PrevEvents: s.prev, Depth: max(1, s.depth), OriginServerTS: s.ts}
	checked := authrules.Map{}
	if g.create != nil {
		checked[StateKey{Type: "m.room.create"}] = g.create
	}
	for _, key := range authrules.NeededFor(g.v, s.typ, &s.key, tmpl.Sender, tmpl.Content) {
		if id, ok := before[key]; ok {
			checked[key] = g.events[id]
			tmpl.AuthEvents = append(tmpl.AuthEvents, id)
		}
	}
	e, err := tmpl.Build(g.v, tmpl.Sender.Server(), "ed25519:a", testKey)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := authrules.Check(e, checked); err != nil {
		return nil, err
	}
	after := maps.Clone(before)
	if after == nil {
		after = state{}
	}
	after[keyOf(e)] = e.ID()
	g.events[e.ID()], g.after[e.ID()] = e, after
	for _, id := range e.AuthEvents() {
		g.high[e.ID()] = max(g.high[e.ID()], g.high[id])
	}
	g.high[e.ID()]++
	g.order = append(g.order, e.ID())
	return e, nil
}

func (g *graph) must(s sketch) *matrix.Event {
	g.t.Helper()
	e, err := g.add(s)
	if err != nil {
		g.t.Fatalf("version %s: %s by %s: %v", g.v, s.typ, s.sender, err)
	}
	return e
}

// at is the state after several events.
func (g *graph) at(ids ...matrix.EventID) state {
	g.t.Helper()
	if len(ids) == 0 {
		return nil
	}
	sets := make([]state, len(ids))
	for i, id := range ids {
		sets[i] = g.after[id]
	}
	return g.resolve(sets...)
}

func (g *graph) resolve(sets ...state) state {
	g.t.Helper()
	out, err := ResolveWithin(g.v, sets, g.get, func(matrix.EventID) bool { return false }, g.height, func() error { return nil })
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// plainly resolves without knowing how high events stand.
func (g *graph) plainly(sets ...state) state {
	g.t.Helper()
	out, err := Resolve(g.v, sets, g.get, func(matrix.EventID) bool { return false })
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

func (g *graph) height(id matrix.EventID) int64 { return g.high[id] }

// get is a Fetch that holds everything.
func (g *graph) get(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
	out := map[matrix.EventID]*matrix.Event{}
	for _, id := range ids {
		if e := g.events[id]; e != nil {
			out[id] = e
		}
	}
	return out, nil
}

// holds checks one place of a state.
func (g *graph) holds(what string, s state, typ, key string, want *matrix.Event) {
	g.t.Helper()
	got, ok := s[StateKey{Type: typ, Key: key}]
	switch {
	case want == nil && ok:
		g.t.Errorf("version %s: %s: there is a %s: %s", g.v, what, typ, g.events[got].Content())
	case want != nil && got != want.ID():
		text := "nothing"
		if ok {
			text = string(g.events[got].Content())
		}
		g.t.Errorf("version %s: %s: %s is %s, want %s", g.v, what, typ, text, want.Content())
	}
}

// levels is the content of m.room.power_levels, in which alice has 100 where creators need it.
func (g *graph) levels(users string) string {
	if !g.v.CreatorsPrivileged() {
		if users != "" {
			users = "," + users
		}
		users = `"@alice:one":100` + users
	}
	return `{"users":{` + users + `}}`
}

// populated is a room with levels and a public join rule, and bob, carol and dave in it.
func populated(t testing.TB, v matrix.RoomVersion, users string) *graph {
	t.Helper()
	g := newGraph(t, v)
	g.must(sketch{sender: alice, typ: "m.room.power_levels", content: g.levels(users)})
	g.must(sketch{sender: alice, typ: "m.room.join_rules", content: `{"join_rule":"public"}`})
	for _, user := range []string{bob, carol, dave} {
		g.must(sketch{sender: user, typ: "m.room.member", key: user, content: `{"membership":"join"}`})
	}
	return g
}
