package rooms

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/stateres"
)

// world is what other servers know of a room: an event graph with the state at each event, kept in memory and worked out
// by state resolution alone. It answers for all of them as an EventSource.
type world struct {
	t       testing.TB
	room    matrix.RoomID
	version matrix.RoomVersion
	create  *matrix.Event
	keys    map[matrix.ServerName]ed25519.PrivateKey

	mu       sync.Mutex
	clock    int64
	all      map[matrix.EventID]*matrix.Event
	after    map[matrix.EventID]worldState
	tip      matrix.EventID
	calls    map[string]int
	now      func() time.Time    // the clock of nodes; nil: the real one
	verified atomic.Int64        // signed events that a node has checked
	made     func(*matrix.Event) // is told of every event that is put into the graph; nil: nobody is

	// How the servers misbehave.
	spoil       func(call string, raw json.RawMessage) json.RawMessage // nil: leave the event out
	down        map[matrix.ServerName]bool
	deaf        map[matrix.ServerName]bool // has not heard that the node is in the room
	drafts      func(*Draft)
	wrongSigner matrix.ServerName
	extra       *matrix.Event // comes with every list, although it does not belong there
}

type worldState map[stateres.StateKey]matrix.EventID

const (
	ours  matrix.ServerName = "ours.test"
	near  matrix.ServerName = "near.test"
	other matrix.ServerName = "other.test"
	keyID matrix.KeyID      = "ed25519:1"

	alice matrix.UserID = "@alice:near.test" // made the room
	bob   matrix.UserID = "@bob:near.test"
	eve   matrix.UserID = "@eve:other.test"
	me    matrix.UserID = "@me:ours.test"
)

func newKey(name matrix.ServerName) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

// worldClock sees to it that no two worlds make the same events.
var worldClock atomic.Int64

func init() { worldClock.Store(1_700_000_000_000) }

// newWorld makes a public room of alice's that bob and eve are in.
func newWorld(t testing.TB, v matrix.RoomVersion) *world {
	return newWorldNamed(t, v, "!room:near.test")
}

// newWorldNamed is newWorld with another room ID, in versions that do not derive it.
func newWorldNamed(t testing.TB, v matrix.RoomVersion, room matrix.RoomID) *world {
	w := &world{
		t: t, version: v, clock: worldClock.Add(1_000_000), all: map[matrix.EventID]*matrix.Event{}, after: map[matrix.EventID]worldState{},
		keys: map[matrix.ServerName]ed25519.PrivateKey{}, calls: map[string]int{}, down: map[matrix.ServerName]bool{},
	}
	for _, name := range []matrix.ServerName{ours, near, other} {
		w.keys[name] = newKey(name)
	}
	content := map[string]any{"room_version": v.String()}
	if !v.CreatorInSender() {
		content["creator"] = alice
	}
	if !v.RoomIDIsCreateHash() {
		w.room = room
	}
	w.create = w.send(alice, "m.room.create", key(""), content)
	w.room = w.create.RoomID()
	w.member(alice, alice, "join")
	users := map[string]any{}
	if !v.CreatorsPrivileged() {
		users[string(alice)] = 100
	}
	w.send(alice, "m.room.power_levels", key(""), map[string]any{"users": users, "users_default": 0, "events_default": 0, "state_default": 50, "ban": 50, "kick": 50, "redact": 50, "invite": 0})
	w.send(alice, "m.room.join_rules", key(""), map[string]any{"join_rule": "public"})
	w.send(alice, "m.room.history_visibility", key(""), map[string]any{"history_visibility": "shared"})
	w.member(bob, bob, "join")
	w.member(eve, eve, "join")
	return w
}

func key(s string) *string { return &s }

// event is one to be made; what is not set follows from the graph.
type event struct {
	sender  matrix.UserID
	typ     string
	key     *string
	content any
	prev    []matrix.EventID
	auth    []matrix.EventID  // nil: as the rules select them
	by      matrix.ServerName // who signs; the sender's server if ""
	depth   int64
	redacts matrix.EventID
}

