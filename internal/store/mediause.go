package store

import "conclave/internal/matrix"

// countMedia changes what a user is known to have stored. Copies of what is elsewhere are nobody's.
func (tx *Tx) countMedia(user UserNID, files, bytes int64) error {
	if user == 0 {
		return nil
	}
	_, err := tx.Exec(`INSERT INTO media_use (member, files, bytes) VALUES ($1, $2, $3)
		ON CONFLICT (member) DO UPDATE SET files = media_use.files + excluded.files, bytes = media_use.bytes + excluded.bytes`, user, files, bytes)
	return err
}

// MediaUse is how many bytes a user has stored, and how many more its unfinished uploads have announced.
func (tx *Tx) MediaUse(user UserNID) (stored, announced int64, err error) {
	_, err = tx.QueryRow(`SELECT CAST(coalesce((SELECT bytes FROM media_use WHERE member = $1), 0) AS BIGINT),
		CAST(coalesce((SELECT sum(length) FROM media_uploads WHERE member = $1), 0) AS BIGINT)`, user).Scan(&stored, &announced)
	return stored, announced, err
}

// LockMediaUse keeps everybody else from adding to what a user has stored until the transaction ends.
func (tx *Tx) LockMediaUse(user UserNID) error { return tx.countMedia(user, 0, 0) }

// MediaOfUser is a content of a user as administrators see it.
type MediaOfUser struct {
	Media
	By matrix.UserID // the administrator who has withdrawn it, ""
}

// MediaOf reads the contents that a user has stored, in the order of their time, and the reserved IDs not. Newest says
// which come first; from is how many are left out.
func (tx *Tx) MediaOf(user UserNID, newest bool, from, limit int, each func(MediaOfUser)) error {
	order := "m.created, m.media_id"
	if newest {
		order = "m.created DESC, m.media_id DESC"
	}
	return tx.Query(`SELECT m.origin, m.media_id, m.size, m.type, m.name, m.created, m.used, q.member, coalesce(u.user_id, '') FROM media m
		LEFT JOIN quarantined_media q ON q.origin = m.origin AND q.media_id = m.media_id LEFT JOIN users u ON u.nid = q.member
		WHERE m.member = $1 AND m.member > 0 AND m.file <> '' ORDER BY `+order+` LIMIT $2 OFFSET $3`, func(r *Row) error {
		each(MediaOfUser{Media{
			Origin: matrix.ServerName(r.Text(0)), ID: r.Text(1), User: user, Size: r.Int64(2), Type: r.Text(3), Name: r.Text(4), Created: r.Int64(5),
			Used: r.Int64(6), Withdrawn: !r.IsNull(7),
		}, matrix.UserID(r.Text(8))})
		return nil
	}, user, limit, from)
}

// AllMediaOf names some of the contents that a user has stored, and of the IDs that it has reserved.
func (tx *Tx) AllMediaOf(user UserNID, limit int, each func(MediaName)) error {
	return tx.Query(`SELECT origin, media_id FROM media WHERE member = $1 AND member > 0 ORDER BY created, media_id LIMIT $2`, func(r *Row) error {
		each(MediaName{matrix.ServerName(r.Text(0)), r.Text(1)})
		return nil
	}, user, limit)
}

// CountMediaOf counts the contents that a user has stored.
func (tx *Tx) CountMediaOf(user UserNID) (files int64, err error) {
	_, err = tx.QueryRow(`SELECT files FROM media_use WHERE member = $1`, user).Scan(&files)
	return files, err
}

// Withdrawn says whether an administrator has put a content into quarantine, whether it is here or not.
func (tx *Tx) Withdrawn(origin matrix.ServerName, id string) (yes bool, err error) {
	err = tx.Query(`SELECT 1 FROM quarantined_media WHERE origin = $1 AND media_id = $2`, func(*Row) error {
		yes = true
		return nil
	}, string(origin), id)
	return yes, err
}

// forItself makes of a content that is in quarantine because of a room one that stays when that room's are given back.
const forItself = ` ON CONFLICT (origin, media_id) DO UPDATE SET room = 0 WHERE quarantined_media.room <> 0`

// Withdraw puts a content into quarantine; it reports false if it was there.
func (tx *Tx) Withdraw(origin matrix.ServerName, id string, by UserNID, now int64) (bool, error) {
	n, err := tx.Exec(`INSERT INTO quarantined_media (origin, media_id, member, at) VALUES ($1, $2, $3, $4)`+forItself, string(origin), id, by, now)
	return n == 1, err
}

// WithdrawAllOf puts what a user has stored into quarantine, and returns how many contents are there because of it.
func (tx *Tx) WithdrawAllOf(user, by UserNID, now int64) (int64, error) {
	return tx.Exec(`INSERT INTO quarantined_media (origin, media_id, member, at)
		SELECT origin, media_id, $2, $3 FROM media WHERE member = $1 AND member > 0`+forItself, user, by, now)
}

// GiveBack takes a content out of quarantine; it reports false if it was not there.
func (tx *Tx) GiveBack(origin matrix.ServerName, id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM quarantined_media WHERE origin = $1 AND media_id = $2`, string(origin), id)
	return n == 1, err
}
