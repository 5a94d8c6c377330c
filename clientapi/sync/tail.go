package sync

import (
	"context"
	"slices"
	gosync "sync"

	"conclave/internal/store"
)

// item is one persisted change in the tail: an event, or a change of something else.
type item struct {
	pos    store.Pos
	event  *store.EventRow // nil for other changes
	prior  store.State     // the room's current state before the event
	change store.Change    // where event is nil
}

// tail is the newest part of the stream in memory. Readers that are within it need no database; it holds everything
// after start and up to bound.
type tail struct {
	mu    gosync.RWMutex
	start store.Pos
	bound store.Pos
	items []item
	heads map[store.RoomNID]store.State // current state of the rooms that the tail has events of; only follow uses it

	growth chan struct{} // closed at the next extension; nil if nobody waits
}

// The tail is cut back to tailKeep when it has tailMax items.
const (
	tailMax  = 8192
	tailKeep = 4096
)

// after returns the items after a position and the bound that they reach, or false if the tail begins later.
func (t *tail) after(pos store.Pos) (items []item, bound store.Pos, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if pos < t.start {
		return nil, t.bound, false
	}
	at, found := slices.BinarySearchFunc(t.items, pos, func(i item, p store.Pos) int { return int(i.pos - p) })
	if found {
		at++
	}
	return t.items[at:len(t.items):len(t.items)], t.bound, true
}

// reaches says whether the tail has everything that came after a position.
func (t *tail) reaches(back store.Pos) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return back >= t.start
}

func (t *tail) reached() store.Pos {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bound
}

// extend appends what is new and puts redacted events in their old form's place. It never changes items that readers
// may hold: cutting and replacing make a new slice.
func (t *tail) extend(items []item, bound store.Pos, redacted map[store.EventNID]*store.EventRow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(redacted) > 0 {
		t.items = slices.Clone(t.items)
		for i, it := range t.items {
			if it.event == nil {
				continue
			}
			if row := redacted[it.event.NID]; row != nil {
				t.items[i].event = row
			}
		}
	}
	if len(t.items)+len(items) > tailMax {
		cut := max(0, len(t.items)-tailKeep)
		if cut > 0 {
			t.start = t.items[cut-1].pos
		}
		t.items = slices.Clone(t.items[cut:])
	}
	t.items = append(t.items, items...)
	t.bound = bound
	if t.growth != nil {
		close(t.growth)
		t.growth = nil
	}
}

// follow reads what came after the tail's bound and extends it. It returns the new items.
func (e *Engine) follow(ctx context.Context) ([]item, error) {
	bound, err := e.db.StreamBound(ctx)
	if err != nil {
		return nil, err
	}
	from := e.tail.reached()
	if bound <= from {
		return nil, nil
	}
	fresh, ok := e.committed(from, bound)
	if !ok {
		if fresh, bound, err = e.readItems(ctx, from, bound); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(fresh, func(a, b item) int { return int(a.pos - b.pos) })
	if err := e.priors(ctx, fresh); err != nil {
		return nil, err
	}
	redacted, err := e.redacted(ctx, fresh)
	if err != nil {
		return nil, err
	}
	for i, it := range fresh {
		if it.event != nil && redacted[it.event.NID] != nil {
			fresh[i].event = redacted[it.event.NID]
		}
	}
	e.listeners.expect(fresh, e.people, e.rooms.RulesMoved)
	e.tail.extend(fresh, bound, redacted)
	return fresh, nil
}

// committed takes what came after one position and up to another from memory, if all of it is there.
func (e *Engine) committed(after, upTo store.Pos) (fresh []item, ok bool) {
	commits, ok := e.db.Committed(after, upTo)
	for _, c := range commits {
		for _, row := range c.Events {
			if row.Pos > after && row.Pos <= upTo {
				fresh = append(fresh, item{pos: row.Pos, event: row})
			}
		}
		for _, change := range c.Changes {
			if change.Pos > after && change.Pos <= upTo {
				fresh = append(fresh, item{pos: change.Pos, change: change})
			}
		}
	}
	return fresh, ok
}

// readItems reads what came after one position and up to another, or up to a lower bound, which it returns: who is too
// far behind to keep up item by item gets what is left with the next round.
func (e *Engine) readItems(ctx context.Context, after, upTo store.Pos) (fresh []item, bound store.Pos, err error) {
	err = e.db.Read(ctx, func(tx *store.Tx) error {
		fresh, bound = fresh[:0], upTo
		err := tx.Stream(after, upTo, tailMax, func(row *store.EventRow) { fresh = append(fresh, item{pos: row.Pos, event: row}) })
		if err != nil {
			return err
		}
		if len(fresh) == tailMax {
			bound = fresh[len(fresh)-1].pos
		}
		rows := make([]*store.EventRow, len(fresh))
		for i, it := range fresh {
			rows[i] = it.event
		}
		if err := tx.FillPersonal(rows); err != nil {
			return err
		}
		return tx.Changes(after, bound, func(c store.Change) { fresh = append(fresh, item{pos: c.Pos, change: c}) })
	})
	return fresh, bound, err
}

// redacted reads the events anew that new redactions mean: the tail may hold them as they were, and so may whoever remembers
// events or forms that show what a state event replaced.
func (e *Engine) redacted(ctx context.Context, fresh []item) (map[store.EventNID]*store.EventRow, error) {
	var rows map[store.EventNID]*store.EventRow
	for _, it := range fresh {
		if it.event == nil || it.event.Event.Type() != "m.room.redaction" {
			continue
		}
		id, ok := it.event.Event.Redacts()
		if !ok {
			continue
		}
		var row *store.EventRow
		err := e.db.Read(ctx, func(tx *store.Tx) (err error) {
			row, err = tx.EventInRoom(it.event.Room, id)
			return err
		})
		if err != nil {
			return nil, err
		}
		if row != nil && row.Flags.Has(store.FlagRedacted) {
			if rows == nil {
				rows = map[store.EventNID]*store.EventRow{}
			}
			rows[row.NID] = row
			e.rooms.Redacted(row.NID)
			if row.Event.IsState() {
				e.redactions.Add(1)
			}
		}
	}
	return rows, nil
}

// priors notes for every event which state its room had just before it: that of the room's event before it.
func (e *Engine) priors(ctx context.Context, fresh []item) error {
	for i := range fresh {
		row := fresh[i].event
		if row == nil {
			continue
		}
		state, known := e.tail.heads[row.Room]
		if !known {
			var err error
			if state, err = e.rooms.StateAt(ctx, row.Room, row.Pos-1); err != nil {
				return err
			}
			if len(e.tail.heads) >= maxHeads {
				clear(e.tail.heads)
			}
		}
		fresh[i].prior = state
		e.tail.heads[row.Room] = row.CurrentState()
	}
	return nil
}

const maxHeads = 20_000

// reach waits until the tail holds everything up to a position. What is committed becomes visible as soon as writers
// that began earlier are done, so this is a matter of milliseconds.
func (e *Engine) reach(ctx context.Context, pos store.Pos) error {
	for {
		grown := e.tail.grown()
		if e.tail.reached() >= pos {
			return nil
		}
		select {
		case e.nudges <- struct{}{}: // a change that came without a wake is not waited for until the next poll
		default:
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// grown is closed when the tail is extended next.
func (t *tail) grown() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.growth == nil {
		t.growth = make(chan struct{})
	}
	return t.growth
}