// build makes an event and keeps it out of the graph.
func (w *world) build(e event) *matrix.Event {
	w.t.Helper()
	raw, err := json.Marshal(e.content)
	if err != nil {
		w.t.Fatal(err)
	}
	before := w.before(e.prev)
	if e.auth == nil {
		for _, k := range authrules.NeededFor(w.version, e.typ, e.key, e.sender, raw) {
			if id, ok := before[k]; ok {
				e.auth = append(e.auth, id)
			}
		}
	}
	if e.by == "" {
		e.by = e.sender.Server()
	}
	if e.depth == 0 {
		e.depth = 1
		for _, id := range e.prev {
			e.depth = max(e.depth, w.all[id].Depth()+1)
		}
	}
	w.clock++
	room := w.room
	t := matrix.Template{
		RoomID: room, Sender: e.sender, Type: e.typ, StateKey: e.key, Content: raw, PrevEvents: e.prev, AuthEvents: e.auth,
		Depth: e.depth, OriginServerTS: w.clock, Redacts: e.redacts,
	}
	ev, err := t.Build(w.version, e.by, keyID, w.keys[e.by])
	if err != nil {
		w.t.Fatal(err)
	}
	return ev
}

// before is the state after events, resolved.
func (w *world) before(prev []matrix.EventID) worldState {
	w.t.Helper()
	var sets []map[stateres.StateKey]matrix.EventID
	for _, id := range prev {
		if w.after[id] == nil {
			w.t.Fatalf("%s is not in the graph", id)
		}
		sets = append(sets, w.after[id])
	}
	if len(sets) == 1 {
		return sets[0]
	}
	get := func(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
		found := map[matrix.EventID]*matrix.Event{}
		for _, id := range ids {
			if ev := w.all[id]; ev != nil {
				found[id] = ev
			}
		}
		return found, nil
	}
	state, err := stateres.Resolve(w.version, sets, get, func(matrix.EventID) bool { return false })
	if err != nil {
		w.t.Fatal(err)
	}
	return state
}

