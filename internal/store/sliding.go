package store

// SlidingState is what a client knows by a connection of sliding sync, as of one of its positions.
type SlidingState struct {
	Device int64
	Conn   string // conn_id
	Number int64  // which stands in the client's position
	Text   string // what it knows, as the sync engine writes it
}

// SlidingState reads the state that a connection has under a number, "" if it has none such, or none any more.
func (tx *Tx) SlidingState(device int64, conn string, number int64) (text string, err error) {
	_, err = tx.QueryRow(`SELECT state FROM sliding_connections WHERE device = $1 AND conn = $2 AND number = $3`, device, conn, number).Scan(&text)
	return text, err
}

// PutSlidingState stores a state that follows from another of the same connection, 0 for none. Of the connection these two
// are kept; of the device, this connection and those of the others that were written last, most in all. It reports false,
// and stores nothing, if the device is gone.
func (tx *Tx) PutSlidingState(s SlidingState, follows, ts int64, most int) (bool, error) {
	var here bool
	if _, err := tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM devices WHERE nid = $1)`, s.Device).Scan(&here); err != nil || !here {
		return false, err
	}
	if _, err := tx.Exec(`DELETE FROM sliding_connections WHERE device = $1 AND conn = $2 AND number <> $3`, s.Device, s.Conn, follows); err != nil {
		return false, err
	}
	_, err := tx.Exec(`INSERT INTO sliding_connections (device, conn, number, written, state) VALUES ($1, $2, $3, $4, $5)`,
		s.Device, s.Conn, s.Number, ts, s.Text)
	if err != nil {
		return false, err
	}
	_, err = tx.Exec(`DELETE FROM sliding_connections WHERE device = $1 AND conn IN (SELECT conn FROM sliding_connections
		WHERE device = $1 AND conn <> $2 GROUP BY conn ORDER BY max(written) DESC, conn LIMIT 1000 OFFSET $3)`, s.Device, s.Conn, most-1)
	return err == nil, err
}

// AccountDataOfType reads a user's own data of one type in every room that has some, and global with room 0.
func (tx *Tx) AccountDataOfType(user UserNID, typ string, each func(room RoomNID, content string)) error {
	return tx.Query(`SELECT room, content FROM account_data WHERE member = $1 AND type = $2`, func(r *Row) error {
		each(RoomNID(r.Int64(0)), r.Text(1))
		return nil
	}, user, typ)
}
