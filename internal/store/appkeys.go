package store

import "conclave/internal/matrix"

// WaitingMessage is a message that waits for a device of a user.
type WaitingMessage struct {
	Pos    Pos
	User   UserNID
	Device matrix.DeviceID
	Event  []byte // as /sync shows it
}

// WaitingMessages reads what waits for all devices of some users after one position and up to another, at most limit of
// each few hundred users: in order for each device, not among them.
func (tx *Tx) WaitingMessages(users []UserNID, after, upTo Pos, limit int, each func(WaitingMessage)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT t.pos, d.member, d.device_id, t.event FROM devices d JOIN to_device t ON t.device = d.nid
			WHERE d.member IN ({ids $1}) AND t.pos > $2 AND t.pos <= $3 ORDER BY t.pos, d.nid LIMIT $4`, func(r *Row) error {
			each(WaitingMessage{Pos(r.Int64(0)), UserNID(r.Int64(1)), matrix.DeviceID(r.Text(2)), []byte(r.Text(3))})
			return nil
		}, int64s(part), after, upTo, limit)
	})
}

// DropWaitingMessages removes what waits for all devices of some users after one position and up to another.
func (tx *Tx) DropWaitingMessages(users []UserNID, after, upTo Pos) error {
	return chunks(users, func(part []UserNID) error {
		_, err := tx.Exec(`DELETE FROM to_device WHERE pos > $2 AND pos <= $3 AND device IN (SELECT nid FROM devices WHERE member IN ({ids $1}))`,
			int64s(part), after, upTo)
		return err
	})
}

// OneTimeKeyStock counts the one-time keys of all devices of some users, as OneTimeKeyCounts does for one device: what is
// told for one algorithm of a device adds up.
func (tx *Tx) OneTimeKeyStock(users []UserNID, each func(user UserNID, device matrix.DeviceID, algorithm string, n int)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT d.member, d.device_id, k.algorithm, count(*) FROM devices d JOIN one_time_keys k ON k.device = d.nid
				WHERE d.member IN ({ids $1}) GROUP BY d.member, d.device_id, k.algorithm
			UNION ALL SELECT DISTINCT d.member, d.device_id, c.algorithm, 0 FROM devices d JOIN claimed_keys c ON c.device = d.nid
				WHERE d.member IN ({ids $1})`, func(r *Row) error {
			each(UserNID(r.Int64(0)), matrix.DeviceID(r.Text(1)), r.Text(2), r.Int(3))
			return nil
		}, int64s(part))
	})
}

// FallbackKeyStock names the algorithms of the fallback keys of all devices of some users, and whether each was used.
func (tx *Tx) FallbackKeyStock(users []UserNID, each func(user UserNID, device matrix.DeviceID, algorithm string, used bool)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT d.member, d.device_id, f.algorithm, f.used FROM devices d JOIN fallback_keys f ON f.device = d.nid
			WHERE d.member IN ({ids $1}) ORDER BY d.nid, f.algorithm`, func(r *Row) error {
			each(UserNID(r.Int64(0)), matrix.DeviceID(r.Text(1)), r.Text(2), r.Bool(3))
			return nil
		}, int64s(part))
	})
}
