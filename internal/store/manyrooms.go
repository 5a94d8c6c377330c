package store

import (
	"fmt"
	"strconv"
	"strings"
)

// Whoever reads many rooms, such as the first sync of a client, asks for all of them at once: what a statement costs besides
// its rows, on either engine, would otherwise be paid for each room.

// EventMark says which event stands where, and what kind of row it is: enough to know whether a row in memory is the one
// in the database. A row whose text changes changes its flags, and one that finds a place its position.
type EventMark struct {
	NID   EventNID
	Flags EventFlags
	Pos   Pos
	Sub   int64
}

// Of reports whether a row is the one that the mark stands for.
func (m EventMark) Of(row *EventRow) bool {
	return row.NID == m.NID && row.Flags == m.Flags && row.Pos == m.Pos && row.Sub == m.Sub
}

// NewestOf reads where the newest events of each of some rooms stand that came up to a position, at most limit for each and
// the newest first. They are those that Timeline reads backward from there.
func (tx *Tx) NewestOf(rooms []RoomNID, upTo Pos, limit int, each func(RoomNID, []EventMark)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT x.value, (SELECT string_agg(CAST(t.nid AS TEXT) || ' ' || CAST(t.flags AS TEXT) || ' ' || CAST(t.pos AS TEXT)
				|| ' ' || CAST(t.sub AS TEXT), ',' ORDER BY t.pos DESC, t.sub DESC)
			FROM (SELECT h.nid, h.flags, h.pos, h.sub FROM events h WHERE h.room = x.value AND h.pos IS NOT NULL AND (h.pos, h.sub) <= ($2, 0)
				ORDER BY h.pos DESC, h.sub DESC LIMIT $3) t)
			FROM ({ids $1}) x`, func(r *Row) error {
			marks, err := eventMarks(r.Text(1))
			if err == nil && len(marks) > 0 {
				each(RoomNID(r.Int64(0)), marks)
			}
			return err
		}, int64s(part), upTo, limit)
	})
}

// eventMarks reads what NewestOf gathers of one room.
func eventMarks(text string) (marks []EventMark, err error) {
	if text == "" {
		return nil, nil
	}
	marks = make([]EventMark, 0, strings.Count(text, ",")+1)
	for part := range strings.SplitSeq(text, ",") {
		var n [4]int64
		for i := range n {
			number, rest, _ := strings.Cut(part, " ")
			if n[i], err = strconv.ParseInt(number, 10, 64); err != nil {
				return nil, fmt.Errorf("the mark of an event: %w", err)
			}
			part = rest
		}
		marks = append(marks, EventMark{EventNID(n[0]), EventFlags(n[1]), Pos(n[2]), n[3]})
	}
	return marks, nil
}

// EventsOf reads events of some rooms by number, in no particular order; those of other rooms are left out.
func (tx *Tx) EventsOf(rooms []RoomNID, nids []EventNID, each func(*EventRow)) error {
	wanted := make(map[RoomNID]bool, len(rooms))
	for _, room := range rooms {
		wanted[room] = true
	}
	return chunks(nids, func(part []EventNID) error {
		return tx.events(selectEvents+`WHERE e.nid IN ({ids $1})`, func(row *EventRow) {
			if wanted[row.Room] {
				each(row)
			}
		}, int64s(part))
	})
}

// WithChildren says to which of some events others relate, of whatever kind.
func (tx *Tx) WithChildren(nids []EventNID, each func(EventNID)) error {
	return chunks(nids, func(part []EventNID) error {
		return tx.Query(`SELECT e.nid FROM events e WHERE e.nid IN ({ids $1}) AND EXISTS (
			SELECT 1 FROM relations r WHERE r.room = e.room AND r.target = e.event_id)`, func(r *Row) error {
			each(EventNID(r.Int64(0)))
			return nil
		}, int64s(part))
	})
}

// WithRelations names those of some rooms in which events relate to others.
func (tx *Tx) WithRelations(rooms []RoomNID, each func(RoomNID)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT x.value FROM ({ids $1}) x WHERE EXISTS (SELECT 1 FROM relations r WHERE r.room = x.value)`, func(r *Row) error {
			each(RoomNID(r.Int64(0)))
			return nil
		}, int64s(part))
	})
}

