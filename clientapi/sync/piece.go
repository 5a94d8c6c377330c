package sync

import (
	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
	"conclave/rooms"
)

// piece is the part of a room's timeline that a response shows, and the states around it.
type piece struct {
	events  []*store.EventRow
	limited bool
	start   rooms.Place // just before the first event shown
	upTo    store.Pos   // where what the response covers ends
	summary *summary    // once it was asked for
	changed bool        // something happened, though perhaps nothing that may be shown

	atSince store.State // the room's state as the client knows it; zero if it knows none
	atStart store.State // before the first event shown
	atEnd   store.State // at the end of what the response covers
}

// piece finds the newest events of a room after the client's token and up to a position, as many as the filter asks.
func (a *assembly) piece(ref rooms.Ref, m store.MemberRow, fresh bool, upTo store.Pos) (*piece, error) {
	if !fresh && a.inTail {
		return a.pieceFromTail(ref, m, upTo)
	}
	from := a.from
	if fresh {
		from = 0
	}
	p := &piece{changed: true, upTo: upTo}
	keep := &a.filter().Timeline
	ignored, err := a.l.ignores(a.ctx, a.e)
	if err != nil {
		return nil, err
	}
	q := rooms.PageRequest{
		Ref: ref, Viewer: rooms.Viewer{ID: a.q.User.ID, Member: &m}, From: rooms.Place{Pos: upTo}, To: &rooms.Place{Pos: from},
		Backward: true, Limit: keep.limit(),
	}
	read := a.ahead.of(ref.NID) && upTo == a.bound
	if read {
		q.Newest = a.ahead.newest[ref.NID]
	}
	if !keep.keepsAll() || len(ignored) > 0 {
		q.Keep = func(row *store.EventRow) bool { return keep.Keeps(row) && !withheld(row, ignored) }
	}
	page, err := a.e.rooms.Page(a.ctx, q)
	if err != nil {
		return nil, err
	}
	for i := len(page.Events) - 1; i >= 0; i-- {
		p.events = append(p.events, page.Events[i])
	}
	p.limited, p.start = !page.Done, page.End
	if err := a.states(ref, p, fresh, upTo, read); err != nil {
		return nil, err
	}
	p.atStart = p.atEnd
	if len(p.events) > 0 {
		p.atStart = p.events[0].StateBefore()
	}
	return p, nil
}

// states finds the states at the ends of a piece: where they were read ahead, there.
func (a *assembly) states(ref rooms.Ref, p *piece, fresh bool, upTo store.Pos, read bool) (err error) {
	known := false
	if read {
		p.atEnd, known = a.ahead.end(ref.NID)
	}
	if !known {
		if p.atEnd, err = a.e.rooms.StateAt(a.ctx, ref.NID, upTo); err != nil {
			return err
		}
	}
	if fresh {
		return nil
	}
	if read {
		p.atSince = a.ahead.since[ref.NID]
		return nil
	}
	p.atSince, err = a.e.rooms.StateAt(a.ctx, ref.NID, a.from)
	return err
}

// pieceFromTail is piece for a client that is nearly up to date: it needs no database.
func (a *assembly) pieceFromTail(ref rooms.Ref, m store.MemberRow, upTo store.Pos) (*piece, error) {
	p := &piece{start: rooms.Place{Pos: a.from}, upTo: upTo}
	items := a.byRoom[ref.NID]
	if len(items) == 0 {
		return p, nil
	}
	p.changed, p.atSince, p.atStart, p.atEnd = true, items[0].prior, items[0].prior, items[0].prior
	sees := a.e.rooms.VisibleTo(ref, rooms.Viewer{ID: a.q.User.ID, Member: &m})
	keep := &a.filter().Timeline
	ignored, err := a.l.ignores(a.ctx, a.e)
	if err != nil {
		return nil, err
	}
	for _, it := range items {
		if it.pos > upTo {
			break
		}
		row := it.event
		p.atEnd = row.CurrentState()
		if !keep.Keeps(row) || withheld(row, ignored) {
			continue
		}
		shown, err := sees.Shown(a.ctx, row)
		if err != nil {
			return nil, err
		}
		if shown != nil {
			p.events = append(p.events, shown)
		}
	}
	if over := len(p.events) - keep.limit(); over > 0 {
		p.events, p.limited = p.events[over:], true
	}
	if len(p.events) > 0 {
		p.start = rooms.Before(p.events[0])
		if p.limited {
			p.atStart = p.events[0].StateBefore()
		}
	} else {
		p.atStart = p.atEnd
		if p.limited { // none was asked for: those that are not shown stand before the end
			p.start = rooms.Place{Pos: upTo}
		}
	}
	return p, nil
}

