package store

import "conclave/internal/matrix"

// EventPlace is where an event stands in its room: a position, and the place of older events behind it.
type EventPlace struct {
	Pos Pos
	Sub int64
}

// EventsNamingMedia reads the events of a room that have an mxc URI somewhere, in their order after a place, at most limit.
func (tx *Tx) EventsNamingMedia(room RoomNID, after EventPlace, limit int, each func(at EventPlace, json []byte)) error {
	return tx.Query(`SELECT pos, sub, json FROM events WHERE room = $1 AND pos IS NOT NULL AND (pos, sub) > ($2, $3)
		AND json LIKE '%mxc://%' ORDER BY pos, sub LIMIT $4`, func(r *Row) error {
		each(EventPlace{Pos(r.Int64(0)), r.Int64(1)}, []byte(r.Text(2)))
		return nil
	}, room, after.Pos, after.Sub, limit)
}

// MediaName names a content.
type MediaName struct {
	Origin matrix.ServerName
	ID     string
}

// WithdrawWith puts contents into quarantine because of a room, and returns how many were not there before.
func (tx *Tx) WithdrawWith(room RoomNID, list []MediaName, by UserNID, now int64) (int64, error) {
	return tx.InsertReturning(Insert{Table: "quarantined_media", Rows: len(list), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		TextCol("origin", func(i int) string { return string(list[i].Origin) }),
		TextCol("media_id", func(i int) string { return list[i].ID }),
		IntCol("member", func(int) UserNID { return by }),
		IntCol("at", func(int) int64 { return now }),
		IntCol("room", func(int) RoomNID { return room }),
	}}, nil)
}

// GiveBackWith takes out of quarantine what is there because of a room, and returns how much that was. What was withdrawn
// for another reason too stays.
func (tx *Tx) GiveBackWith(room RoomNID) (int64, error) {
	return tx.Exec(`DELETE FROM quarantined_media WHERE room = $1 AND room <> 0`, room)
}

// WithdrawnContent is a content in quarantine.
type WithdrawnContent struct {
	MediaName
	By matrix.UserID // the administrator
	At int64         // ms
}

// WithdrawnWith reads what is in quarantine because of a room, oldest first; from is how many are left out. total is how many
// there are.
func (tx *Tx) WithdrawnWith(room RoomNID, from, limit int, each func(WithdrawnContent)) (total int64, err error) {
	if _, err := tx.QueryRow(`SELECT count(*) FROM quarantined_media WHERE room = $1 AND room <> 0`, room).Scan(&total); err != nil {
		return 0, err
	}
	return total, tx.Query(`SELECT q.origin, q.media_id, coalesce(u.user_id, ''), q.at FROM quarantined_media q LEFT JOIN users u ON u.nid = q.member
		WHERE q.room = $1 AND q.room <> 0 ORDER BY q.at, q.origin, q.media_id LIMIT $2 OFFSET $3`, func(r *Row) error {
		each(WithdrawnContent{MediaName{matrix.ServerName(r.Text(0)), r.Text(1)}, matrix.UserID(r.Text(2)), r.Int64(3)})
		return nil
	}, room, limit, from)
}
