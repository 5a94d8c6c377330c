package rooms

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// replay goes through a recorded room and works out everything about it anew.
type replay struct {
	t        *testing.T
	v        matrix.RoomVersion
	rec      *recording
	events   map[matrix.EventID]*matrix.Event
	order    []*matrix.Event
	after    map[matrix.EventID]worldState
	rejected map[matrix.EventID]bool
	create   *matrix.Event
}

func newReplay(t *testing.T, v matrix.RoomVersion) *replay {
	t.Helper()
	p := &replay{t: t, v: v, rec: readRecording(t, v), events: map[matrix.EventID]*matrix.Event{},
		after: map[matrix.EventID]worldState{}, rejected: map[matrix.EventID]bool{}}
	for _, raw := range p.rec.Events {
		p.step(raw)
	}
	return p
}

// step takes the next event in as a server does.
func (p *replay) step(raw json.RawMessage) {
	ev, err := matrix.ParseEvent(raw, p.v)
	if err != nil {
		p.t.Fatalf("%s: %v", raw, err)
	}
	if string(ev.JSON()) != string(raw) || ev.RoomID() != p.rec.Room {
		p.t.Errorf("%s is read as %s of %s", raw, ev.JSON(), ev.RoomID())
	}
	p.signed(ev)
	if !ev.CheckContentHash() && !ev.IsRedacted() {
		p.t.Errorf("%s has another content than it was hashed with", ev.ID())
	}
	p.events[ev.ID()] = ev
	p.order = append(p.order, ev)
	if ev.Type() == "m.room.create" {
		p.create = ev
	}
	before := p.before(ev)
	err = p.allowed(ev, before)
	if why, refused := p.rec.Refused[ev.ID()]; refused != (err != nil) {
		p.t.Errorf("%s %s by %s (refused because %q): %v", ev.ID(), ev.Type(), ev.Sender(), why, err)
	}
	if p.rejected[ev.ID()] = err != nil; err != nil {
		p.after[ev.ID()] = before
		return
	}
	state := maps.Clone(before)
	if key, ok := ev.StateKey(); ok {
		state[stateres.StateKey{Type: ev.Type(), Key: key}] = ev.ID()
	}
	p.after[ev.ID()] = state
}

// signed checks the signatures that an event needs, by the recorded keys.
func (p *replay) signed(ev *matrix.Event) {
	for _, server := range ev.RequiredSigners() {
		sig, ok := ev.Signature(server, keyID)
		key, err := matrix.DecodeBase64(p.rec.Keys[server][keyID])
		if err != nil || !ok || len(key) != ed25519.PublicKeySize || matrix.VerifyBytes(key, ev.SigningBytes(), sig) != nil {
			p.t.Errorf("%s is not signed by %s", ev.ID(), server)
		}
	}
}

// before is the state before an event.
func (p *replay) before(ev *matrix.Event) worldState {
	var sets []map[stateres.StateKey]matrix.EventID
	for _, id := range ev.PrevEvents() {
		if p.after[id] == nil {
			p.t.Fatalf("%s comes before its parent %s", ev.ID(), id)
		}
		sets = append(sets, p.after[id])
	}
	switch len(sets) {
	case 0:
		return worldState{}
	case 1:
		return sets[0]
	}
	state, err := stateres.Resolve(p.v, sets, p.get, func(id matrix.EventID) bool { return p.rejected[id] })
	if err != nil {
		p.t.Fatal(err)
	}
	if got, want := difference(sets[0], state), p.rec.States[ev.ID()]; want == nil || !maps.Equal(got, want) {
		p.t.Errorf("before %s the state is otherwise than behind its first parent by %v, recorded is %v", ev.ID(), got, want)
	}
	slices.Reverse(sets)
	if again, err := stateres.Resolve(p.v, sets, p.get, func(id matrix.EventID) bool { return p.rejected[id] }); err != nil || !maps.Equal(again, state) {
		p.t.Errorf("before %s the state depends on the order of its parents: %v", ev.ID(), err)
	}
	return state
}

func (p *replay) get(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
	found := map[matrix.EventID]*matrix.Event{}
	for _, id := range ids {
		if ev := p.events[id]; ev != nil {
			found[id] = ev
		}
	}
	return found, nil
}

// allowed judges an event by its auth events, and by the state before it.
func (p *replay) allowed(ev *matrix.Event, before worldState) error {
	byAuth, byState := authrules.Map{}, authrules.Map{}
	var auth []*matrix.Event
	for _, id := range ev.AuthEvents() {
		a := p.events[id]
		if a == nil {
			p.t.Fatalf("%s comes before its auth event %s", ev.ID(), id)
		}
		key, _ := a.StateKey()
		byAuth[authrules.StateKey{Type: a.Type(), Key: key}] = a
		auth = append(auth, a)
	}
	for key, id := range before {
		byState[key] = p.events[id]
	}
	if ev != p.create {
		byAuth[authrules.StateKey{Type: "m.room.create"}] = p.create
	}
	if err := authrules.CheckAuthEvents(ev, auth, func(id matrix.EventID) bool { return p.rejected[id] }); err != nil {
		return err
	}
	if err := authrules.Check(ev, byAuth); err != nil {
		return err
	}
	return authrules.Check(ev, byState)
}