// add puts an event into the graph.
func (w *world) add(ev *matrix.Event) *matrix.Event {
	w.t.Helper()
	state := worldState{}
	for k, id := range w.before(ev.PrevEvents()) {
		state[k] = id
	}
	if k, ok := ev.StateKey(); ok {
		state[stateres.StateKey{Type: ev.Type(), Key: k}] = ev.ID()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[ev.ID()], w.after[ev.ID()], w.tip = ev, state, ev.ID()
	if w.made != nil {
		w.made(ev)
	}
	return ev
}

// on makes an event behind others and puts it into the graph.
func (w *world) on(e event) *matrix.Event {
	w.t.Helper()
	return w.add(w.build(e))
}

// send makes an event behind the newest one.
func (w *world) send(sender matrix.UserID, typ string, key *string, content any) *matrix.Event {
	w.t.Helper()
	var prev []matrix.EventID
	if w.tip != "" {
		prev = []matrix.EventID{w.tip}
	}
	return w.on(event{sender: sender, typ: typ, key: key, content: content, prev: prev})
}

func (w *world) member(sender, target matrix.UserID, membership string) *matrix.Event {
	w.t.Helper()
	return w.send(sender, "m.room.member", key(string(target)), map[string]any{"membership": membership})
}

func (w *world) say(sender matrix.UserID, text string) *matrix.Event {
	w.t.Helper()
	return w.send(sender, "m.room.message", nil, map[string]any{"msgtype": "m.text", "body": text})
}

func (w *world) sayAfter(sender matrix.UserID, text string, prev ...matrix.EventID) *matrix.Event {
	w.t.Helper()
	return w.on(event{sender: sender, typ: "m.room.message", content: map[string]any{"msgtype": "m.text", "body": text}, prev: prev})
}

// enter counts a call and says whether the server answers.
func (w *world) enter(call string, server matrix.ServerName) error {
	w.calls[call]++
	if w.down[server] {
		return fmt.Errorf("%s cannot be reached", server)
	}
	if w.deaf[server] {
		return shutOut{}
	}
	return nil
}

// shutOut is the answer of a server that holds that the node is not in the room.
type shutOut struct{ refusal4xx }

func (shutOut) ShutsOut() bool { return true }

func (w *world) count(call string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[call]
}

func (w *world) raw(call string, ev *matrix.Event) json.RawMessage {
	raw := json.RawMessage(ev.JSON())
	if w.spoil != nil {
		raw = w.spoil(call, raw)
	}
	return raw
}

func (w *world) raws(call string, events []*matrix.Event) []json.RawMessage {
	var out []json.RawMessage
	for _, ev := range events {
		if raw := w.raw(call, ev); raw != nil {
			out = append(out, raw)
		}
	}
	if w.extra != nil {
		out = append(out, json.RawMessage(w.extra.JSON()))
	}
	return out
}

// behind walks the graph from events to what they follow, breadth first.
func (w *world) behind(from, stop []matrix.EventID, limit int) []*matrix.Event {
	var out []*matrix.Event
	seen := map[matrix.EventID]bool{}
	for _, id := range stop {
		seen[id] = true
	}
	for next := from; len(next) > 0; {
		id := next[0]
		next = next[1:]
		ev := w.all[id]
		if seen[id] || ev == nil {
			continue
		}
		if len(out) == limit {
			break
		}
		seen[id] = true
		out = append(out, ev)
		next = append(next, ev.PrevEvents()...)
	}
	return out
}

func (w *world) MissingEvents(_ context.Context, server matrix.ServerName, _ matrix.RoomID, have, want []matrix.EventID, limit int) ([]json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("missing", server); err != nil {
		return nil, err
	}
	var from []matrix.EventID
	for _, id := range want {
		if ev := w.all[id]; ev != nil {
			from = append(from, ev.PrevEvents()...)
		}
	}
	found := w.behind(from, have, limit)
	slices.Reverse(found)
	return w.raws("missing", found), nil
}

func (w *world) stateAt(at matrix.EventID) (state, auth []*matrix.Event, err error) {
	ev := w.all[at]
	if ev == nil {
		return nil, nil, errors.New("no such event")
	}
	seen := map[matrix.EventID]bool{}
	var chain func(ev *matrix.Event)
	chain = func(ev *matrix.Event) {
		for _, id := range ev.AuthEvents() {
			if !seen[id] && w.all[id] != nil {
				seen[id] = true
				auth = append(auth, w.all[id])
				chain(w.all[id])
			}
		}
	}
	for _, id := range w.before(ev.PrevEvents()) {
		state = append(state, w.all[id])
		chain(w.all[id])
	}
	return state, auth, nil
}

func (w *world) StateIDs(_ context.Context, server matrix.ServerName, _ matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("state_ids", server); err != nil {
		return nil, nil, err
	}
	s, a, err := w.stateAt(at)
	for _, ev := range s {
		state = append(state, ev.ID())
	}
	for _, ev := range a {
		auth = append(auth, ev.ID())
	}
	return state, auth, err
}

func (w *world) State(_ context.Context, server matrix.ServerName, _ matrix.RoomID, at matrix.EventID, each func(json.RawMessage) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("state", server); err != nil {
		return err
	}
	s, a, err := w.stateAt(at)
	if err != nil {
		return err
	}
	for _, raw := range w.raws("state", append(s, a...)) {
		if err := each(raw); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Event(_ context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("event", server); err != nil {
		return nil, err
	}
	if ev := w.all[id]; ev != nil {
		if raw := w.raw("event", ev); raw != nil {
			return raw, nil
		}
	}
	return nil, errors.New("no such event")
}

func (w *world) EventAuth(_ context.Context, server matrix.ServerName, _ matrix.RoomID, id matrix.EventID) ([]json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("event_auth", server); err != nil {
		return nil, err
	}
	ev := w.all[id]
	if ev == nil {
		return nil, errors.New("no such event")
	}
	var chain []*matrix.Event
	seen := map[matrix.EventID]bool{}
	for next := ev.AuthEvents(); len(next) > 0; next = next[1:] {
		if a := w.all[next[0]]; a != nil && !seen[a.ID()] {
			seen[a.ID()] = true
			chain = append(chain, a)
			next = append(next, a.AuthEvents()...)
		}
	}
	return w.raws("event_auth", chain), nil
}

func (w *world) Backfill(_ context.Context, server matrix.ServerName, _ matrix.RoomID, from []matrix.EventID, limit int) ([]json.RawMessage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("backfill", server); err != nil {
		return nil, err
	}
	return w.raws("backfill", w.behind(from, nil, limit)), nil
}

func (w *world) VerifyEvents(_ context.Context, events []*matrix.Event) []error {
	errs := make([]error, len(events))
	w.verified.Add(int64(len(events)))
	for i, ev := range events {
		for _, server := range ev.RequiredSigners() {
			sig, ok := ev.Signature(server, keyID)
			private := w.keys[server]
			if !ok || private == nil || matrix.VerifyBytes(private.Public().(ed25519.PublicKey), ev.SigningBytes(), sig) != nil {
				errs[i] = fmt.Errorf("%s has not signed it", server)
			}
		}
	}
	return errs
}

func (w *world) MakeMembership(_ context.Context, server matrix.ServerName, membership string, room matrix.RoomID, user matrix.UserID) (*Draft, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.enter("make_"+membership, server); err != nil {
		return nil, err
	}
	content := fmt.Sprintf(`{"membership":%q}`, membership)
	d := &Draft{Version: w.version, PrevEvents: []matrix.EventID{w.tip}, Depth: w.all[w.tip].Depth() + 1}
	for _, k := range authrules.NeededFor(w.version, "m.room.member", key(string(user)), user, []byte(content)) {
		if id, ok := w.after[w.tip][k]; ok {
			d.AuthEvents = append(d.AuthEvents, id)
		}
	}
	if w.drafts != nil {
		w.drafts(d)
	}
	return d, nil
}

func (w *world) SendJoin(_ context.Context, server matrix.ServerName, join *matrix.Event, each func(raw json.RawMessage, auth bool) error) (*JoinAnswer, error) {
	w.mu.Lock()
	if err := w.enter("send_join", server); err != nil {
		w.mu.Unlock()
		return nil, err
	}
	w.mu.Unlock()
	answer := &JoinAnswer{}
	if via, ok := matrix.GetString(join.Content(), "join_authorised_via_users_server"); ok {
		by := matrix.UserID(via).Server()
		if w.wrongSigner != "" {
			by = w.wrongSigner
		}
		signed, err := join.WithSignature(by, keyID, w.keys[by])
		if err != nil {
			return nil, err
		}
		join, answer.Event = signed, signed.JSON()
	}
	w.add(join)
	w.mu.Lock()
	defer w.mu.Unlock()
	state, auth, err := w.stateAt(join.ID())
	if err != nil {
		return nil, err
	}
	for i, list := range [][]*matrix.Event{state, auth} {
		for _, raw := range w.raws("send_join", list) {
			if err := each(raw, i == 1); err != nil {
				return nil, err
			}
		}
	}
	return answer, nil
}

func (w *world) SendKnock(_ context.Context, server matrix.ServerName, knock *matrix.Event) ([]json.RawMessage, error) {
	w.mu.Lock()
	if err := w.enter("send_knock", server); err != nil {
		w.mu.Unlock()
		return nil, err
	}
	w.mu.Unlock()
	w.add(knock)
	return []json.RawMessage{w.create.JSON()}, nil
}

func (w *world) PolicySignature(context.Context, matrix.ServerName, *matrix.Event) ([]byte, error) {
	return nil, errors.New("no policy server")
}

func (w *world) SendLeave(_ context.Context, server matrix.ServerName, leave *matrix.Event) error {
	w.mu.Lock()
	if err := w.enter("send_leave", server); err != nil {
		w.mu.Unlock()
		return err
	}
	w.mu.Unlock()
	w.add(leave)
	return nil
}

func (w *world) Invite(context.Context, *matrix.Event, []json.RawMessage) (json.RawMessage, error) {
	return nil, errors.New("nobody is invited in these tests")
}

var _ EventSource = (*world)(nil)
