package sync

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// ListenRequest is one GET /events: what came into rooms after a token. It knows nothing of state, signals or messages to
// devices, whose place in the token it leaves as it is.
type ListenRequest struct {
	Viewpoint
	Room    *rooms.Ref // one room that the user may read; nil: all that the user is in
	Since   *Token     // nil: from now on
	Timeout time.Duration
}

// Heard is the answer of GET /events.
type Heard struct {
	Start string            `json:"start"`
	End   string            `json:"end"`
	Chunk []json.RawMessage `json:"chunk"`
}

// maxHeard bounds the events of one answer.
const maxHeard = 200

// Listen answers at once if there is something to tell, and otherwise waits until there is or the time is up.
func (e *Engine) Listen(ctx context.Context, q ListenRequest) (*Heard, error) {
	l, err := e.listeners.join(ctx, e, q.User)
	if err != nil {
		return nil, err
	}
	defer e.listeners.leave(l)
	if err := e.reach(ctx, e.db.Written()); err != nil {
		return nil, err
	}
	if q.Since != nil {
		known, err := e.knows(ctx, *q.Since)
		if err != nil {
			return nil, err
		}
		if !known {
			q.Since = nil
		}
	}
	if q.Since == nil {
		q.Since = &Token{Pos: e.tail.reached(), Generation: e.generation}
	}
	if err := e.reach(ctx, q.Since.Pos); err != nil {
		return nil, err
	}
	wait := time.NewTimer(min(max(q.Timeout, 0), maxWait))
	defer wait.Stop()
	for at := q.Since.Pos; ; {
		grown := e.tail.grown()
		rows, upTo, err := e.hear(ctx, l, q, at)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			return e.heard(ctx, q, rows, upTo)
		}
		at = upTo
		select {
		case <-grown:
		case <-wait.C:
			return e.heard(ctx, q, nil, at)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// hear finds events after a position that the user may see, and how far they reach.
func (e *Engine) hear(ctx context.Context, l *listener, q ListenRequest, at store.Pos) (rows []*store.EventRow, upTo store.Pos, err error) {
	items, bound, inTail := e.tail.after(at)
	in := map[store.RoomNID]bool{}
	if q.Room != nil {
		in[q.Room.NID] = true
	} else {
		members, err := l.memberships(ctx, e, bound)
		if err != nil {
			return nil, 0, err
		}
		for nid, m := range members {
			in[nid] = m.Membership == store.Join
		}
	}
	ignored, err := l.ignores(ctx, e)
	if err != nil {
		return nil, 0, err
	}
	if !inTail {
		return e.hearBehind(ctx, q, in, ignored, at, bound)
	}
	sees := map[store.RoomNID]*rooms.Visibility{}
	for _, it := range items {
		if it.event == nil || !in[it.event.Room] || withheld(it.event, ignored) {
			continue
		}
		row := it.event
		if sees[row.Room] == nil {
			if sees[row.Room], err = e.sees(ctx, q, row.Room); err != nil {
				return nil, 0, err
			}
		}
		shown, err := sees[row.Room].Shown(ctx, row)
		if err != nil {
			return nil, 0, err
		}
		if shown == nil {
			continue
		}
		if rows = append(rows, shown); len(rows) == maxHeard {
			return rows, row.Pos, nil
		}
	}
	return rows, bound, nil
}

// sees is what the user may see of a room, by where it stands there at this moment.
func (e *Engine) sees(ctx context.Context, q ListenRequest, room store.RoomNID) (*rooms.Visibility, error) {
	ref, err := e.rooms.LookupNID(ctx, room)
	if err != nil {
		return nil, err
	}
	viewer, err := e.rooms.Viewer(ctx, room, q.User)
	return e.rooms.VisibleTo(ref, viewer), err
}

// hearBehind is hear for a client that is further back than memory goes.
func (e *Engine) hearBehind(ctx context.Context, q ListenRequest, in map[store.RoomNID]bool, ignored map[matrix.UserID]bool, at, bound store.Pos) (rows []*store.EventRow, upTo store.Pos, err error) {
	var joined, changed []store.RoomNID
	for nid, yes := range in {
		if yes {
			joined = append(joined, nid)
		}
	}
	err = e.db.Read(ctx, func(tx *store.Tx) error {
		changed = nil
		return tx.RoomsChanged(joined, at, bound, func(nid store.RoomNID) { changed = append(changed, nid) })
	})
	if err != nil {
		return nil, 0, err
	}
	upTo = bound
	for _, nid := range changed {
		ref, err := e.rooms.LookupNID(ctx, nid)
		if err != nil {
			return nil, 0, err
		}
		viewer, err := e.rooms.Viewer(ctx, nid, q.User)
		if err != nil {
			return nil, 0, err
		}
		page, err := e.rooms.Page(ctx, rooms.PageRequest{
			Ref: ref, Viewer: viewer, From: rooms.Place{Pos: at}, To: &rooms.Place{Pos: upTo}, Limit: maxHeard,
			Keep: func(row *store.EventRow) bool { return row.Live() && !withheld(row, ignored) },
		})
		if err != nil {
			return nil, 0, err
		}
		rows = append(rows, page.Events...)
		if !page.Done {
			upTo = min(upTo, page.End.Pos)
		}
		slices.SortFunc(rows, func(a, b *store.EventRow) int { return cmp.Compare(a.Pos, b.Pos) })
		if len(rows) > maxHeard { // the rooms to come are read no further
			upTo = min(upTo, rows[maxHeard-1].Pos)
		}
		rows = slices.DeleteFunc(rows, func(row *store.EventRow) bool { return row.Pos > upTo })
	}
	return rows, upTo, nil
}

// heard writes an answer.
func (e *Engine) heard(ctx context.Context, q ListenRequest, rows []*store.EventRow, upTo store.Pos) (*Heard, error) {
	end := Token{Pos: upTo, Ephemeral: q.Since.Ephemeral, Presence: q.Since.Presence, Generation: e.generation, Messages: max(1, q.Since.messages())}
	if end.Messages >= end.Pos {
		end.Messages = 0
	}
	out := &Heard{Start: q.Since.String(), End: end.String(), Chunk: make([]json.RawMessage, 0, len(rows))}
	for _, row := range rows {
		ref, err := e.rooms.LookupNID(ctx, row.Room)
		if err != nil {
			return nil, err
		}
		texts, err := e.Timeline(ctx, q.Viewpoint, ref, []*store.EventRow{row})
		if err != nil {
			return nil, err
		}
		out.Chunk = append(out.Chunk, texts...)
	}
	return out, nil
}

// Now is a token for the present: what GET /events goes on from.
func (e *Engine) Now(ctx context.Context) (Token, error) {
	if err := e.reach(ctx, e.db.Written()); err != nil {
		return Token{}, err
	}
	token := Token{Pos: e.tail.reached(), Generation: e.generation}
	if token.Pos > 1 {
		token.Messages = 1
	}
	return token, nil
}
