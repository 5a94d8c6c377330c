package presence

import (
	"context"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Status is what somebody may know of a user's presence.
type Status struct {
	User    matrix.UserID
	State   State
	Current bool // active at present: nothing is told of further activity
	Message string
	Active  time.Time // when the user last did something; zero if that is not known

	Name, Avatar string // of a user of ours
}

// Content is the content of m.presence and the answer of getPresence.
type Content struct {
	Presence      string `json:"presence"`
	LastActiveAgo *int64 `json:"last_active_ago,omitempty"` // ms
	Current       bool   `json:"currently_active"`
	Message       string `json:"status_msg,omitempty"`
	Name          string `json:"displayname,omitempty"`
	Avatar        string `json:"avatar_url,omitempty"`
}

// Content is the status at a time.
func (s Status) Content(now time.Time) Content {
	c := Content{Presence: s.State.String(), Current: s.Current, Message: s.Message, Name: s.Name, Avatar: s.Avatar}
	if !s.Active.IsZero() {
		ago := max(now.Sub(s.Active).Milliseconds(), 0)
		c.LastActiveAgo = &ago
	}
	return c
}

// status is what is shown of a user who is seen as v. The caller holds p.mu.
func (e *entry) status(v view) Status {
	s := Status{User: e.id, State: v.state, Message: v.message, Active: e.active, Name: v.name, Avatar: v.avatar}
	s.Current = v.current || e.local && v.state == Online
	return s
}

// Of is a user's presence now. Whoever asks has found out that the asker may know it.
func (p *Presence) Of(ctx context.Context, user store.UserNID, id matrix.UserID) (Status, error) {
	if p == nil {
		return Status{User: id}, nil
	}
	p.mu.Lock()
	e := p.users[user]
	known := e != nil && (!e.local || e.stored)
	p.mu.Unlock()
	if e == nil && id.Server() == p.own {
		e = &entry{nid: user, id: id, local: true, timer: -1}
	}
	if e == nil {
		return Status{User: id}, nil
	}
	if !known {
		read, err := p.read(ctx, nil, []store.UserNID{user})
		if err != nil {
			return Status{}, err
		}
		p.mu.Lock()
		e.take(read[user])
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.status(e.view(p.now())), nil
}

// Statuses are users as they were last told, for other servers.
func (p *Presence) Statuses(users []matrix.UserID) []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := make([]Status, 0, len(users))
	for _, id := range users {
		if e := p.byID[id]; e != nil && e.pos > 0 {
			found = append(found, e.status(e.told))
		}
	}
	return found
}

// Position is the newest position.
func (p *Presence) Position() int64 {
	if p == nil {
		return 0
	}
	return p.last.Load()
}

// Query asks whose presence a client is to be told.
type Query struct {
	User   store.UserNID
	Joined func(store.RoomNID) bool // the rooms that the user is joined to
	After  int64                    // what was told after this position

	// All, beside it, has everybody who is not offline, Fresh those in rooms that are new to the client, Met those of
	// whom the client has just seen that they joined.
	All   bool
	Fresh map[store.RoomNID]bool
	Met   map[matrix.UserID]bool

	Keep  func(matrix.UserID) bool // nil: everybody
	Limit int
}

// Read answers a query, and says up to which position: those last told first, the user itself among them.
func (p *Presence) Read(ctx context.Context, q Query) (found []Status, upTo int64, err error) {
	for tries := 0; ; tries++ {
		unplaced := map[*entry]struct{}{}
		found, upTo = p.answer(q, unplaced)
		if len(unplaced) == 0 || tries == 2 { // people move all the time
			return found, upTo, nil
		}
		if err := p.load(ctx, unplaced); err != nil {
			return nil, 0, err
		}
	}
}

// answer goes through those who were told of, and gathers those of whom it is not known where they are.
func (p *Presence) answer(q Query, unplaced map[*entry]struct{}) (found []Status, upTo int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	everybody := q.All || len(q.Fresh) > 0
	for at := p.order.Front(); at != nil && len(found) < q.Limit; at = at.Next() {
		e := at.Value.(*entry) //nolint:errcheck // nothing else is in it
		if e.pos <= q.After && !everybody {
			break
		}
		if q.wants(e) {
			found = q.take(found, e, unplaced)
		}
	}
	if !everybody {
		for id := range q.Met {
			if e := p.byID[id]; e != nil && e.pos <= q.After && q.wants(e) && len(found) < q.Limit {
				found = q.take(found, e, unplaced)
			}
		}
	}
	return found, p.last.Load()
}

// wants says whether a client that may know of a user is to be told of it.
func (q *Query) wants(e *entry) bool {
	if q.Keep != nil && !q.Keep(e.id) {
		return false
	}
	if e.pos > q.After {
		return q.After > 0 || e.told.state != Offline
	}
	if e.told.state == Offline {
		return false
	}
	if q.All || q.Met[e.id] {
		return true
	}
	if e.nid == q.User || len(q.Fresh) == 0 {
		return false
	}
	for _, room := range e.rooms {
		if q.Fresh[room] {
			return true
		}
	}
	return !e.placed // as the next look will tell
}

// take adds a user if the asker shares a room with it.
func (q *Query) take(found []Status, e *entry, unplaced map[*entry]struct{}) []Status {
	shares := e.nid == q.User
	if !shares && !e.placed {
		unplaced[e] = struct{}{}
	}
	for _, room := range e.rooms {
		shares = shares || q.Joined(room)
	}
	if !shares {
		return found
	}
	return append(found, e.status(e.told))
}