// withheld says whether an event is kept from a user because of whom the user ignores (client-server API, "Ignoring
// Users"): state that ignored users set is what it is for all.
func withheld(row *store.EventRow, ignored map[matrix.UserID]bool) bool {
	return len(ignored) > 0 && !row.Event.IsState() && ignored[row.Event.Sender()]
}

// state chooses the state events that go with a piece: all of them for a client that does not know the room, else what
// differs from what it knows; without the members that it does not need, if it loads them lazily.
func (a *assembly) state(ref rooms.Ref, p *piece, fresh bool) ([]*store.EventRow, error) {
	target := p.atStart
	if a.q.StateAfter || a.q.OldStateAfter {
		target = p.atEnd
	}
	keep := &a.filter().State
	var rows []*store.EventRow
	var err error
	switch {
	case fresh || a.q.FullState && len(p.events) == 0 && !p.changed:
		if !fresh {
			if target, err = a.e.rooms.StateAt(a.ctx, ref.NID, p.upTo); err != nil {
				return nil, err
			}
		}
		rows, err = a.wholeState(ref, p, target)
	case a.q.FullState:
		rows, err = a.wholeState(ref, p, target)
	default:
		rows, err = a.stateDelta(ref, p, target)
	}
	if err != nil || keep.keepsAll() {
		return rows, err
	}
	kept := rows[:0:0]
	for _, row := range rows {
		if keep.Keeps(row) {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

func (a *assembly) wholeState(ref rooms.Ref, p *piece, target store.State) ([]*store.EventRow, error) {
	if !a.filter().State.LazyLoad {
		return a.e.rooms.AllState(a.ctx, ref.NID, target, true)
	}
	rest, err := a.e.rooms.AllState(a.ctx, ref.NID, target, false)
	if err != nil {
		return nil, err
	}
	members, err := a.lazyMembers(ref, p, target)
	return append(rest, members...), err
}

// lazyMembers are the member events of those who sent what is shown, of those after whom a room without a name is called,
// and of the user.
func (a *assembly) lazyMembers(ref rooms.Ref, p *piece, target store.State) ([]*store.EventRow, error) {
	needed := []matrix.UserID{a.q.User.ID}
	for _, row := range p.events {
		needed = append(needed, row.Event.Sender())
	}
	if membersChanged(p) || a.q.FullState {
		s, err := a.summary(ref, p)
		if err != nil {
			return nil, err
		}
		needed = append(needed, s.Heroes...)
	}
	var keys []authrules.StateKey
	seen := map[matrix.UserID]bool{}
	for _, id := range needed {
		if !seen[id] {
			seen[id] = true
			keys = append(keys, authrules.StateKey{Type: "m.room.member", Key: string(id)})
		}
	}
	return a.e.rooms.StateEventList(a.ctx, ref.NID, target, keys)
}

func (a *assembly) stateDelta(ref rooms.Ref, p *piece, target store.State) ([]*store.EventRow, error) {
	var rows []*store.EventRow
	if p.atSince != target {
		changes, err := a.e.rooms.StateDelta(a.ctx, ref.NID, p.atSince, target)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			if c.To != nil {
				rows = append(rows, c.To)
			}
		}
	}
	if !a.filter().State.LazyLoad || len(p.events) == 0 && !membersChanged(p) {
		return rows, nil
	}
	members, err := a.lazyMembers(ref, p, target)
	if err != nil {
		return nil, err
	}
	have := map[store.EventNID]bool{}
	for _, row := range append(rows, p.events...) {
		have[row.NID] = true
	}
	for _, row := range members {
		if !have[row.NID] {
			rows = append(rows, row)
		}
	}
	return rows, nil
}
