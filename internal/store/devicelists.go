package store

import "conclave/internal/matrix"

// ListChange is what a change of a device list is about.
type ListChange int16

// The kinds of changes of device lists.
const (
	ListOnlyHere  ListChange = iota // what other servers do not learn: names, and lists of other servers' users
	ListDevice                      // a device: its keys, signatures, or that it is gone
	ListCrossKeys                   // master or self-signing key
)

// DeviceListEntry is a change of a device list.
type DeviceListEntry struct {
	Pos    Pos
	User   UserNID
	What   ListChange
	Device matrix.DeviceID // of ListDevice
}

// DeviceListChanged tells local readers that a user's devices changed, or what they are called.
func (tx *Tx) DeviceListChanged(user UserNID) error {
	return tx.DeviceListChanges(user, []DeviceListEntry{{What: ListOnlyHere}})
}

// DeviceListChanges tells the stream about changes of a user's device list, each at a position of its own. Those of one
// user wait for one another, so that other servers see them in order.
func (tx *Tx) DeviceListChanges(user UserNID, list []DeviceListEntry) error {
	if len(list) == 0 {
		return nil
	}
	if _, err := tx.LockAccount(user); err != nil {
		return err
	}
	first, err := tx.NextPos(len(list))
	if err != nil {
		return err
	}
	at := func(i int) Pos { return first + Pos(i) }
	err = tx.InsertRows(Insert{Table: "device_list_changes", Rows: len(list), Cols: []Col{
		IntCol("pos", at),
		IntCol("member", func(int) UserNID { return user }),
		IntCol("what", func(i int) ListChange { return list[i].What }),
		TextCol("device_id", func(i int) matrix.DeviceID { return list[i].Device }),
	}})
	if err != nil {
		return err
	}
	return tx.AddChanges([]Change{{at(len(list) - 1), ChangeDeviceList, 0, user}})
}

// devicesGone notes that devices of a user are about to be deleted: those named, or all if ids is nil.
func (tx *Tx) devicesGone(user UserNID, ids []matrix.DeviceID) error {
	if _, err := tx.LockAccount(user); err != nil {
		return err
	}
	var gone []DeviceListEntry
	named := map[matrix.DeviceID]bool{}
	for _, id := range ids {
		named[id] = true
	}
	err := tx.Query(`SELECT d.device_id FROM device_keys k JOIN devices d ON d.nid = k.device WHERE k.member = $1 ORDER BY d.nid`, func(r *Row) error {
		if id := matrix.DeviceID(r.Text(0)); ids == nil || named[id] {
			gone = append(gone, DeviceListEntry{What: ListDevice, Device: id})
		}
		return nil
	}, user)
	if err != nil || len(gone) == 0 {
		return err
	}
	devices := make([]string, len(gone))
	for i, g := range gone {
		devices[i] = string(g.Device)
	}
	if _, err := tx.Exec(`DELETE FROM key_signatures WHERE member = $1 AND target IN ({texts $2})`, user, devices); err != nil {
		return err
	}
	return tx.DeviceListChanges(user, gone)
}

// sharesNow is SQL for "two users are joined to a common room".
func sharesNow(a, b string) string {
	return `EXISTS (SELECT 1 FROM memberships s1 JOIN memberships s2 ON s2.room = s1.room
		WHERE s1.member = ` + a + ` AND s1.membership = 1 AND s2.member = ` + b + ` AND s2.membership = 1)`
}

// ListsChanged names the users whose device lists changed after one position and up to another, of those that share a
// room with a user, itself included; and those whose keys it signed.
func (tx *Tx) ListsChanged(user UserNID, after, upTo Pos, each func(UserNID)) error {
	return tx.Query(`SELECT c.member FROM (SELECT DISTINCT member FROM device_list_changes WHERE pos > $2 AND pos <= $3) c
		WHERE c.member = $1 OR `+sharesNow("$1", "c.member")+`
		UNION SELECT member FROM key_signatures WHERE signer = $1 AND pos > $2 AND pos <= $3`, func(r *Row) error {
		each(UserNID(r.Int64(0)))
		return nil
	}, user, after, upTo)
}

// CameToShare names users who are in a room with a user since one of the two joined it after one position and up to
// another, and were in none with it before.
func (tx *Tx) CameToShare(user UserNID, after, upTo Pos, each func(UserNID)) error {
	return tx.Query(`SELECT n.member FROM (
			SELECT y.member FROM memberships x JOIN memberships y ON y.room = x.room AND y.membership = 1
			WHERE x.member = $1 AND x.membership = 1 AND x.joined > $2 AND x.joined <= $3
			UNION SELECT y.member FROM memberships x JOIN memberships y ON y.room = x.room AND y.membership = 1 AND y.pos > $2
			WHERE x.member = $1 AND x.membership = 1 AND y.joined > $2 AND y.joined <= $3) n
		WHERE n.member <> $1 AND NOT EXISTS (SELECT 1 FROM memberships s1 JOIN memberships s2 ON s2.room = s1.room
			WHERE s1.member = $1 AND s1.membership = 1 AND s1.joined <= $2 AND s2.member = n.member AND s2.membership = 1 AND s2.joined <= $2)`,
		func(r *Row) error {
			each(UserNID(r.Int64(0)))
			return nil
		}, user, after, upTo)
}

