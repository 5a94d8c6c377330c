package store

import "conclave/internal/matrix"

// What a destination is to get is read from committed rows (architecture, law 10): nothing is written per event and
// destination. A destination is told of an event if it had a joined user in the room before or after it.

// concerns is the condition that an event e is for the destination $1: one of its users was in the room when the event
// came, arrived by it or left by it; or the event ended the invitation or the knock of one of its users.
const concerns = `EXISTS (SELECT 1 FROM memberships m WHERE m.server = $1 AND m.room = e.room AND (
	m.membership = 1 AND m.joined <= e.pos
	OR m.membership <> 1 AND m.joined <> 0 AND m.joined <= e.pos AND e.pos <= m.departed
	OR m.membership IN (3, 4) AND m.event = e.nid))`

// ours is the condition that an event e with the sender u is ours to send to $1, between two positions.
const ours = `e.pos > $2 AND e.pos <= $3 AND e.sub = 0 AND e.flags & 32 <> 0 AND (u.server <> $1 OR e.flags & 128 <> 0) AND ` + concerns

// The two ways to an event of a destination. A server that shares few rooms is asked for room by room, however much
// else has happened; one that shares many is awake nearly always, so that little has happened since.
const (
	byRoom = `(SELECT DISTINCT x.room FROM memberships x WHERE x.server = $1) s CROSS JOIN events e
		JOIN users u ON u.nid = e.sender WHERE e.room = s.room AND ` + ours
	byPlace = `events e JOIN users u ON u.nid = e.sender WHERE ` + ours
)

// fewRooms is up to how many rooms a destination is asked for room by room.
const fewRooms = 200

// outgoing chooses the way to a destination's events.
func (tx *Tx) outgoing(server ServerNID) (string, error) {
	many := false
	err := tx.Query(`SELECT count(*) FROM (SELECT DISTINCT room FROM memberships WHERE server = $1 LIMIT $2) x`, func(r *Row) error {
		many = r.Int64(0) > fewRooms
		return nil
	}, server, fewRooms+1)
	if many {
		return byPlace, err
	}
	return byRoom, err
}

// OutgoingEvent is an event that a destination is to get.
type OutgoingEvent struct {
	Pos  Pos
	Room RoomNID
	ID   matrix.EventID
	JSON []byte
}

// OutgoingEvents reads the events for a destination after one position and up to another, in order; only the newest of
// each room if latest is set.
func (tx *Tx) OutgoingEvents(server ServerNID, after, upTo Pos, latest bool, limit int, each func(OutgoingEvent)) error {
	way, err := tx.outgoing(server)
	if err != nil {
		return err
	}
	sql := `SELECT e.pos, e.room, e.event_id, e.json FROM ` + way + ` ORDER BY e.pos LIMIT $4`
	if latest {
		sql = `SELECT l.pos, l.room, l.event_id, l.json FROM (SELECT (SELECT e.nid FROM events e JOIN users u ON u.nid = e.sender
			WHERE e.room = s.room AND ` + ours + ` ORDER BY e.pos DESC LIMIT 1) AS nid
			FROM (SELECT DISTINCT x.room FROM memberships x WHERE x.server = $1) s) p
			JOIN events l ON l.nid = p.nid ORDER BY l.pos LIMIT $4`
	}
	return tx.Query(sql, func(r *Row) error {
		each(OutgoingEvent{Pos(r.Int64(0)), RoomNID(r.Int64(1)), matrix.EventID(r.Text(2)), []byte(r.Text(3))})
		return nil
	}, server, after, upTo, limit)
}

// CountOutgoing counts the events for a destination after one position and up to another, as far as limit.
func (tx *Tx) CountOutgoing(server ServerNID, after, upTo Pos, limit int) (n int, err error) {
	way, err := tx.outgoing(server)
	if err != nil {
		return 0, err
	}
	err = tx.Query(`SELECT count(*) FROM (SELECT e.nid FROM `+way+` LIMIT $4) c`, func(r *Row) error {
		n = r.Int(0)
		return nil
	}, server, after, upTo, limit)
	return n, err
}

// OutgoingReceipt is a receipt of a user of ours that a destination is to get.
type OutgoingReceipt struct {
	Pos    Pos
	Room   matrix.RoomID
	User   matrix.UserID
	Kind   ReceiptKind
	Thread string
	Event  matrix.EventID
	TS     int64
}

