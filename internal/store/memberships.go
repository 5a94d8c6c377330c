package store

import "conclave/internal/matrix"

const selectMembers = `SELECT m.room, m.member, m.server, m.membership, m.event, m.pos, m.joined, m.departed, m.forgotten FROM memberships m `

func memberRow(r *Row) MemberRow {
	return MemberRow{
		Room: RoomNID(r.Int64(0)), Member: UserNID(r.Int64(1)), Server: ServerNID(r.Int64(2)), Membership: Membership(r.Int64(3)),
		Event: EventNID(r.Int64(4)), Pos: Pos(r.Int64(5)), Joined: Pos(r.Int64(6)), Departed: Pos(r.Int64(7)), Forgotten: r.Bool(8),
	}
}

func (tx *Tx) members(sql string, each func(MemberRow), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(memberRow(r))
		return nil
	}, args...)
}

// Membership says where a user stands in a room, nil if it never had to do with it.
func (tx *Tx) Membership(room RoomNID, user UserNID) (found *MemberRow, err error) {
	err = tx.members(selectMembers+`WHERE m.room = $1 AND m.member = $2`, func(m MemberRow) { found = &m }, room, user)
	return found, err
}

// MembershipByID is Membership for a user who may never have been heard of.
func (tx *Tx) MembershipByID(room RoomNID, id matrix.UserID) (found *MemberRow, err error) {
	err = tx.members(selectMembers+`JOIN users u ON u.nid = m.member WHERE m.room = $1 AND u.user_id = $2`,
		func(m MemberRow) { found = &m }, room, string(id))
	return found, err
}

// MembershipsOf reads where a user stands in all rooms it had to do with, except those it has forgotten.
func (tx *Tx) MembershipsOf(user UserNID, each func(MemberRow)) error {
	return tx.members(selectMembers+`WHERE m.member = $1 AND NOT m.forgotten`, each, user)
}

// MembersOf reads the rows of a room's users with one membership.
func (tx *Tx) MembersOf(room RoomNID, membership Membership, each func(MemberRow)) error {
	return tx.members(selectMembers+`WHERE m.room = $1 AND m.membership = $2`, each, room, int64(membership))
}

// MemberCounts counts a room's users by membership.
func (tx *Tx) MemberCounts(room RoomNID) (counts map[Membership]int, err error) {
	counts = map[Membership]int{}
	err = tx.Query(`SELECT membership, count(*) FROM memberships WHERE room = $1 GROUP BY membership`, func(r *Row) error {
		counts[Membership(r.Int64(0))] = int(r.Int64(1))
		return nil
	}, room)
	return counts, err
}

// MembersOfServer reads the IDs of a server's users with one membership in a room.
func (tx *Tx) MembersOfServer(room RoomNID, server matrix.ServerName, membership Membership) (ids []matrix.UserID, err error) {
	err = tx.Query(`SELECT u.user_id FROM memberships m JOIN users u ON u.nid = m.member
		WHERE m.room = $1 AND m.membership = $2 AND m.server = (SELECT nid FROM servers WHERE name = $3) ORDER BY m.joined`, func(r *Row) error {
		ids = append(ids, matrix.UserID(r.Text(0)))
		return nil
	}, room, int64(membership), string(server))
	return ids, err
}

// ServerIn says whether a server has a joined user in a room.
func (tx *Tx) ServerIn(room RoomNID, server matrix.ServerName) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM memberships WHERE room = $1 AND membership = 1
		AND server = (SELECT nid FROM servers WHERE name = $2))`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, room, string(server))
	return yes, err
}

// AloneIn says whether no other user of a user's server is joined to a room.
func (tx *Tx) AloneIn(room RoomNID, user matrix.UserID) (yes bool, err error) {
	err = tx.Query(`SELECT NOT EXISTS (SELECT 1 FROM memberships m JOIN users u ON u.nid = m.member WHERE m.room = $1 AND m.membership = 1
		AND m.server = (SELECT nid FROM servers WHERE name = $2) AND u.user_id <> $3)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, room, string(user.Server()), string(user))
	return yes, err
}

