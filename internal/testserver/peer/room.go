package peer

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"conclave/internal/matrix"
)

// Room is a room that a Peer made or is in: enough of it to make events that are right.
type Room struct {
	ID      matrix.RoomID
	Version matrix.RoomVersion
	Creator matrix.UserID
	Create  *Event

	peer *Peer

	mu    sync.Mutex
	state map[[2]string]*Event
	tips  []*Event
	depth int64
	all   []*Event
}

// Spec is an event to be made. What is not set is filled in from the room's state.
type Spec struct {
	Type     string
	StateKey *string
	Sender   matrix.UserID // the room's creator if ""
	Content  map[string]any
	Prev     []matrix.EventID // the room's tips if nil
	Auth     []matrix.EventID // as the specification selects them if nil

	// Apart keeps the event out of the room: nothing that follows is built on it.
	Apart bool
}

// Key is a state key.
func Key(s string) *string { return &s }

// NewRoom makes a public room with its first events: creation, the creator's join, power levels, join rules, history
// visibility.
func (p *Peer) NewRoom(v matrix.RoomVersion, localpart string) *Room {
	creator := p.User(localpart)
	r := &Room{Version: v, Creator: creator, peer: p, state: map[[2]string]*Event{}}
	content := map[string]any{"room_version": v.String()}
	if v < 11 {
		content["creator"] = string(creator)
	}
	if !v.RoomIDIsCreateHash() {
		r.ID = matrix.RoomID(fmt.Sprintf("!room%d:%s", p.next(), p.Name))
	}
	r.Create = r.Make(Spec{Type: "m.room.create", StateKey: Key(""), Content: content})
	r.ID = r.Create.Room
	r.Make(Spec{Type: "m.room.member", StateKey: Key(string(creator)), Content: map[string]any{"membership": "join"}})
	users := map[string]any{}
	if v < 12 {
		users[string(creator)] = 100
	}
	r.Make(Spec{Type: "m.room.power_levels", StateKey: Key(""), Content: map[string]any{"users": users}})
	r.Make(Spec{Type: "m.room.join_rules", StateKey: Key(""), Content: map[string]any{"join_rule": "public"}})
	r.Make(Spec{Type: "m.room.history_visibility", StateKey: Key(""), Content: map[string]any{"history_visibility": "shared"}})
	return r
}

// Make makes an event in the room, whole or broken.
func (r *Room) Make(s Spec, knobs ...Knob) *Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Sender == "" {
		s.Sender = r.Creator
	}
	if s.Content == nil {
		s.Content = map[string]any{}
	}
	if s.Prev == nil {
		for _, e := range r.tips {
			s.Prev = append(s.Prev, e.ID)
		}
	}
	if s.Auth == nil {
		s.Auth = r.authEvents(s)
	}
	members := map[string]any{
		"type": s.Type, "sender": string(s.Sender), "content": s.Content,
		"origin_server_ts": time.Now().UnixMilli(), "depth": r.depth + 1,
		"prev_events": r.references(s.Prev), "auth_events": r.references(s.Auth),
	}
	if r.ID != "" {
		members["room_id"] = string(r.ID)
	}
	if s.StateKey != nil {
		members["state_key"] = *s.StateKey
	}
	if r.Version.EventIDsInEvent() {
		members["event_id"] = fmt.Sprintf("$event%d:%s", r.peer.next(), r.peer.Name)
	}
	if r.Version < 11 {
		members["origin"] = string(r.peer.Name)
	}
	e := r.peer.seal(r.Version, members, knobs)
	if !s.Apart {
		r.add(e, s.StateKey)
	}
	return e
}

// Accept takes an event that somebody else made into the room's state and makes it the only tip.
func (r *Room) Accept(raw []byte, id matrix.EventID) *Event {
	members, _ := decode(raw).(map[string]any)
	e := &Event{ID: id, Room: r.ID, Members: members, JSON: raw}
	var key *string
	if s, ok := members["state_key"].(string); ok {
		key = &s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(e, key)
	return e
}

func (r *Room) add(e *Event, stateKey *string) {
	r.depth++
	r.tips = []*Event{e}
	r.all = append(r.all, e)
	if stateKey != nil {
		kind, _ := e.Members["type"].(string)
		r.state[[2]string{kind, *stateKey}] = e
	}
}

// references writes event IDs as the room's version has them.
func (r *Room) references(ids []matrix.EventID) []any {
	out := []any{}
	for _, id := range ids {
		if r.Version.EventIDsInEvent() {
			out = append(out, []any{string(id), map[string]any{"sha256": strings.Repeat("A", 43)}})
		} else {
			out = append(out, string(id))
		}
	}
	return out
}

// authEvents selects the auth events of an event to be made, by the Server-Server API.
func (r *Room) authEvents(s Spec) []matrix.EventID {
	if s.Type == "m.room.create" {
		return nil
	}
	var keys [][2]string
	if !r.Version.RoomIDIsCreateHash() {
		keys = append(keys, [2]string{"m.room.create", ""})
	}
	keys = append(keys, [2]string{"m.room.power_levels", ""}, [2]string{"m.room.member", string(s.Sender)})
	if s.Type == "m.room.member" && s.StateKey != nil {
		if *s.StateKey != string(s.Sender) {
			keys = append(keys, [2]string{"m.room.member", *s.StateKey})
		}
		if m := s.Content["membership"]; m == "join" || m == "invite" || m == "knock" {
			keys = append(keys, [2]string{"m.room.join_rules", ""})
		}
	}
	var ids []matrix.EventID
	for _, key := range keys {
		if e := r.state[key]; e != nil {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// State is the room's state.
func (r *Room) State() []*Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*Event
	for _, e := range r.all { // in the order in which the events were made
		kind, _ := e.Members["type"].(string)
		if key, ok := e.Members["state_key"].(string); ok && r.state[[2]string{kind, key}] == e {
			out = append(out, e)
		}
	}
	return out
}

// Events are all events that are in the room, in order.
func (r *Room) Events() []*Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Event(nil), r.all...)
}

// Depth is the depth of the newest event.
func (r *Room) Depth() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.depth
}
