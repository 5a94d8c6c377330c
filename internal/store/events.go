package store

import (
	"fmt"

	"conclave/internal/matrix"
)

// eventColumns are what eventRow reads, in its order. The room's version is needed to read an event's text.
const eventColumns = `e.nid, e.room, e.event_id, e.sender, e.pos, e.sub, e.flags, e.state_before, e.state_after, e.state_head,
	e.extremities, e.thread, e.notify, e.highlight, e.t_notify, e.t_highlight, e.json, r.version, e.height`

const selectEvents = `SELECT ` + eventColumns + ` FROM events e JOIN rooms r ON r.nid = e.room `

// eventRow reads one row of selectEvents.
func eventRow(r *Row) (*EventRow, error) {
	e := &EventRow{
		NID: EventNID(r.Int64(0)), Room: RoomNID(r.Int64(1)), Sender: UserNID(r.Int64(3)),
		Pos: Pos(r.Int64(4)), Sub: r.Int64(5), Flags: EventFlags(r.Int64(6)),
		Extremities: unpackNIDs(r.Bytes(10)), Thread: EventNID(r.Int64(11)),
		Counts: Counts{r.Int64(12), r.Int64(13), r.Int64(14), r.Int64(15)}, Height: r.Int64(18),
	}
	for i, state := range []**State{&e.Before, &e.After, &e.Head} {
		if r.IsNull(7 + i) {
			continue
		}
		s, err := stateFrom(r.Bytes(7 + i))
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", e.NID, err)
		}
		*state = &s
	}
	id := matrix.EventID(r.Text(2))
	ev, err := matrix.TrustedEvent([]byte(r.Text(16)), id, matrix.RoomVersion(r.Int64(17)))
	if err != nil {
		return nil, fmt.Errorf("event %s cannot be read: %w", id, err)
	}
	e.Event = ev
	return e, nil
}

// events runs a query that begins with selectEvents. A row that cannot be read is reported and left out: one broken
// row must not take its room away (threats D04).
func (tx *Tx) events(sql string, each func(*EventRow), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		e, err := eventRow(r)
		if err != nil {
			tx.db.log.Error("unreadable event left out", "err", err)
			return nil
		}
		each(e)
		return nil
	}, args...)
}

// event is events for at most one row, nil if there is none.
func (tx *Tx) event(sql string, args ...any) (found *EventRow, err error) {
	err = tx.events(sql, func(e *EventRow) { found = e }, args...)
	return found, err
}

// Head is the newest event of a room's present, nil if the room has none.
func (tx *Tx) Head(room RoomNID) (*EventRow, error) {
	return tx.event(selectEvents+`WHERE e.room = $1 AND e.sub = 0 AND e.pos IS NOT NULL ORDER BY e.pos DESC LIMIT 1`, room)
}

// HeadAt is the newest event of a room's present at or before a position, nil if there is none.
func (tx *Tx) HeadAt(room RoomNID, at Pos) (*EventRow, error) {
	return tx.event(selectEvents+`WHERE e.room = $1 AND e.sub = 0 AND e.pos <= $2 ORDER BY e.pos DESC LIMIT 1`, room, at)
}

// EventInRoom finds an event by its ID in one room, nil if that room has none such.
func (tx *Tx) EventInRoom(room RoomNID, id matrix.EventID) (*EventRow, error) {
	return tx.event(selectEvents+`WHERE e.event_id = $1 AND e.room = $2`, string(id), room)
}

// EventsByNID reads events of one room by number, in no particular order.
func (tx *Tx) EventsByNID(room RoomNID, nids []EventNID, each func(*EventRow)) error {
	return chunks(nids, func(part []EventNID) error {
		return tx.events(selectEvents+`WHERE e.nid IN ({ids $1}) AND e.room = $2`, each, int64s(part), room)
	})
}

// EventsByID reads events of one room by ID, in no particular order.
func (tx *Tx) EventsByID(room RoomNID, ids []matrix.EventID, each func(*EventRow)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.events(selectEvents+`WHERE e.event_id IN ({texts $1}) AND e.room = $2`, each, texts(part), room)
	})
}

