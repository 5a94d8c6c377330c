package sync

import (
	"maps"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// unread counts what the user has not read of a timeline, or is a timeline's two running numbers (law 6).
type unread struct {
	Notify    int64 `json:"notification_count"`
	Highlight int64 `json:"highlight_count"`
}

// mainNumbers and threadNumbers are the running numbers of a room's main timeline and of an event's own thread.
func mainNumbers(c store.Counts) unread   { return unread{c.Notify, c.Highlight} }
func threadNumbers(c store.Counts) unread { return unread{c.ThreadNotify, c.ThreadHighlight} }

// span is a timeline from where the user has read it to its end.
type span struct {
	read, head unread
}

// left counts what lies between.
func (s span) left() unread {
	return unread{max(0, s.head.Notify-s.read.Notify), max(0, s.head.Highlight-s.read.Highlight)}
}

// readMark is how far a user has read a room, as of a position: its main timeline, and the threads in which there is
// something that the user has not read. It is kept while the user listens, brought forward by the tail, and read again
// after a receipt.
type readMark struct {
	upTo    store.Pos
	joined  store.Pos // the arrival that it counts from
	main    span
	threads map[store.EventNID]threadSpan // never changed, only replaced
}

type threadSpan struct {
	root matrix.EventID
	span
}

// unread adds how much the user has not read of a room: in its main timeline and its threads each, if the client can
// tell them apart, else altogether (client-server API, "Receiving notifications").
func (a *assembly) unread(ref rooms.Ref, m store.MemberRow, out *joinedRoom) error {
	mark, err := a.mark(ref, m)
	if err != nil {
		return err
	}
	total := mark.main.left()
	out.Unread = &total
	for _, t := range mark.threads {
		left := t.left()
		switch {
		case left == unread{}:
		case !a.filter().Timeline.ThreadUnread:
			total.Notify += left.Notify
			total.Highlight += left.Highlight
		default:
			if out.UnreadThreads == nil {
				out.UnreadThreads = map[matrix.EventID]*unread{}
			}
			out.UnreadThreads[t.root] = &left
		}
	}
	return nil
}

// mark finds how far the user has read a room, as of the response's end.
func (a *assembly) mark(ref rooms.Ref, m store.MemberRow) (readMark, error) {
	mark, moved, ok := a.l.mark(ref.NID)
	ok = ok && mark.joined == m.Joined
	var items []item
	if ok {
		items, ok = a.itemsAfter(ref.NID, mark.upTo)
	}
	var err error
	if ok {
		mark, err = a.forward(ref, mark, items)
	} else {
		mark, err = a.readMark(ref, m)
	}
	if err != nil {
		return readMark{}, err
	}
	a.l.setMark(ref.NID, mark, moved)
	return mark, nil
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
func (a *assembly) forward(ref rooms.Ref, mark readMark, items []item) (readMark, error) {
	cloned := false
	for _, it := range items {
		row := it.event
		if row.Pos <= mark.upTo || row.Pos > a.bound {
			continue
		}
		own := row.Sender == a.q.User.NID
		if row.Thread == 0 {
			if mark.main.head = mainNumbers(row.Counts); own {
				mark.main.read = mark.main.head
			}
			continue
		}
		t, known := mark.threads[row.Thread]
		if own && !known {
			continue
		}
		if !cloned {
			if mark.threads, cloned = maps.Clone(mark.threads), true; mark.threads == nil {
				mark.threads = map[store.EventNID]threadSpan{}
			}
		}
		if own {
			delete(mark.threads, row.Thread)
			continue
		}
		if !known {
			var err error
			if t, err = a.threadBefore(ref.NID, row); err != nil {
				return readMark{}, err
			}
		}
		t.head = threadNumbers(row.Counts)
		mark.threads[row.Thread] = t
	}
	mark.upTo = max(mark.upTo, a.bound)
	return mark, nil
}

// threadBefore is a thread that the user had read to its end when an event came.
func (a *assembly) threadBefore(room store.RoomNID, row *store.EventRow) (t threadSpan, err error) {
	err = a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		at, err := tx.ThreadAt(room, row.Thread, row.Pos)
		t = threadSpan{at.Root, span{read: threadNumbers(at.Read)}}
		return err
	})
	return t, err
}

// readMark reads a mark from the database.
func (a *assembly) readMark(ref rooms.Ref, m store.MemberRow) (mark readMark, err error) {
	err = a.e.db.Read(a.ctx, func(tx *store.Tx) error {
		mark = readMark{upTo: a.bound, joined: m.Joined}
		main, every, err := tx.ReadMark(ref.NID, a.q.User.NID, m.Joined, a.bound)
		if err != nil {
			return err
		}
		if mark.main.read, err = numbersAt(tx, ref.NID, main); err != nil {
			return err
		}
		if mark.main.head, err = numbersAt(tx, ref.NID, a.bound); err != nil {
			return err
		}
		return tx.UnreadThreads(ref.NID, a.q.User.NID, every, a.bound, func(t store.ThreadMark) {
			if mark.threads == nil {
				mark.threads = map[store.EventNID]threadSpan{}
			}
			mark.threads[t.Thread] = threadSpan{t.Root, span{threadNumbers(t.Read), threadNumbers(t.Head)}}
		})
	})
	return mark, err
}

// numbersAt are the running numbers of a room's main timeline at a position.
func numbersAt(tx *store.Tx, room store.RoomNID, pos store.Pos) (unread, error) {
	row, err := tx.HeadAt(room, pos)
	if row == nil {
		return unread{}, err
	}
	return mainNumbers(row.Counts), err
}

// mark is how far the user has read a room, if that is known; moved goes with what is read of it otherwise.
func (l *listener) mark(room store.RoomNID) (mark readMark, moved int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mark, ok = l.marks[room]
	return mark, l.moved, ok
}

// setMark keeps a mark unless a newer one is kept or the user has sent a receipt since it was read.
func (l *listener) setMark(room store.RoomNID, mark readMark, moved int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved != moved || l.marks[room].upTo > mark.upTo {
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
