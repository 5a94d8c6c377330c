package store

import (
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
)

// CountFlags say what an event counts as for somebody.
type CountFlags int16

// The flags of a count.
const (
	CountsNotify    CountFlags = 1
	CountsHighlight CountFlags = 2
)

// CountOf makes flags of an outcome.
func CountOf(notify, highlight bool) (f CountFlags) {
	if notify {
		f |= CountsNotify
	}
	if highlight {
		f |= CountsHighlight
	}
	return f
}

// Notify and Highlight are the flags as numbers to add up.
func (f CountFlags) Notify() int64    { return int64(f & CountsNotify) }
func (f CountFlags) Highlight() int64 { return int64(f&CountsHighlight) / int64(CountsHighlight) }

// In is what something that counts for everybody as f says counts as in a mode.
func (f CountFlags) In(mode pushrules.Mode) CountFlags {
	return CountOf(mode.Counted(f&CountsNotify != 0, f&CountsHighlight != 0))
}

// PersonalCount says that an event counts for a user otherwise than the user's mode has it (law 6).
type PersonalCount struct {
	Member UserNID
	Counts CountFlags
	Base   CountFlags // what it counts as for everybody, in the running numbers
}

// writeCounts queues the personal counts of the events of all groups.
func (w *appendWork) writeCounts(b *Batch) {
	type placed struct {
		PersonalCount
		row *EventRow
	}
	var rows []placed
	for _, a := range w.good {
		for _, e := range a.Events {
			for _, c := range e.Personal {
				rows = append(rows, placed{c, e})
			}
		}
	}
	b.Insert(Insert{Table: "push_counts", Rows: len(rows), Cols: []Col{
		IntCol("room", func(i int) RoomNID { return rows[i].row.Room }),
		IntCol("member", func(i int) UserNID { return rows[i].Member }),
		IntCol("pos", func(i int) Pos { return rows[i].row.Pos }),
		IntCol("thread", func(i int) EventNID { return rows[i].row.Thread }),
		IntCol("counts", func(i int) CountFlags { return rows[i].Counts }),
		IntCol("base", func(i int) CountFlags { return rows[i].Base }),
	}})
}

// FillPersonal reads the personal counts of events that have some, whose rows nobody else has seen yet.
func (tx *Tx) FillPersonal(rows []*EventRow) error {
	byPos := map[Pos]*EventRow{}
	var rooms []RoomNID
	lo, hi := Pos(1)<<62, Pos(0)
	for _, row := range rows {
		if row.Flags.Has(FlagPersonal) && row.Live() {
			byPos[row.Pos] = row
			rooms = append(rooms, row.Room)
			lo, hi = min(lo, row.Pos), max(hi, row.Pos)
		}
	}
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT pos, member, counts, base FROM push_counts WHERE room IN ({ids $1}) AND pos >= $2 AND pos <= $3`, func(r *Row) error {
			if row := byPos[Pos(r.Int64(0))]; row != nil {
				row.Personal = append(row.Personal, PersonalCount{UserNID(r.Int64(1)), CountFlags(r.Int64(2)), CountFlags(r.Int64(3))})
			}
			return nil
		}, unique(part), lo, hi)
	})
}

// unique are the numbers of a list, each once.
func unique[T ~int64](list []T) []int64 {
	seen := map[T]bool{}
	var out []int64
	for _, v := range list {
		if !seen[v] {
			seen[v] = true
			out = append(out, int64(v))
		}
	}
	return out
}

// Correction is what single events change in a count: a personal count in the place of what the running numbers hold, or
// an event that counts no more.
type Correction struct {
	Pos    Pos
	Thread EventNID // 0 for the main timeline
	PersonalCount
	Gone bool // redacted, or by somebody whom the user ignores: Counts is 0
}

// Corrections reads what single events change for a user in a room between two positions. ignored are the users whose
// events do not count.
func (tx *Tx) Corrections(room RoomNID, user UserNID, ignored []matrix.UserID, after, upTo Pos, each func(Correction)) error {
	err := tx.Query(`SELECT c.pos, c.thread, c.counts, c.base, e.flags, u.user_id FROM push_counts c
		JOIN events e ON e.pos = c.pos AND e.sub = 0 JOIN users u ON u.nid = e.sender
		WHERE c.room = $1 AND c.member = $2 AND c.pos > $3 AND c.pos <= $4`, func(r *Row) error {
		if EventFlags(r.Int64(4)).Has(FlagRedacted) || slices.Contains(ignored, matrix.UserID(r.Text(5))) {
			return nil // gone, see below
		}
		each(Correction{Pos: Pos(r.Int64(0)), Thread: EventNID(r.Int64(1)), PersonalCount: PersonalCount{user, CountFlags(r.Int64(2)), CountFlags(r.Int64(3))}})
		return nil
	}, room, user, after, upTo)
	if err != nil {
		return err
	}
	if err := tx.gone(`(e.flags & 8) <> 0`, each, room, after, upTo); err != nil || len(ignored) == 0 {
		return err
	}
	return tx.gone(`(e.flags & 8) = 0 AND e.sender IN (SELECT nid FROM users WHERE user_id IN ({texts $4}))`, each, room, after, upTo, texts(ignored))
}

// gone reads events that count no more, with what the running numbers hold of each: the difference to the event before.
func (tx *Tx) gone(which string, each func(Correction), args ...any) error {
	before := func(column, same string) string {
		return `coalesce((SELECT p.` + column + ` FROM events p WHERE p.` + same + ` = e.` + same + ` AND p.sub = 0 AND p.pos < e.pos
			ORDER BY p.pos DESC LIMIT 1), 0)`
	}
	held := func(column string) string {
		return `CASE WHEN e.thread = 0 THEN e.` + column + ` - ` + before(column, `room`) +
			` ELSE e.t_` + column + ` - ` + before(`t_`+column, `thread`) + ` END`
	}
	return tx.Query(`SELECT e.pos, e.thread, `+held(`notify`)+`, `+held(`highlight`)+` FROM events e
		WHERE e.room = $1 AND e.sub = 0 AND e.pos > $2 AND e.pos <= $3 AND `+which, func(r *Row) error {
		if base := CountOf(r.Int64(2) > 0, r.Int64(3) > 0); base != 0 {
			each(Correction{Pos: Pos(r.Int64(0)), Thread: EventNID(r.Int64(1)), PersonalCount: PersonalCount{Base: base}, Gone: true})
		}
		return nil
	}, args...)
}
