package presence

import (
	"container/list"
	"context"
	"slices"
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
	renames := p.renames
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
		e.take(read[user], p.renames == renames)
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.status(e.view(p.now())), nil
}

// Statuses are users of ours as they were last told, for another server: those who share a room with a user of it. It may
// have been shut out since it was noted that it is to be told of them.
func (p *Presence) Statuses(ctx context.Context, server matrix.ServerName, users []matrix.UserID) ([]Status, error) {
	nid, err := p.db.Server(ctx, server)
	if err != nil {
		return nil, err
	}
	var sharing []matrix.UserID
	err = p.db.Read(ctx, func(tx *store.Tx) error {
		sharing = nil
		return tx.SharingWith(nid, users, func(id matrix.UserID, _ store.UserNID) { sharing = append(sharing, id) })
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(sharing)
	p.mu.Lock()
	defer p.mu.Unlock()
	found := make([]Status, 0, len(sharing))
	for _, id := range sharing {
		if e := p.byID[id]; e != nil && e.local && e.pos > 0 {
			found = append(found, e.status(e.told))
		}
	}
	return found, nil
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

// Read answers a query, and says up to which position; the user itself is among those whom it tells of. What changed
// comes in the order of its changes, and what of it does not fit comes after the position that is returned; then comes
// who is to be told besides, those last told first, as far as they fit.
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
	at, whole := p.order.Front(), true
	if q.After > 0 {
		if found, at, upTo, whole = p.changes(q, unplaced); !whole {
			return found, upTo
		}
	}
	everybody := q.All || len(q.Fresh) > 0 || q.After == 0
	for ; everybody && at != nil && len(found) < q.Limit; at = at.Next() {
		if e := entryAt(at); q.shows(e) {
			found = q.take(found, e, unplaced)
		}
	}
	if !everybody {
		for id := range q.Met {
			if e := p.byID[id]; e != nil && e.pos <= q.After && q.shows(e) && len(found) < q.Limit {
				found = q.take(found, e, unplaced)
			}
		}
	}
	return found, p.last.Load()
}

// changes finds who changed after the query's position, the first change first, and where in the order those are who did
// not. If they do not all fit it says how far it came. The caller holds p.mu.
func (p *Presence) changes(q Query, unplaced map[*entry]struct{}) (found []Status, rest *list.Element, upTo int64, whole bool) {
	first := p.order.Back()
	for rest = p.order.Front(); rest != nil; rest = rest.Next() {
		if entryAt(rest).pos <= q.After {
			first = rest.Prev()
			break
		}
	}
	upTo = q.After
	for at := first; at != nil; at = at.Prev() {
		e := entryAt(at)
		if q.keeps(e) {
			if len(found) == q.Limit {
				return found, rest, upTo, false
			}
			found = q.take(found, e, unplaced)
		}
		upTo = e.pos
	}
	return found, rest, upTo, true
}

func entryAt(at *list.Element) *entry { return at.Value.(*entry) } //nolint:errcheck // nothing else is in the order

func (q *Query) keeps(e *entry) bool { return q.Keep == nil || q.Keep(e.id) }

// shows says whether a client that may know of a user is to be told of it although it did not change.
func (q *Query) shows(e *entry) bool {
	if e.told.state == Offline || !q.keeps(e) {
		return false
	}
	if q.All || q.After == 0 || q.Met[e.id] {
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