// OutgoingReceipts reads the public receipts of the users of own that changed after one position and up to another, in
// rooms where the destination has a joined user, in order.
func (tx *Tx) OutgoingReceipts(server, own ServerNID, after, upTo Pos, limit int, each func(OutgoingReceipt)) error {
	way, err := tx.outgoing(server)
	if err != nil {
		return err
	}
	from := `(SELECT DISTINCT x.room FROM memberships x WHERE x.server = $1 AND x.membership = 1) s
		CROSS JOIN receipts c`
	where := `c.room = s.room AND c.pos > $2 AND c.pos <= $3`
	if way == byPlace {
		from = `changes h JOIN receipts c ON c.room = h.room AND c.member = h.member AND c.pos = h.pos`
		where = `h.pos > $2 AND h.pos <= $3 AND h.kind = 2
			AND EXISTS (SELECT 1 FROM memberships x WHERE x.server = $1 AND x.room = c.room AND x.membership = 1)`
	}
	return tx.Query(`SELECT c.pos, r.room_id, u.user_id, c.kind, c.thread, c.event_id, c.ts FROM `+from+`
		JOIN rooms r ON r.nid = c.room JOIN users u ON u.nid = c.member
		WHERE `+where+` AND c.kind IN (1, 3) AND u.server = $4 ORDER BY c.pos LIMIT $5`, func(r *Row) error {
		each(OutgoingReceipt{Pos(r.Int64(0)), matrix.RoomID(r.Text(1)), matrix.UserID(r.Text(2)), ReceiptKind(r.Int64(3)),
			r.Text(4), matrix.EventID(r.Text(5)), r.Int64(6)})
		return nil
	}, server, after, upTo, own, limit)
}

// OutgoingRooms says in which rooms there came, after one position and up to another, something that other servers may
// have to hear of: events of ours, and receipts of the users of own.
func (tx *Tx) OutgoingRooms(own ServerNID, after, upTo Pos, each func(RoomNID)) error {
	room := func(r *Row) error {
		each(RoomNID(r.Int64(0)))
		return nil
	}
	err := tx.Query(`SELECT DISTINCT room FROM events WHERE pos > $1 AND pos <= $2 AND sub = 0 AND flags & 32 <> 0`, room, after, upTo)
	if err != nil {
		return err
	}
	return tx.Query(`SELECT DISTINCT c.room FROM changes c JOIN users u ON u.nid = c.member
		WHERE c.pos > $1 AND c.pos <= $2 AND c.kind = 2 AND u.server = $3`, room, after, upTo, own)
}

// NextEvent is the position of the first event after one, 0 if there is none.
func (tx *Tx) NextEvent(after Pos) (pos Pos, err error) {
	_, err = tx.QueryRow(`SELECT pos FROM events WHERE pos > $1 AND sub = 0 ORDER BY pos LIMIT 1`, after).Scan(&pos)
	return pos, err
}

// MovedServers are the servers users of which came to a room, left it or were invited after one position and up to
// another.
func (tx *Tx) MovedServers(after, upTo Pos, each func(ServerNID)) error {
	return tx.Query(`SELECT DISTINCT u.server FROM changes c JOIN users u ON u.nid = c.member
		WHERE c.pos > $1 AND c.pos <= $2 AND c.kind = 1`, func(r *Row) error {
		each(ServerNID(r.Int64(0)))
		return nil
	}, after, upTo)
}

// ServerNIDsIn are the servers with joined users in a room. It looks once at the index for each, however many users
// they have.
func (tx *Tx) ServerNIDsIn(room RoomNID, each func(ServerNID)) error {
	return tx.Query(`WITH RECURSIVE s(server) AS (
			SELECT min(server) FROM memberships WHERE room = $1 AND membership = 1
			UNION ALL
			SELECT (SELECT min(m.server) FROM memberships m WHERE m.room = $1 AND m.membership = 1 AND m.server > s.server)
			FROM s WHERE s.server IS NOT NULL)
		SELECT server FROM s WHERE server IS NOT NULL`, func(r *Row) error {
		each(ServerNID(r.Int64(0)))
		return nil
	}, room)
}

// SharingServers are the servers that have a user in some room.
func (tx *Tx) SharingServers(each func(ServerNID)) error {
	return tx.Query(`SELECT s.nid FROM servers s WHERE EXISTS (SELECT 1 FROM memberships m WHERE m.server = s.nid)`, func(r *Row) error {
		each(ServerNID(r.Int64(0)))
		return nil
	})
}

// FirstSeen is the position since when a server has had to do with any room, found false if it has not.
func (tx *Tx) FirstSeen(server ServerNID) (at Pos, found bool, err error) {
	err = tx.Query(`SELECT min(CASE WHEN joined <> 0 THEN joined ELSE pos END) FROM memberships WHERE server = $1`, func(r *Row) error {
		at, found = Pos(r.Int64(0)), !r.IsNull(0)
		return nil
	}, server)
	return at, found, err
}

// ServerNames finds the names of servers by number.
func (tx *Tx) ServerNames(nids []ServerNID, each func(ServerNID, matrix.ServerName)) error {
	return chunks(nids, func(part []ServerNID) error {
		return tx.Query(`SELECT nid, name FROM servers WHERE nid IN ({ids $1})`, func(r *Row) error {
			each(ServerNID(r.Int64(0)), matrix.ServerName(r.Text(1)))
			return nil
		}, int64s(part))
	})
}
