package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// Tally counts events: those that notify, and those of them that highlight.
type Tally struct {
	Notify    int64 `json:"notification_count"`
	Highlight int64 `json:"highlight_count"`
}

// Numbers and ThreadNumbers are the running numbers of a room's main timeline and of an event's own thread.
func Numbers(c store.Counts) Tally       { return Tally{c.Notify, c.Highlight} }
func ThreadNumbers(c store.Counts) Tally { return Tally{c.ThreadNotify, c.ThreadHighlight} }

// Add, Sub and Floor are arithmetic; Floor lets nothing be less than nothing.
func (t Tally) Add(o Tally) Tally { return Tally{t.Notify + o.Notify, t.Highlight + o.Highlight} }
func (t Tally) Sub(o Tally) Tally { return Tally{t.Notify - o.Notify, t.Highlight - o.Highlight} }
func (t Tally) Floor() Tally      { return Tally{max(0, t.Notify), max(0, t.Highlight)} }

// In is what a difference of running numbers counts as in a mode.
func (t Tally) In(mode pushrules.Mode) Tally {
	switch mode {
	case pushrules.Mentions: // what highlights everybody notifies as well
		return Tally{t.Highlight, t.Highlight}
	case pushrules.Nothing:
		return Tally{}
	}
	return t
}

func tallyOf(f store.CountFlags) Tally { return Tally{f.Notify(), f.Highlight()} }

// Standing is a timeline from where a user has read it: what is left to read, and the running numbers at its end.
type Standing struct {
	Root matrix.EventID // of a thread
	Left Tally
	Head Tally
}

// Pass moves the end of a timeline past an event whose running numbers are given. own is what the event counts as for the
// user if that is not what the mode says; ignored, that it counts for nothing.
func (s *Standing) Pass(numbers Tally, mode pushrules.Mode, own *store.PersonalCount, ignored bool) {
	more := numbers.Sub(s.Head).In(mode)
	if own != nil {
		more = tallyOf(own.Counts)
	}
	if !ignored {
		s.Left = s.Left.Add(more)
	}
	s.Head = numbers
}

// Unread is how far a user has read a room, as of a position: its main timeline, and the threads in which there is
// something that the user has not read.
type Unread struct {
	UpTo    store.Pos
	Joined  store.Pos // the arrival that it counts from
	Mode    pushrules.Mode
	Main    Standing
	Threads map[store.EventNID]Standing
}

// Total is what is left to read of all timelines.
func (u *Unread) Total() Tally {
	total := u.Main.Left.Floor()
	for _, t := range u.Threads {
		total = total.Add(t.Left.Floor())
	}
	return total
}

// Unread counts what a user who is in a room has not read of it, as of a position. ignored are the users whose events do not
// count.
func (r *Rooms) Unread(ctx context.Context, ref Ref, m store.MemberRow, ignored []matrix.UserID, upTo store.Pos) (*Unread, error) {
	var u *Unread
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		t := &teller{tx: tx, ref: ref, user: m.Member, upTo: upTo, ignored: ignored}
		var err error
		u, err = t.count(m.Joined)
		return err
	})
	return u, err
}

