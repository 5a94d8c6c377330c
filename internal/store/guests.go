package store

import "conclave/internal/matrix"

// UpgradeGuest makes an ordinary account of a guest's, with a password hash ("" for none); it reports false if it is no open
// account of a guest.
func (tx *Tx) UpgradeGuest(user UserNID, hash string) (bool, error) {
	n, err := tx.Exec(`UPDATE accounts SET guest = FALSE, password = $2 WHERE member = $1 AND guest AND NOT deactivated`, user, hash)
	return n == 1, err
}

// AnyGuest says whether there is an open account of a guest.
func (tx *Tx) AnyGuest() (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM accounts WHERE guest AND NOT deactivated)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	})
	return yes, err
}

// selectIdleGuests finds guests whom nobody has heard of since the time $1 (ms).
const selectIdleGuests = `SELECT a.member FROM accounts a WHERE a.guest AND NOT a.deactivated AND a.created < $1
	AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.member = a.member AND d.seen >= $1)`

// IdleGuests reads some guests whom nobody has heard of since a time (ms).
func (tx *Tx) IdleGuests(since int64, limit int, each func(UserNID)) error {
	return tx.Query(selectIdleGuests+` ORDER BY a.member LIMIT $2`, func(r *Row) error {
		each(UserNID(r.Int64(0)))
		return nil
	}, since, limit)
}

// IsIdleGuest says whether a user is one of them.
func (tx *Tx) IsIdleGuest(user UserNID, since int64) (yes bool, err error) {
	err = tx.Query(selectIdleGuests+` AND a.member = $2`, func(*Row) error {
		yes = true
		return nil
	}, since, user)
	return yes, err
}

// GuestsIn reads the guests who are joined to a room.
func (tx *Tx) GuestsIn(room RoomNID, each func(UserNID, matrix.UserID)) error {
	return tx.Query(`SELECT a.member, u.user_id FROM accounts a JOIN memberships m ON m.member = a.member AND m.room = $1 AND m.membership = 1
		JOIN users u ON u.nid = a.member WHERE a.guest ORDER BY a.member`, func(r *Row) error {
		each(UserNID(r.Int64(0)), matrix.UserID(r.Text(1)))
		return nil
	}, room)
}

// GuestRooms reads rooms that guests are joined to, after one and at most limit of them.
func (tx *Tx) GuestRooms(after RoomNID, limit int, each func(RoomNID)) error {
	return tx.Query(`SELECT DISTINCT m.room FROM accounts a JOIN memberships m ON m.member = a.member AND m.membership = 1
		WHERE a.guest AND m.room > $1 ORDER BY m.room LIMIT $2`, func(r *Row) error {
		each(RoomNID(r.Int64(0)))
		return nil
	}, after, limit)
}