// MemberCountsOf is MemberCounts for several rooms.
func (tx *Tx) MemberCountsOf(rooms []RoomNID, each func(room RoomNID, membership Membership, count int)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT room, membership, count(*) FROM memberships WHERE room IN ({ids $1}) GROUP BY room, membership`, func(r *Row) error {
			each(RoomNID(r.Int64(0)), Membership(r.Int64(1)), r.Int(2))
			return nil
		}, int64s(part))
	})
}

// HeroesOf is Heroes for several rooms; rooms without any are left out.
func (tx *Tx) HeroesOf(rooms []RoomNID, except UserNID, n int, each func(RoomNID, []UserNID)) error {
	return chunks(rooms, func(part []RoomNID) error {
		left := part
		for _, which := range []string{`m.membership IN (1, 2)`, `m.membership IN (3, 4)`} {
			var none []RoomNID
			err := tx.Query(`SELECT x.value, (SELECT string_agg(CAST(t.member AS TEXT), ',' ORDER BY t.never, t.joined, t.pos)
				FROM (SELECT m.member, m.joined = 0 AS never, m.joined, m.pos FROM memberships m WHERE m.room = x.value AND m.member <> $2 AND `+which+`
					ORDER BY m.joined = 0, m.joined, m.pos LIMIT $3) t)
				FROM ({ids $1}) x`, func(r *Row) error {
				if r.IsNull(1) {
					none = append(none, RoomNID(r.Int64(0)))
					return nil
				}
				var heroes []UserNID
				for text := range strings.SplitSeq(r.Text(1), ",") {
					nid, err := strconv.ParseInt(text, 10, 64)
					if err != nil {
						return fmt.Errorf("the number of a user: %w", err)
					}
					heroes = append(heroes, UserNID(nid))
				}
				each(RoomNID(r.Int64(0)), heroes)
				return nil
			}, int64s(left), except, n)
			if left = none; err != nil || len(left) == 0 {
				return err
			}
		}
		return nil
	})
}

// ReceiptsOf is Receipts for several rooms, at most limit of each.
func (tx *Tx) ReceiptsOf(rooms []RoomNID, viewer UserNID, after, upTo Pos, limit int, each func(Receipt)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.receipts(`SELECT `+receiptColumns+` FROM (SELECT x.value AS room, coalesce((SELECT c.pos FROM receipts c
				WHERE c.room = x.value AND c.pos > $2 AND c.pos <= $3 AND (c.kind IN (1, 3) OR c.kind = 2 AND c.member = $4)
				ORDER BY c.pos DESC LIMIT 1 OFFSET $5), $2) AS cut FROM ({ids $1}) x) y
			JOIN receipts r ON r.room = y.room AND r.pos > y.cut AND r.pos <= $3 AND (r.kind IN (1, 3) OR r.kind = 2 AND r.member = $4)
			JOIN users u ON u.nid = r.member ORDER BY r.pos DESC`, each, int64s(part), after, upTo, viewer, limit)
	})
}

// UnreadHint says of a room how far a user has read it by its receipts, and where the newest of those things stands that
// make a count more than the difference of two numbers; 0 for none.
type UnreadHint struct {
	Main, Every Pos // as ReadMark, without the user's arrival and own messages
	Threaded    Pos // an event of a thread
	Personal    Pos // an event that counts for the user otherwise than its mode says
	Redacted    Pos
}

// UnreadHints reads the hints for several rooms, as of a position.
func (tx *Tx) UnreadHints(rooms []RoomNID, user UserNID, upTo Pos, each func(RoomNID, UnreadHint)) error {
	newest := func(from, where string) string {
		return `coalesce((SELECT n.pos FROM ` + from + ` n WHERE n.room = x.value AND n.pos <= $3 AND ` + where + ` ORDER BY n.pos DESC LIMIT 1), 0)`
	}
	furthest := func(threads string) string {
		return `coalesce((SELECT max(c.place) FROM receipts c WHERE c.room = x.value AND c.member = $2 AND c.kind IN (1, 2) AND c.thread IN (` + threads + `)), 0)`
	}
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT x.value, `+furthest(`'', 'main'`)+`, `+furthest(`''`)+`, `+newest(`events`, `n.thread <> 0 AND n.sub = 0`)+`, `+
			newest(`push_counts`, `n.member = $2`)+`, `+newest(`events`, `(n.flags & 8) <> 0 AND n.sub = 0`)+` FROM ({ids $1}) x`, func(r *Row) error {
			each(RoomNID(r.Int64(0)), UnreadHint{Pos(r.Int64(1)), Pos(r.Int64(2)), Pos(r.Int64(3)), Pos(r.Int64(4)), Pos(r.Int64(5))})
			return nil
		}, int64s(part), user, upTo)
	})
}

// AccountDataOf is AccountDataSince for several rooms.
func (tx *Tx) AccountDataOf(user UserNID, rooms []RoomNID, after, upTo Pos, each func(room RoomNID, typ, content string)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT room, type, content FROM account_data WHERE member = $1 AND room IN ({ids $2}) AND pos > $3 AND pos <= $4
			ORDER BY room, type`, func(r *Row) error {
			each(RoomNID(r.Int64(0)), r.Text(1), r.Text(2))
			return nil
		}, user, int64s(part), after, upTo)
	})
}