// UnreadIn is Unread for several rooms in which a user is. newest are the rooms' newest events up to that position, as Newest
// reads them; most of what is asked stands in them.
func (r *Rooms) UnreadIn(ctx context.Context, refs map[store.RoomNID]Ref, members []store.MemberRow, newest map[store.RoomNID][]*store.EventRow, ignored []matrix.UserID, upTo store.Pos) (map[store.RoomNID]*Unread, error) {
	if len(members) == 0 {
		return nil, nil
	}
	user := members[0].Member
	nids, ids := make([]store.RoomNID, len(members)), make([]matrix.RoomID, len(members))
	for i, m := range members {
		nids[i], ids[i] = m.Room, refs[m.Room].ID
	}
	var out map[store.RoomNID]*Unread
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		out = make(map[store.RoomNID]*Unread, len(members))
		hints := make(map[store.RoomNID]*store.UnreadHint, len(members))
		if err := tx.UnreadHints(nids, user, upTo, func(room store.RoomNID, hint store.UnreadHint) { hints[room] = &hint }); err != nil {
			return err
		}
		modes, err := tx.ModesOf(user, ids)
		if err != nil {
			return err
		}
		for _, m := range members {
			ref := refs[m.Room]
			t := &teller{
				tx: tx, ref: ref, user: user, upTo: upTo, ignored: ignored, modes: modes.In(ref.ID), hint: hints[m.Room], newest: newest[m.Room],
			}
			if out[m.Room], err = t.count(m.Joined); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// teller counts what is unread from the database.
type teller struct {
	hint    *store.UnreadHint // nil: everything is to be asked
	newest  []*store.EventRow // the room's newest events, the newest first; may be none
	tx      *store.Tx
	ref     Ref
	user    store.UserNID
	upTo    store.Pos
	ignored []matrix.UserID
	modes   []store.ModeChange
	main    store.Pos // how far the main timeline is read
	threads map[store.EventNID]store.ThreadMark
	out     *Unread
}

func (t *teller) count(joined store.Pos) (*Unread, error) {
	t.out = &Unread{UpTo: t.upTo, Joined: joined}
	main, every, err := t.mark(joined)
	if err != nil {
		return nil, err
	}
	t.main = main
	if t.modes == nil {
		if t.modes, err = t.tx.ModesIn(t.user, t.ref.ID); err != nil {
			return nil, err
		}
	}
	t.out.Mode = t.modes[len(t.modes)-1].Mode
	t.threads = map[store.EventNID]store.ThreadMark{}
	if t.hint == nil || t.hint.Threaded > every {
		err = t.tx.UnreadThreads(t.ref.NID, t.user, every, t.upTo, func(m store.ThreadMark) { t.threads[m.Thread] = m })
		if err != nil {
			return nil, err
		}
	}
	if err := t.countMain(); err != nil {
		return nil, err
	}
	for _, m := range t.threads {
		if err := t.countThread(m); err != nil {
			return nil, err
		}
	}
	if t.hint != nil && t.hint.Personal <= every && t.hint.Redacted <= every && len(t.ignored) == 0 {
		return t.out, nil
	}
	return t.out, t.tx.Corrections(t.ref.NID, t.user, t.ignored, every, t.upTo, t.correct)
}

// mark is how far the user has read, see store.Tx.ReadMark.
func (t *teller) mark(joined store.Pos) (main, every store.Pos, err error) {
	if t.hint == nil {
		return t.tx.ReadMark(t.ref.NID, t.user, joined, t.upTo)
	}
	main, every = max(joined, t.hint.Main), max(joined, t.hint.Every)
	for _, row := range t.newest {
		switch {
		case row.Pos <= main:
			return main, every, nil
		case row.Live() && row.Sender == t.user && row.Thread == 0:
			return row.Pos, every, nil
		}
	}
	main, err = t.tx.OwnNewest(t.ref.NID, t.user, main, t.upTo)
	return main, every, err
}

// numbers are the running numbers of the main timeline at a position.
func (t *teller) numbers(pos store.Pos) (Tally, error) {
	for _, row := range t.newest {
		if row.Live() && row.Pos <= pos {
			return Numbers(row.Counts), nil
		}
	}
	row, err := t.tx.HeadAt(t.ref.NID, pos)
	if row == nil {
		return Tally{}, err
	}
	return Numbers(row.Counts), err
}

func (t *teller) countMain() error {
	read, err := t.numbers(t.main)
	if err != nil {
		return err
	}
	head, err := t.numbers(t.upTo)
	if err != nil {
		return err
	}
	t.out.Main.Head = head
	t.out.Main.Left, err = t.between(t.main, read, head, t.numbers)
	return err
}

func (t *teller) countThread(m store.ThreadMark) error {
	at := func(pos store.Pos) (Tally, error) {
		there, err := t.tx.ThreadAt(t.ref.NID, m.Thread, pos+1)
		return ThreadNumbers(there.Read), err
	}
	head := ThreadNumbers(m.Head)
	left, err := t.between(m.ReadUpTo, ThreadNumbers(m.Read), head, at)
	if err != nil {
		return err
	}
	if t.out.Threads == nil {
		t.out.Threads = map[store.EventNID]Standing{}
	}
	t.out.Threads[m.Thread] = Standing{Root: m.Root, Left: left, Head: head}
	return nil
}

// between counts by the modes that held from a position on, where a timeline's numbers were read, to its end, where they
// are head. at finds its numbers elsewhere.
func (t *teller) between(from store.Pos, read, head Tally, at func(store.Pos) (Tally, error)) (Tally, error) {
	left := Tally{}
	for i, m := range t.modes {
		end := head
		if i+1 < len(t.modes) {
			if next := t.modes[i+1].After; next <= from {
				continue
			} else if next < t.upTo {
				var err error
				if end, err = at(next); err != nil {
					return left, err
				}
			}
		}
		left = left.Add(end.Sub(read).In(m.Mode))
		read = end
	}
	return left, nil
}

// correct puts a single event's count right.
func (t *teller) correct(c store.Correction) {
	var before store.CountFlags
	for _, m := range t.modes {
		if m.After < c.Pos {
			before = c.Base.In(m.Mode)
		}
	}
	change := tallyOf(c.Counts).Sub(tallyOf(before))
	if c.Thread == 0 {
		if c.Pos > t.main {
			t.out.Main.Left = t.out.Main.Left.Add(change)
		}
		return
	}
	s, ok := t.out.Threads[c.Thread]
	if ok && c.Pos > t.threads[c.Thread].ReadUpTo {
		s.Left = s.Left.Add(change)
		t.out.Threads[c.Thread] = s
	}
}
