package store

import "conclave/internal/matrix"

// PresenceRow is what is stored of a user's presence.
type PresenceRow struct {
	Member  UserNID
	State   int16
	Active  int64 // ms, 0 if not known
	Message string
}

// PutPresence stores the presence of users. Of those whose accounts are closed nothing remains.
func (tx *Tx) PutPresence(rows []PresenceRow) error {
	return chunks(rows, func(part []PresenceRow) error {
		err := tx.InsertRows(Insert{Table: "presence", Rows: len(part), Suffix: `ON CONFLICT (member) DO UPDATE SET
			state = excluded.state, active = excluded.active, message = excluded.message`, Cols: []Col{
			IntCol("member", func(i int) UserNID { return part[i].Member }),
			IntCol("state", func(i int) int16 { return part[i].State }),
			IntCol("active", func(i int) int64 { return part[i].Active }),
			TextCol("message", func(i int) string { return part[i].Message }),
		}})
		if err != nil {
			return err
		}
		members := make([]int64, len(part))
		for i, row := range part {
			members[i] = int64(row.Member)
		}
		_, err = tx.Exec(`DELETE FROM presence WHERE member IN (SELECT member FROM accounts WHERE member IN ({ids $1}) AND deactivated)`, members)
		return err
	})
}

// PresenceOf reads the presence of users, of those who have one.
func (tx *Tx) PresenceOf(members []UserNID, each func(PresenceRow)) error {
	return chunks(members, func(part []UserNID) error {
		return tx.Query(`SELECT member, state, active, message FROM presence WHERE member IN ({ids $1})`, func(r *Row) error {
			each(presenceRow(r))
			return nil
		}, int64s(part))
	})
}

// LivePresence reads the presence of those who are not offline, those who did something last first, at most limit.
func (tx *Tx) LivePresence(limit int, each func(matrix.UserID, PresenceRow)) error {
	return tx.Query(`SELECT p.member, p.state, p.active, p.message, u.user_id FROM presence p JOIN users u ON u.nid = p.member
		WHERE p.state > 0 ORDER BY p.active DESC LIMIT $1`, func(r *Row) error {
		each(matrix.UserID(r.Text(4)), presenceRow(r))
		return nil
	}, limit)
}

func presenceRow(r *Row) PresenceRow {
	return PresenceRow{UserNID(r.Int64(0)), int16(r.Int64(1)), r.Int64(2), r.Text(3)}
}

// DropPresence forgets the presence of every user who is not of a server.
func (tx *Tx) DropPresence(except ServerNID) error {
	_, err := tx.Exec(`DELETE FROM presence WHERE member IN (SELECT p.member FROM presence p JOIN users u ON u.nid = p.member WHERE u.server <> $1)`, except)
	return err
}

// DropClosedPresence forgets the presence of every user whose account is closed.
func (tx *Tx) DropClosedPresence() error {
	_, err := tx.Exec(`DELETE FROM presence WHERE member IN (SELECT member FROM accounts WHERE deactivated)`)
	return err
}

// JoinedRoomsOf reads the rooms that users are joined to.
func (tx *Tx) JoinedRoomsOf(members []UserNID, each func(UserNID, RoomNID)) error {
	return chunks(members, func(part []UserNID) error {
		return tx.Query(`SELECT member, room FROM memberships WHERE member IN ({ids $1}) AND membership = 1`, func(r *Row) error {
			each(UserNID(r.Int64(0)), RoomNID(r.Int64(1)))
			return nil
		}, int64s(part))
	})
}

// ProfilesOf reads the profiles of users, of those who have one.
func (tx *Tx) ProfilesOf(members []UserNID, each func(member UserNID, fields string)) error {
	return chunks(members, func(part []UserNID) error {
		return tx.Query(`SELECT member, fields FROM profiles WHERE member IN ({ids $1})`, func(r *Row) error {
			each(UserNID(r.Int64(0)), r.Text(1))
			return nil
		}, int64s(part))
	})
}

// SharingWith finds out which of some users share a room with a user of a server.
func (tx *Tx) SharingWith(server ServerNID, ids []matrix.UserID, each func(matrix.UserID, UserNID)) error {
	return chunks(ids, func(part []matrix.UserID) error {
		return tx.Query(`SELECT u.user_id, u.nid FROM users u WHERE u.user_id IN ({texts $1}) AND EXISTS (
			SELECT 1 FROM memberships m JOIN memberships o ON o.server = $2 AND o.room = m.room AND o.membership = 1
			WHERE m.member = u.nid AND m.membership = 1)`, func(r *Row) error {
			each(matrix.UserID(r.Text(0)), UserNID(r.Int64(1)))
			return nil
		}, part, server)
	})
}

// SharesRoomWith finds the number of a user who is joined to a room that another is joined to; 0 if there is none.
func (tx *Tx) SharesRoomWith(user UserNID, id matrix.UserID) (found UserNID, err error) {
	err = tx.Query(`SELECT u.nid FROM users u WHERE u.user_id = $2 AND EXISTS (SELECT 1 FROM memberships x JOIN memberships y ON y.room = x.room
		WHERE x.member = $1 AND x.membership = 1 AND y.member = u.nid AND y.membership = 1)`, func(r *Row) error {
		found = UserNID(r.Int64(0))
		return nil
	}, user, string(id))
	return found, err
}