// TestRecordedRooms replays lives of rooms that were recorded once: every event has the ID, the hash and the signatures
// that it had, is allowed or refused as it was, and leads to the same state.
func TestRecordedRooms(t *testing.T) {
	for _, v := range recordedVersions {
		t.Run("version "+v.String(), func(t *testing.T) {
			p := newReplay(t, v)
			if len(p.rec.Refused) < 8 || len(p.rec.Late) == 0 || len(p.rec.States) < 2 || len(p.order) < 60 {
				t.Errorf("%d events, %d refused, %d late, %d merges", len(p.order), len(p.rec.Refused), len(p.rec.Late), len(p.rec.States))
			}
			state, members := p.after[p.rec.Ends[0]], map[string]int{}
			for key, id := range state {
				if key.Type == "m.room.member" {
					members[p.events[id].Membership()]++
				}
			}
			if got := slices.Sorted(maps.Values(state)); !slices.Equal(got, p.rec.State) {
				t.Errorf("the state is %s, recorded is %s", got, p.rec.State)
			}
			if !maps.Equal(members, p.rec.Members) {
				t.Errorf("members %v, recorded %v", members, p.rec.Members)
			}
		})
	}
}

// TestRecordedRoomsOnAServer has a server join each recorded room near its beginning, with the very event that is recorded where
// IDs are hashes, and be told the rest of its life.
func TestRecordedRoomsOnAServer(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range recordedVersions {
			t.Run("version "+v.String(), func(t *testing.T) {
				proof.Of(t, "PD-01", "SR-01")
				p := newReplay(t, v)
				w := p.world()
				n := newNodeNamed(t, db, w, watch)
				if err := n.Join(t.Context(), JoinRequest{Room: w.room, User: n.sender(watcher), Via: []matrix.ServerName{near}}); err != nil {
					t.Fatal(err)
				}
				ref, joined := n.ref(), w.tip
				if joined != p.order[known].ID() && !v.EventIDsInEvent() {
					t.Fatalf("the join is %s, recorded is %s", w.all[joined].JSON(), p.order[known].JSON())
				}
				for _, ev := range p.order[known:] {
					w.know(ev, p.after[ev.ID()])
					verdict := n.deliver(near, ev.JSON())[0]
					n.settled()
					row := n.row(ref, ev.ID())
					if row == nil {
						t.Fatalf("%s %s is not held: %v", ev.ID(), ev.Type(), verdict.Err)
					}
					if refused := p.rejected[ev.ID()]; refused != row.Flags.Has(store.FlagRejected) || refused && row.Visible() {
						t.Errorf("%s %s: flags %d, refused because %q", ev.ID(), ev.Type(), row.Flags, p.rec.Refused[ev.ID()])
					}
					if slices.Contains(p.rec.Late, ev.ID()) && (row.Visible() || !row.Flags.Has(store.FlagSoftFailed)) {
						t.Errorf("%s came too late and is shown", ev.ID())
					}
				}
				ends := slices.Clone(p.rec.Ends)
				if v.EventIDsInEvent() {
					ends = append(ends, joined) // another event than the recorded join: the room has a branch more
				}
				n.sameState(ref, ends...)
			})
		}
	})
}

// know puts an event into the graph as it is, with the state after it.
func (w *world) know(ev *matrix.Event, after worldState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[ev.ID()], w.after[ev.ID()] = ev, after
}

// world is what the other servers know after the first of the recorded events.
func (p *replay) world() *world {
	now := time.UnixMilli(p.order[known].OriginServerTS())
	w := &world{now: func() time.Time { return now }, t: p.t, version: p.v, room: p.rec.Room, create: p.create, clock: p.order[known-1].OriginServerTS(),
		all: map[matrix.EventID]*matrix.Event{}, after: map[matrix.EventID]worldState{}, keys: map[matrix.ServerName]ed25519.PrivateKey{},
		calls: map[string]int{}, down: map[matrix.ServerName]bool{}}
	for name, keys := range p.rec.Keys {
		// The recorded keys are those that the tests derive from names: the world may sign with them.
		if w.keys[name] = newKey(name); keys[keyID] != matrix.EncodeBase64(w.keys[name].Public().(ed25519.PublicKey)) {
			p.t.Fatalf("the key of %s is another", name)
		}
	}
	for _, ev := range p.order[:known] {
		w.all[ev.ID()], w.after[ev.ID()], w.tip = ev, p.after[ev.ID()], ev.ID()
	}
	if len(w.after[w.tip]) < 6 {
		p.t.Fatal(fmt.Sprint("the room has not begun: ", w.after[w.tip]))
	}
	return w
}