// CeasedToShare names users who are in no room with a user any more, since one of the two left one after one position
// and up to another.
func (tx *Tx) CeasedToShare(user UserNID, after, upTo Pos, each func(UserNID)) error {
	return tx.Query(`SELECT n.member FROM (
			SELECT y.member FROM memberships x JOIN memberships y ON y.room = x.room AND y.membership = 1
			WHERE x.member = $1 AND x.departed > $2 AND x.departed <= $3
			UNION SELECT y.member FROM memberships x JOIN memberships y ON y.room = x.room AND y.pos > $2
			WHERE x.member = $1 AND (x.membership = 1 OR x.departed > $2) AND y.departed > $2 AND y.departed <= $3) n
		WHERE n.member <> $1 AND NOT `+sharesNow("$1", "n.member"), func(r *Row) error {
		each(UserNID(r.Int64(0)))
		return nil
	}, user, after, upTo)
}

// serverShares is SQL for "a server has a user in a room with this user".
func serverShares(server, user string) string {
	return `EXISTS (SELECT 1 FROM memberships s1 JOIN memberships s2 ON s2.room = s1.room
		WHERE s1.member = ` + user + ` AND s1.membership = 1 AND s2.server = ` + server + ` AND s2.membership = 1)`
}

// ListChangesFor reads the changes of device lists that a server is to be told after one position and up to another: of
// users who share a room with its users, of each device only the newest, in order, at most limit.
func (tx *Tx) ListChangesFor(server ServerNID, after, upTo Pos, limit int, each func(DeviceListEntry)) error {
	return tx.Query(`SELECT c.pos, c.member, c.what, c.device_id FROM device_list_changes c
		WHERE c.pos > $2 AND c.pos <= $3 AND c.what > 0 AND `+serverShares("$1", "c.member")+`
		AND NOT EXISTS (SELECT 1 FROM device_list_changes n
			WHERE n.member = c.member AND n.pos > c.pos AND n.pos <= $3 AND n.what = c.what AND n.device_id = c.device_id)
		ORDER BY c.pos LIMIT $4`, func(r *Row) error {
		each(DeviceListEntry{Pos(r.Int64(0)), UserNID(r.Int64(1)), ListChange(r.Int64(2)), matrix.DeviceID(r.Text(3))})
		return nil
	}, server, after, upTo, limit)
}

// ArrivalsFor reads which of our users (of the servers own) joined a room of a server after one position and up to
// another that were in none with its users before, in order, at most limit.
func (tx *Tx) ArrivalsFor(server ServerNID, own []ServerNID, after, upTo Pos, limit int, each func(Pos, UserNID)) error {
	return tx.Query(`SELECT c.pos, c.member FROM changes c JOIN memberships x ON x.room = c.room AND x.member = c.member
		WHERE c.pos > $2 AND c.pos <= $3 AND c.kind = $5 AND x.membership = 1 AND x.joined = c.pos AND x.server IN ({ids $6})
		AND EXISTS (SELECT 1 FROM memberships y WHERE y.server = $1 AND y.room = c.room AND y.membership = 1)
		AND NOT EXISTS (SELECT 1 FROM memberships s1 JOIN memberships s2 ON s2.room = s1.room WHERE s1.member = c.member AND s1.membership = 1
			AND s1.joined <= $2 AND s2.server = $1 AND s2.membership = 1 AND s2.joined <= $2)
		ORDER BY c.pos LIMIT $4`, func(r *Row) error {
		each(Pos(r.Int64(0)), UserNID(r.Int64(1)))
		return nil
	}, server, after, upTo, limit, ChangeMembership, int64s(own))
}

// ServersWithListChanges names servers that ListChangesFor or ArrivalsFor may have something for.
func (tx *Tx) ServersWithListChanges(own []ServerNID, after, upTo Pos, each func(ServerNID)) error {
	return tx.Query(`SELECT y.server FROM (SELECT DISTINCT member FROM device_list_changes WHERE pos > $1 AND pos <= $2 AND what > 0) c
			JOIN memberships x ON x.member = c.member AND x.membership = 1
			JOIN memberships y ON y.room = x.room AND y.membership = 1 AND y.server NOT IN ({ids $3})
		UNION SELECT y.server FROM changes c JOIN memberships x ON x.room = c.room AND x.member = c.member
			JOIN memberships y ON y.room = c.room AND y.membership = 1 AND y.server NOT IN ({ids $3})
			WHERE c.pos > $1 AND c.pos <= $2 AND c.kind = $4 AND x.membership = 1 AND x.joined = c.pos AND x.server IN ({ids $3})`,
		func(r *Row) error {
			each(ServerNID(r.Int64(0)))
			return nil
		}, after, upTo, int64s(own), ChangeMembership)
}

// LastListChanges finds each user's last change of a device up to a position, and which device it was.
func (tx *Tx) LastListChanges(users []UserNID, upTo Pos, each func(DeviceListEntry)) error {
	return chunks(users, func(part []UserNID) error {
		return tx.Query(`SELECT c.pos, c.member, c.device_id FROM device_list_changes c JOIN (
			SELECT member, max(pos) AS pos FROM device_list_changes WHERE member IN ({ids $1}) AND what = 1 AND pos <= $2 GROUP BY member) l
			ON l.pos = c.pos`, func(r *Row) error {
			each(DeviceListEntry{Pos(r.Int64(0)), UserNID(r.Int64(1)), ListDevice, matrix.DeviceID(r.Text(2))})
			return nil
		}, int64s(part), upTo)
	})
}

// ServersNamed reads the servers' numbers and names: there are as many as were ever heard of.
func (tx *Tx) ServersNamed(each func(ServerNID, matrix.ServerName)) error {
	return tx.Query(`SELECT nid, name FROM servers`, func(r *Row) error {
		each(ServerNID(r.Int64(0)), matrix.ServerName(r.Text(1)))
		return nil
	})
}
