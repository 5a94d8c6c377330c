package sync

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// summary names a room that has no name, and counts who is in it.
type summary struct {
	Heroes  []matrix.UserID `json:"m.heroes,omitempty"`
	Joined  int             `json:"m.joined_member_count"`
	Invited int             `json:"m.invited_member_count"`
}

// unread counts what the user has not read.
type unread struct {
	Notify    int64 `json:"notification_count"`
	Highlight int64 `json:"highlight_count"`
}

// signals adds what goes with a joined room beside events: counts, receipts, typing, the user's own data.
func (a *assembly) signals(ref rooms.Ref, m store.MemberRow, p *piece, fresh bool, out *joinedRoom) error {
	if fresh || a.q.FullState || membersChanged(p) {
		var err error
		if out.Summary, err = a.summary(ref); err != nil {
			return err
		}
	}
	if err := a.ephemeral(ref, m, fresh, out); err != nil {
		return err
	}
	if fresh || a.ownData || !a.inTail {
		if err := a.roomData(ref, fresh, out); err != nil {
			return err
		}
	}
	if !p.changed && !fresh && out.Ephemeral == nil {
		return nil
	}
	var err error
	out.Unread, err = a.unread(ref, m, p)
	return err
}

// membersChanged says whether a piece may have changed the summary.
func membersChanged(p *piece) bool {
	return p.atSince.Members != p.atEnd.Members
}

func (a *assembly) summary(ref rooms.Ref) (*summary, error) {
	s := &summary{}
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		counts, err := tx.MemberCounts(ref.NID)
		if err != nil {
			return err
		}
		s.Joined, s.Invited = counts[store.Join], counts[store.Invite]
		s.Heroes, err = tx.Heroes(ref.NID, a.q.User.NID, 5)
		return err
	})
	return s, err
}

// ephemeral adds receipts and who is typing.
func (a *assembly) ephemeral(ref rooms.Ref, m store.MemberRow, fresh bool, out *joinedRoom) error {
	keep := &a.filter().Ephemeral
	var events []json.RawMessage
	if keep.KeepsType("m.receipt") && (fresh || !a.inTail || a.receipts[ref.NID]) {
		since := a.from
		if fresh {
			since = 0
		}
		event, err := a.e.receiptEvent(a.ctx, a.q.User, ref, since, a.bound)
		if err != nil {
			return err
		}
		if event != nil {
			events = append(events, event)
		}
	}
	if event := a.e.typing.event(ref.NID, a.typed, fresh); event != nil && keep.KeepsType("m.typing") {
		events = append(events, event)
	}
	if len(events) > 0 {
		out.Ephemeral = &eventList{events}
	}
	return nil
}

// roomData adds the user's own data of a room.
func (a *assembly) roomData(ref rooms.Ref, fresh bool, out *joinedRoom) error {
	since := a.from
	if fresh {
		since = 0
	}
	events, err := a.accountData(ref.NID, since, &a.filter().AccountData)
	if err == nil && len(events) > 0 {
		out.AccountData = &eventList{events}
	}
	return err
}

// accountData reads the user's own data that changed after a position: of one room, or with room 0 the global.
func (a *assembly) accountData(room store.RoomNID, since store.Pos, keep *EventFilter) ([]json.RawMessage, error) {
	var events []json.RawMessage
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		events = nil
		return tx.AccountDataSince(a.q.User.NID, room, since, a.bound, func(typ, content string) {
			if keep.KeepsType(typ) {
				events = append(events, typedEvent(typ, content))
			}
		})
	})
	return events, err
}

// typedEvent is an event of a type and content alone.
func typedEvent(typ, content string) json.RawMessage {
	name, err := json.Marshal(typ)
	if err != nil {
		name = []byte(`""`)
	}
	out := append([]byte(`{"type":`), name...)
	out = append(append(out, `,"content":`...), content...)
	return append(out, '}')
}

// unread counts what came after the furthest of what the user has read, sent, or joined at (law 6). The mark is kept
// in memory while the user listens; only a receipt makes it be read again.
func (a *assembly) unread(ref rooms.Ref, m store.MemberRow, p *piece) (*unread, error) {
	mark, err := a.mark(ref, m)
	if err != nil {
		return nil, err
	}
	var head store.Counts
	if items := a.byRoom[ref.NID]; len(items) > 0 {
		for _, it := range items {
			if it.event.Sender == a.q.User.NID && it.pos > mark.pos {
				mark = readMark{it.pos, it.event.Counts}
				a.l.advanceMark(ref.NID, mark)
			}
		}
		head = items[len(items)-1].event.Counts
	} else if head, err = a.countsAt(ref, a.bound); err != nil {
		return nil, err
	}
	return &unread{max(0, head.Notify-mark.counts.Notify), max(0, head.Highlight-mark.counts.Highlight)}, nil
}

// readMark is how far a user has read a room, and the running numbers there.
type readMark struct {
	pos    store.Pos
	counts store.Counts
}

// mark finds how far the user has read a room.
func (a *assembly) mark(ref rooms.Ref, m store.MemberRow) (readMark, error) {
	mark, moved, ok := a.l.mark(ref.NID)
	if ok {
		return mark, nil
	}
	var pos store.Pos
	err := a.e.db.Read(a.ctx, func(tx *store.Tx) (err error) {
		pos, err = tx.ReadMark(ref.NID, a.q.User.NID, m.Joined, a.bound)
		return err
	})
	if err != nil {
		return readMark{}, err
	}
	counts, err := a.countsAt(ref, pos)
	mark = readMark{pos, counts}
	if err == nil {
		a.l.setMark(ref.NID, mark, moved)
	}
	return mark, err
}

func (a *assembly) countsAt(ref rooms.Ref, pos store.Pos) (counts store.Counts, err error) {
	err = a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		row, err := tx.HeadAt(ref.NID, pos)
		if row != nil {
			counts = row.Counts
		}
		return err
	})
	return counts, err
}

// mark is how far the user has read a room, if that is known; moved goes with what is read of it otherwise.
func (l *listener) mark(room store.RoomNID) (mark readMark, moved int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mark, ok = l.marks[room]
	return mark, l.moved, ok
}

// setMark keeps a mark unless the user has sent a receipt since it was read.
func (l *listener) setMark(room store.RoomNID, mark readMark, moved int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved != moved {
		return
	}
	if l.marks == nil {
		l.marks = map[store.RoomNID]readMark{}
	}
	l.marks[room] = mark
}

// forgetMark makes the mark of a room be read again.
func (l *listener) forgetMark(room store.RoomNID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved++
	delete(l.marks, room)
}

// advanceMark moves a mark that is kept: the user's own event counts as read.
func (l *listener) advanceMark(room store.RoomNID, mark readMark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if had, ok := l.marks[room]; ok && had.pos < mark.pos {
		l.marks[room] = mark
	}
}
