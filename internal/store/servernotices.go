package store

// NoticeRoom finds the room of a user's server notices, 0 if there is none yet.
func (tx *Tx) NoticeRoom(user UserNID) (room RoomNID, err error) {
	err = tx.Query(`SELECT room FROM notice_rooms WHERE member = $1`, func(r *Row) error {
		room = RoomNID(r.Int64(0))
		return nil
	}, user)
	return room, err
}

// KeepNoticeRoom makes a room that of a user's server notices, unless there is one; it returns which it is.
func (tx *Tx) KeepNoticeRoom(user UserNID, room RoomNID) (RoomNID, error) {
	if _, err := tx.Exec(`INSERT INTO notice_rooms (member, room) VALUES ($1, $2) ON CONFLICT DO NOTHING`, user, room); err != nil {
		return 0, err
	}
	return tx.NoticeRoom(user)
}
