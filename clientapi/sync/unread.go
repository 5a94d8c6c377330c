package sync

import (
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// unread adds how much the user has not read of a room: in its main timeline and its threads each, if the client can
// tell them apart, else altogether (client-server API, "Receiving notifications").
func (a *assembly) unread(ref rooms.Ref, m store.MemberRow, out *joinedRoom) error {
	mark, err := a.mark(ref, m)
	if err != nil {
		return err
	}
	if !a.filter().Timeline.ThreadUnread {
		total := mark.Total()
		out.Unread = &total
		return nil
	}
	main := mark.Main.Left.Floor()
	out.Unread = &main
	for _, t := range mark.Threads {
		left := t.Left.Floor()
		if left == (rooms.Tally{}) {
			continue
		}
		if out.UnreadThreads == nil {
			out.UnreadThreads = map[matrix.EventID]*rooms.Tally{}
		}
		out.UnreadThreads[t.Root] = &left
	}
	return nil
}

// mark finds how far the user has read a room, as of the response's end. It is kept while the user listens, brought
// forward by the tail, and read again after a receipt, and after anything else that changes more than the end of it.
func (a *assembly) mark(ref rooms.Ref, m store.MemberRow) (*rooms.Unread, error) {
	ignored, err := a.l.ignores(a.ctx, a.e)
	if err != nil {
		return nil, err
	}
	mark, moved, ok := a.l.mark(ref.NID)
	ok = ok && mark.Joined == m.Joined
	var items []item
	if ok {
		items, ok = a.itemsAfter(ref.NID, mark.UpTo)
	}
	if ok && !slices.ContainsFunc(items, func(it item) bool { return it.event.Event.Type() == "m.room.redaction" }) {
		mark, err = a.forward(ref, mark, ignored, items)
	} else if read := a.ahead.mark(ref.NID); read != nil {
		mark, moved = read, a.ahead.moved
	} else {
		mark, err = a.e.rooms.Unread(a.ctx, ref, m, slices.Collect(maps.Keys(ignored)), a.bound)
	}
	if err != nil {
		return nil, err
	}
	a.l.setMark(ref.NID, mark, moved)
	return mark, nil
}

// unmarked are those of some rooms of the user in which it is not known how far the user has read; moved goes with what is
// read of them.
func (a *assembly) unmarked(members []store.MemberRow) (left []store.MemberRow, moved int64) {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	for _, m := range members {
		mark := a.l.marks[m.Room]
		if mark == nil || mark.Joined != m.Joined || !a.e.tail.reaches(mark.UpTo) {
			left = append(left, m)
		}
	}
	return left, a.l.moved
}

// itemsAfter are the events that came into a room after a position, if the tail reaches back to it.
func (a *assembly) itemsAfter(room store.RoomNID, pos store.Pos) (items []item, ok bool) {
	if a.inTail && a.from <= pos {
		return a.byRoom[room], true
	}
	all, _, ok := a.e.tail.after(pos)
	for _, it := range all {
		if it.event != nil && it.event.Room == room {
			items = append(items, it)
		}
	}
	return items, ok
}

// forward brings a mark up to the response's end by the events that came since: what others say counts, and whatever
// the user says itself it has read the timeline up to.
func (a *assembly) forward(ref rooms.Ref, was *rooms.Unread, ignored map[matrix.UserID]bool, items []item) (*rooms.Unread, error) {
	mark := *was
	cloned := false
	for _, it := range items {
		row := it.event
		if row.Pos <= mark.UpTo || row.Pos > a.bound {
			continue
		}
		own := row.Sender == a.q.User.NID
		ignore := ignored[row.Event.Sender()] || row.Flags.Has(store.FlagRedacted)
		if row.Thread == 0 {
			mark.Main.Pass(rooms.Numbers(row.Counts), mark.Mode, a.personalCount(row), ignore)
			if own {
				mark.Main.Left = rooms.Tally{}
			}
			continue
		}
		t, known := mark.Threads[row.Thread]
		if own && !known {
			continue
		}
		if !cloned {
			if mark.Threads, cloned = maps.Clone(mark.Threads), true; mark.Threads == nil {
				mark.Threads = map[store.EventNID]rooms.Standing{}
			}
		}
		if own {
			delete(mark.Threads, row.Thread)
			continue
		}
		if !known {
			var err error
			if t, err = a.threadBefore(ref.NID, row); err != nil {
				return nil, err
			}
		}
		t.Pass(rooms.ThreadNumbers(row.Counts), mark.Mode, a.personalCount(row), ignore)
		mark.Threads[row.Thread] = t
	}
	mark.UpTo = max(mark.UpTo, a.bound)
	return &mark, nil
}

// personalCount is what an event counts as for the user, if not what everybody's numbers and the user's mode say.
func (a *assembly) personalCount(row *store.EventRow) *store.PersonalCount {
	for i, c := range row.Personal {
		if c.Member == a.q.User.NID {
			return &row.Personal[i]
		}
	}
	return nil
}

// threadBefore is a thread that the user had read to its end when an event came.
func (a *assembly) threadBefore(room store.RoomNID, row *store.EventRow) (t rooms.Standing, err error) {
	err = a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		at, err := tx.ThreadAt(room, row.Thread, row.Pos)
		t = rooms.Standing{Root: at.Root, Head: rooms.ThreadNumbers(at.Read)}
		return err
	})
	return t, err
}

// mark is how far the user has read a room, if that is known; moved goes with what is read of it otherwise.
func (l *listener) mark(room store.RoomNID) (mark *rooms.Unread, moved int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mark, ok = l.marks[room]
	return mark, l.moved, ok
}

// setMark keeps a mark unless a newer one is kept or the user has sent a receipt since it was read.
func (l *listener) setMark(room store.RoomNID, mark *rooms.Unread, moved int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was := l.marks[room]; l.moved != moved || was != nil && was.UpTo > mark.UpTo {
		return
	}
	if l.marks == nil {
		l.marks = map[store.RoomNID]*rooms.Unread{}
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

// forgetMarks makes the marks of all rooms be read again.
func (l *listener) forgetMarks() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved++
	clear(l.marks)
}
