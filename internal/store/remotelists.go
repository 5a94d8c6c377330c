package store

import "conclave/internal/matrix"

// RemoteList is what is known of the device list of another server's user.
type RemoteList struct {
	User     UserNID
	StreamID int64 // of the last update, 0 if it is not known
	Wanted   int64 // the newest stream ID heard of while the list was stale
	Stale    bool  // an update was missed
	Since    Pos   // see remote_lists in the schema
	RetryAt  int64 // ms: not to be fetched again before
	Fails    int64
}

// RemoteList reads a list for a change, nil if there is none.
func (tx *Tx) RemoteList(user UserNID) (found *RemoteList, err error) {
	err = tx.Query(`SELECT member, stream_id, wanted, stale, since, retry_at, fails FROM remote_lists WHERE member = $1 {lock}`, func(r *Row) error {
		found = &RemoteList{UserNID(r.Int64(0)), r.Int64(1), r.Int64(2), r.Bool(3), Pos(r.Int64(4)), r.Int64(5), r.Int64(6)}
		return nil
	}, user)
	return found, err
}

// PutRemoteList stores what is known of a list.
func (tx *Tx) PutRemoteList(l RemoteList) error {
	_, err := tx.Exec(`INSERT INTO remote_lists (member, stream_id, wanted, stale, since, retry_at, fails) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (member) DO UPDATE SET stream_id = excluded.stream_id, wanted = excluded.wanted, stale = excluded.stale,
		since = excluded.since, retry_at = excluded.retry_at, fails = excluded.fails`,
		l.User, l.StreamID, l.Wanted, l.Stale, l.Since, l.RetryAt, l.Fails)
	return err
}

// LeaseRemoteList takes a stale list that is due at the time now (ms) to fetch it; nobody else does so before until.
func (tx *Tx) LeaseRemoteList(user UserNID, now, until int64) (bool, error) {
	n, err := tx.Exec(`UPDATE remote_lists SET retry_at = $3 WHERE member = $1 AND stale AND retry_at <= $2`, user, now, until)
	return n == 1, err
}

// DueRemoteLists names users whose lists are stale and may be fetched at the time now (ms).
func (tx *Tx) DueRemoteLists(now int64, limit int, each func(UserNID, matrix.UserID)) error {
	return tx.Query(`SELECT l.member, u.user_id FROM remote_lists l JOIN users u ON u.nid = l.member
		WHERE l.stale AND l.retry_at <= $1 ORDER BY l.retry_at LIMIT $2`, func(r *Row) error {
		each(UserNID(r.Int64(0)), matrix.UserID(r.Text(1)))
		return nil
	}, now, limit)
}

// HeldLists names those of some users whose lists were fetched, and says whether they hold: nothing was missed, and one
// of our users (of the servers own) has shared a room with them all the time, so that their server tells us of changes.
func (tx *Tx) HeldLists(users []UserNID, own []ServerNID, each func(user UserNID, holds bool)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT l.member, NOT l.stale AND EXISTS (
			SELECT 1 FROM memberships y JOIN memberships x ON x.room = y.room AND x.server IN ({ids $2}) AND x.membership = 1 AND x.joined <= l.since
			WHERE y.member = l.member AND y.membership = 1 AND y.joined <= l.since)
			FROM remote_lists l WHERE l.member IN ({ids $1}) AND l.since > 0`, func(r *Row) error {
			each(UserNID(r.Int64(0)), r.Bool(1))
			return nil
		}, int64s(part), int64s(own))
	})
}

// SharesWithUs says whether one of our users (of the servers own) is in a room with a user.
func (tx *Tx) SharesWithUs(user UserNID, own []ServerNID) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM memberships y JOIN memberships x ON x.room = y.room AND x.server IN ({ids $2}) AND x.membership = 1
		WHERE y.member = $1 AND y.membership = 1)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, user, int64s(own))
	return yes, err
}

// ListChangedAfter says whether a user's device list changed after a position.
func (tx *Tx) ListChangedAfter(user UserNID, after Pos) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM device_list_changes WHERE member = $1 AND pos > $2)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, user, after)
	return yes, err
}

// RemoteDevices reads the keys that are known of other servers' users' devices, whether their lists hold or not.
func (tx *Tx) RemoteDevices(users []UserNID, each func(DeviceKeys)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT u.user_id, d.device_id, d.name, d.json FROM remote_devices d JOIN users u ON u.nid = d.member
			WHERE d.member IN ({ids $1})`, func(r *Row) error {
			each(DeviceKeys{matrix.UserID(r.Text(0)), matrix.DeviceID(r.Text(1)), r.Text(2), []byte(r.Text(3))})
			return nil
		}, int64s(part))
	})
}

// PutRemoteDevices stores devices of another server's user.
func (tx *Tx) PutRemoteDevices(user UserNID, devices []DeviceKeys) error {
	return tx.InsertRows(Insert{Table: "remote_devices", Rows: len(devices),
		Suffix: "ON CONFLICT (member, device_id) DO UPDATE SET name = excluded.name, json = excluded.json", Cols: []Col{
			IntCol("member", func(int) UserNID { return user }),
			TextCol("device_id", func(i int) matrix.DeviceID { return devices[i].Device }),
			TextCol("name", func(i int) string { return devices[i].Name }),
			TextCol("json", func(i int) string { return string(devices[i].JSON) }),
		}})
}

// DeleteRemoteDevices removes a device of another server's user, or all of them if id is "".
func (tx *Tx) DeleteRemoteDevices(user UserNID, id matrix.DeviceID) error {
	_, err := tx.Exec(`DELETE FROM remote_devices WHERE member = $1 AND ($2 = '' OR device_id = $2)`, user, string(id))
	return err
}
