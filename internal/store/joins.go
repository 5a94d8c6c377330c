package store

import "conclave/internal/matrix"

// JoinEvent is an event of the answer to a join (see the table join_events).
type JoinEvent struct {
	Place int64
	State bool
	ID    matrix.EventID
	JSON  []byte // nil if the event came before
}

// StageJoin keeps events of the answer to a join.
func (tx *Tx) StageJoin(stage int64, events []JoinEvent) error {
	return tx.InsertRows(Insert{Table: "join_events", Rows: len(events), Cols: []Col{
		IntCol("stage", func(int) int64 { return stage }),
		IntCol("place", func(i int) int64 { return events[i].Place }),
		BoolCol("state", func(i int) bool { return events[i].State }),
		TextCol("event_id", func(i int) string { return string(events[i].ID) }),
		TextCol("json", func(i int) string { return string(events[i].JSON) }),
	}})
}

// JoinEventsAfter reads a stage in order of coming, after a place, at most limit.
func (tx *Tx) JoinEventsAfter(stage, after int64, limit int, each func(JoinEvent)) error {
	return tx.Query(`SELECT place, state, event_id, json FROM join_events WHERE stage = $1 AND place > $2 ORDER BY place LIMIT $3`,
		joinEvent(each), stage, after, limit)
}

// JoinEventsAt reads the events at some places of a stage.
func (tx *Tx) JoinEventsAt(stage int64, places []int64, each func(JoinEvent)) error {
	return chunks(places, func(part []int64) error {
		return tx.Query(`SELECT place, state, event_id, json FROM join_events WHERE stage = $1 AND place IN ({ids $2})`, joinEvent(each), stage, part)
	})
}

func joinEvent(each func(JoinEvent)) func(*Row) error {
	return func(r *Row) error {
		each(JoinEvent{Place: r.Int64(0), State: r.Bool(1), ID: matrix.EventID(r.Text(2)), JSON: []byte(r.Text(3))})
		return nil
	}
}

// DropJoin removes the first events of a stage, at most limit, and reports whether any were left.
func (tx *Tx) DropJoin(stage int64, limit int) (more bool, err error) {
	n, err := tx.Exec(`DELETE FROM join_events WHERE stage = $1 AND place IN (
		SELECT place FROM join_events WHERE stage = $1 ORDER BY place LIMIT $2)`, stage, limit)
	return n == int64(limit), err
}

// ShowMembers brings the memberships of a room's users up to a state that the room is about to have. Nothing in the
// stream tells of them one by one: whoever shares the room from then on learns it from its own arrival.
func (tx *Tx) ShowMembers(room RoomNID, changes []MemberChange) error {
	pos, err := tx.NextPos(1)
	if err != nil {
		return err
	}
	placed := make([]placedMember, len(changes))
	for i, c := range changes {
		placed[i] = placedMember{c, room, pos}
	}
	return tx.InsertRows(memberInsert(placed))
}

// HideMembers takes back what ShowMembers wrote for a room that nothing has come into, at most limit rows, and reports
// whether any may be left. Users of our own servers stay as they are.
func (tx *Tx) HideMembers(room RoomNID, own []ServerNID, limit int) (more bool, err error) {
	n, err := tx.Exec(`DELETE FROM memberships WHERE room = $1 AND member IN (
		SELECT m.member FROM memberships m WHERE m.room = $1 AND m.server NOT IN ({ids $2})
		AND NOT EXISTS (SELECT 1 FROM events e WHERE e.room = $1 AND e.pos IS NOT NULL) LIMIT $3)`, room, int64s(own), limit)
	return n == int64(limit), err
}
