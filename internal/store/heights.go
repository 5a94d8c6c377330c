package store

import "conclave/internal/matrix"

// HeightOn is the height of a state event on its auth events: one more than the highest of them, 1 on none, and 0 if that
// of any is not known. With it auth chains are followed only as far down as matters (stateres.Height).
func HeightOn(auth []matrix.EventID, height func(matrix.EventID) int64) int64 {
	highest := int64(0)
	for _, id := range auth {
		h := height(id)
		if h == 0 {
			return 0
		}
		highest = max(highest, h)
	}
	return highest + 1
}

// Heights reads the heights of those of a room's events that are held.
func (tx *Tx) Heights(room RoomNID, ids []matrix.EventID, each func(matrix.EventID, int64)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT event_id, height FROM events WHERE event_id IN ({texts $1}) AND room = $2`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)), r.Int64(1))
			return nil
		}, texts(part), room)
	})
}

// Lift writes the heights of events that are held without: they came before what they rest on, as an invitation to a room
// does that nobody of ours is in. Evidence worked them out.
func (tx *Tx) Lift(rows []*EventRow) error {
	for _, row := range rows {
		if row.Height == 0 {
			continue
		}
		if _, err := tx.Exec(`UPDATE events SET height = $3 WHERE nid = $1 AND room = $2 AND height = 0`, row.NID, row.Room, row.Height); err != nil {
			return err
		}
	}
	return nil
}

// raise works out the heights of events of a room, which may rest on one another in whatever order they stand.
func (tx *Tx) raise(rows []*EventRow) error {
	if len(rows) == 0 {
		return nil
	}
	among := make(map[matrix.EventID]*EventRow, len(rows))
	var ids []matrix.EventID
	for _, row := range rows {
		among[row.Event.ID()] = row
		if row.Event.IsState() {
			ids = append(ids, row.Event.AuthEvents()...)
		}
	}
	known := map[matrix.EventID]int64{}
	if err := tx.Heights(rows[0].Room, ids, func(id matrix.EventID, h int64) { known[id] = h }); err != nil {
		return err
	}
	var height func(id matrix.EventID) int64
	height = func(id matrix.EventID) int64 {
		h, done := known[id]
		if row := among[id]; !done && row != nil && row.Event.IsState() {
			known[id] = 0 // events of a circle, which only ill will can make, have no height
			h = HeightOn(row.Event.AuthEvents(), height)
			known[id] = h
		}
		return h
	}
	for _, row := range rows {
		if row.Event.IsState() {
			row.Height = height(row.Event.ID())
		}
	}
	return nil
}