// Known says which of the events are held, of whatever kind, and their rows' flags and places.
func (tx *Tx) Known(room RoomNID, ids []matrix.EventID, each func(id matrix.EventID, nid EventNID, flags EventFlags, placed bool)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT event_id, nid, flags, pos IS NOT NULL FROM events WHERE event_id IN ({texts $1}) AND room = $2`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)), EventNID(r.Int64(1)), EventFlags(r.Int64(2)), r.Bool(3))
			return nil
		}, texts(part), room)
	})
}

// Stream reads events that came into any room's present after one position and up to another, in order.
func (tx *Tx) Stream(after, upTo Pos, limit int, each func(*EventRow)) error {
	return tx.events(selectEvents+`WHERE e.pos > $1 AND e.pos <= $2 AND e.sub = 0 ORDER BY e.pos LIMIT $3`, each, after, upTo, limit)
}

// StateStream is Stream for state events alone, all of them; the texts of others are not even read.
func (tx *Tx) StateStream(after, upTo Pos, each func(*EventRow)) error {
	return tx.events(selectEvents+`WHERE e.pos > $1 AND e.pos <= $2 AND e.sub = 0 AND (e.flags & 1) <> 0 ORDER BY e.pos`, each, after, upTo)
}

// Place is a point in a room's timeline: just after the event with that position and sub-order.
type Place struct {
	Pos Pos
	Sub int64
}

// Timeline reads a room's events after lo and up to hi, from the end if backward. Rejected and soft-failed events and
// outliers have no place and are not among them.
func (tx *Tx) Timeline(room RoomNID, lo, hi Place, backward bool, limit int) ([]*EventRow, error) {
	order := `ORDER BY e.pos, e.sub`
	if backward {
		order = `ORDER BY e.pos DESC, e.sub DESC`
	}
	var rows []*EventRow
	err := tx.events(selectEvents+`WHERE e.room = $1 AND e.pos IS NOT NULL AND (e.pos, e.sub) > ($2, $3) AND (e.pos, e.sub) <= ($4, $5) `+order+` LIMIT $6`,
		func(e *EventRow) { rows = append(rows, e) }, room, lo.Pos, lo.Sub, hi.Pos, hi.Sub, limit)
	return rows, err
}

// EventsNear reads the events of a room's timeline whose origin_server_ts (ms) is ts or later, in the order of time, or
// backwards those at ts or earlier. after is the event of time ts that was read last, 0 for none.
func (tx *Tx) EventsNear(room RoomNID, ts int64, after EventNID, forward bool, limit int) ([]*EventRow, error) {
	where := `WHERE e.room = $1 AND e.pos IS NOT NULL AND (e.ts, e.nid) > ($2, $3) ORDER BY e.ts, e.nid LIMIT $4`
	if !forward {
		where = `WHERE e.room = $1 AND e.pos IS NOT NULL AND (e.ts, e.nid) < ($2, $3) ORDER BY e.ts DESC, e.nid DESC LIMIT $4`
		if after == 0 {
			after = 1<<63 - 1
		}
	}
	var rows []*EventRow
	err := tx.events(selectEvents+where, func(e *EventRow) { rows = append(rows, e) }, room, ts, after, limit)
	return rows, err
}

// ThreadCounts are the running numbers of a thread as its newest event has them; zero for a thread without events.
func (tx *Tx) ThreadCounts(thread EventNID) (c Counts, err error) {
	err = tx.Query(`SELECT t_notify, t_highlight FROM events WHERE thread = $1 AND thread <> 0 AND sub = 0 AND pos IS NOT NULL ORDER BY pos DESC LIMIT 1`, func(r *Row) error {
		c.ThreadNotify, c.ThreadHighlight = r.Int64(0), r.Int64(1)
		return nil
	}, thread)
	return c, err
}

// RoomsChanged says in which of the rooms something came into the present after one position and up to another.
func (tx *Tx) RoomsChanged(rooms []RoomNID, after, upTo Pos, each func(RoomNID)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT r.nid FROM rooms r WHERE r.nid IN ({ids $1}) AND EXISTS (
			SELECT 1 FROM events e WHERE e.room = r.nid AND e.pos > $2 AND e.pos <= $3 AND e.sub = 0)`, func(r *Row) error {
			each(RoomNID(r.Int64(0)))
			return nil
		}, int64s(part), after, upTo)
	})
}

// Heads reads the newest event at or before a position of each of the rooms.
func (tx *Tx) Heads(rooms []RoomNID, at Pos, each func(*EventRow)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.events(selectEvents+`WHERE e.nid IN (
			SELECT (SELECT h.nid FROM events h WHERE h.room = x.nid AND h.sub = 0 AND h.pos <= $2 ORDER BY h.pos DESC LIMIT 1)
			FROM rooms x WHERE x.nid IN ({ids $1}))`, each, int64s(part), at)
	})
}

// maxList bounds the length of a list parameter of one statement.
const maxList = 1000

// chunks calls do for pieces of a list that one statement can take.
func chunks[T any](list []T, do func([]T) error) error {
	for len(list) > 0 {
		n := min(len(list), maxList)
		if err := do(list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func int64s[T ~int64](list []T) []int64 {
	out := make([]int64, len(list))
	for i, v := range list {
		out[i] = int64(v)
	}
	return out
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// RoomOfEvent says of which room an event is, 0 if it is not held. Nothing else of the event is told before the right to
// that room is known (law 11).
func (tx *Tx) RoomOfEvent(id matrix.EventID) (room RoomNID, err error) {
	_, err = tx.QueryRow(`SELECT room FROM events WHERE event_id = $1`, string(id)).Scan(&room)
	return room, err
}
