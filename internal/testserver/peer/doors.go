package peer

import (
	"encoding/json"
	"time"

	"conclave/internal/matrix"
)

// Template is the event that a resident server proposes to a user who is to join, knock or leave. The caller may spoil
// it.
func (r *Room) Template(membership string, user matrix.UserID) map[string]any {
	key := string(user)
	content := map[string]any{"membership": membership}
	s := Spec{Type: "m.room.member", StateKey: &key, Sender: user, Content: content}
	r.mu.Lock()
	defer r.mu.Unlock()
	var prev []matrix.EventID
	for _, e := range r.tips {
		prev = append(prev, e.ID)
	}
	return map[string]any{
		"type": s.Type, "room_id": string(r.ID), "sender": key, "state_key": key, "content": content, "depth": r.depth + 1,
		"origin": string(r.peer.Name), "origin_server_ts": time.Now().UnixMilli(),
		"prev_events": r.references(prev), "auth_events": r.references(r.authEvents(s)),
	}
}

// HostKnocks makes the Peer take knocks on the room, whatever its join rule, and answer them with the given items. The
// function it returns tells which knocks were taken.
func (r *Room) HostKnocks(state [][]byte) func() []*Event {
	items := []json.RawMessage{}
	for _, raw := range state {
		items = append(items, raw)
	}
	var taken []*Event
	r.peer.Handle("GET", V1+"/make_knock/{roomId}/{userId}", func(c *Call) Reply {
		return Reply{Body: map[string]any{"room_version": r.Version.String(), "event": r.Template("knock", matrix.UserID(lastSegment(c.Path)))}}
	})
	r.peer.Handle("PUT", V1+"/send_knock/{roomId}/{eventId}", func(c *Call) Reply {
		e := r.Accept(c.Body, matrix.EventID(lastSegment(c.Path)))
		r.peer.mu.Lock()
		defer r.peer.mu.Unlock()
		taken = append(taken, e)
		return Reply{Body: map[string]any{"knock_room_state": items}}
	})
	return func() []*Event {
		r.peer.mu.Lock()
		defer r.peer.mu.Unlock()
		return append([]*Event(nil), taken...)
	}
}

// SignedBy are the JSON objects in everything that was sent to the Peer which bear a signature of a server, valid or not:
// what it could show to others as that server's word.
func (p *Peer) SignedBy(server matrix.ServerName) (found []map[string]any) {
	var look func(value any)
	look = func(value any) {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				look(item)
			}
		case map[string]any:
			if signatures, _ := v["signatures"].(map[string]any); signatures[string(server)] != nil {
				found = append(found, v)
			}
			for _, item := range v {
				look(item)
			}
		}
	}
	for _, c := range p.Calls("/") {
		if len(c.Body) > 0 {
			look(decode(c.Body))
		}
	}
	return found
}