// ServersIn reads the names of the servers with joined users in a room, the one with the longest-standing user first.
func (tx *Tx) ServersIn(room RoomNID) (names []matrix.ServerName, err error) {
	err = tx.Query(`SELECT s.name FROM (SELECT server, min(joined) AS since FROM memberships WHERE room = $1 AND membership = 1 GROUP BY server) m
		JOIN servers s ON s.nid = m.server ORDER BY m.since, s.nid`, func(r *Row) error {
		names = append(names, matrix.ServerName(r.Text(0)))
		return nil
	}, room)
	return names, err
}

// SharesRoom says whether two users are joined to a common room.
func (tx *Tx) SharesRoom(a, b UserNID) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM memberships x JOIN memberships y ON y.room = x.room
		WHERE x.member = $1 AND x.membership = 1 AND y.member = $2 AND y.membership = 1)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, a, b)
	return yes, err
}

// MutualRooms reads the rooms after one that a user and another, who may be unknown, are joined to, at most limit of them,
// in the order of their numbers.
func (tx *Tx) MutualRooms(user UserNID, other matrix.UserID, after RoomNID, limit int, each func(RoomNID, matrix.RoomID)) error {
	return tx.Query(`SELECT r.nid, r.room_id FROM memberships x JOIN memberships y ON y.room = x.room JOIN rooms r ON r.nid = x.room
		WHERE x.member = $1 AND x.membership = 1 AND y.membership = 1 AND y.member = (SELECT nid FROM users WHERE user_id = $2)
		AND x.room > $3 ORDER BY x.room LIMIT $4`, func(r *Row) error {
		each(RoomNID(r.Int64(0)), matrix.RoomID(r.Text(1)))
		return nil
	}, user, string(other), after, limit)
}

// CountMutualRooms counts what MutualRooms reads in all.
func (tx *Tx) CountMutualRooms(user UserNID, other matrix.UserID) (n int, err error) {
	err = tx.Query(`SELECT count(*) FROM memberships x JOIN memberships y ON y.room = x.room
		WHERE x.member = $1 AND x.membership = 1 AND y.membership = 1 AND y.member = (SELECT nid FROM users WHERE user_id = $2)`, func(r *Row) error {
		n = r.Int(0)
		return nil
	}, user, string(other))
	return n, err
}

// Forget hides a room from its former member. It is a change of the stream: what is kept of a user's rooms in memory
// learns of it so.
func (tx *Tx) Forget(room RoomNID, user UserNID) error {
	if _, err := tx.Exec(`UPDATE memberships SET forgotten = TRUE WHERE room = $1 AND member = $2`, room, user); err != nil {
		return err
	}
	_, err := tx.AddChange(ChangeMembership, room, user)
	return err
}

// Stripped reads what an invitation or a knock came with, as a JSON array; "" if there is nothing.
func (tx *Tx) Stripped(room RoomNID, user UserNID) (events string, err error) {
	err = tx.Query(`SELECT events FROM stripped_states WHERE room = $1 AND member = $2`, func(r *Row) error {
		events = r.Text(0)
		return nil
	}, room, user)
	return events, err
}

// MembersFrom are the users of a server that ever had to do with a room, at most limit, longest-standing first.
func (tx *Tx) MembersFrom(room RoomNID, server matrix.ServerName, limit int, each func(matrix.UserID, MemberRow)) error {
	return tx.Query(`SELECT m.room, m.member, m.server, m.membership, m.event, m.pos, m.joined, m.departed, m.forgotten, u.user_id
		FROM memberships m JOIN users u ON u.nid = m.member
		WHERE m.room = $1 AND m.server = (SELECT nid FROM servers WHERE name = $2) ORDER BY m.joined = 0, m.joined LIMIT $3`, func(r *Row) error {
		each(matrix.UserID(r.Text(9)), memberRow(r))
		return nil
	}, room, string(server), limit)
}
