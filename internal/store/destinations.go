package store

import "conclave/internal/matrix"

// ListedDestination is a destination with its name, for people.
type ListedDestination struct {
	Destination
	Name matrix.ServerName
}

// DestinationOrder is by what a list of destinations is sorted; the name comes second.
type DestinationOrder string

// The orders of a list of destinations.
const (
	ByName         DestinationOrder = "s.name"
	ByRetry        DestinationOrder = "d.retry_at"
	ByFailingSince DestinationOrder = "d.failing_since"
	ByLastSuccess  DestinationOrder = "d.last_success"
)

// DestinationQuery is a part of a list of destinations.
type DestinationQuery struct {
	Contains string // part of the name, in ASCII of any case
	Order    DestinationOrder
	Down     bool // from the largest
	From     int  // how many are left out
	Limit    int
}

// Destinations lists destinations, and counts all that match. The whole list is sorted for each part: it is as long as
// there are servers that we have ever sent to.
func (tx *Tx) Destinations(q DestinationQuery, each func(ListedDestination)) (total int, err error) {
	const where = ` FROM destinations d JOIN servers s ON s.nid = d.server WHERE $1 = '' OR lower(s.name) LIKE '%' || $1 || '%' ESCAPE '!'`
	contains := likeText(q.Contains)
	err = tx.Query(`SELECT count(*)`+where, func(r *Row) error {
		total = r.Int(0)
		return nil
	}, contains)
	if err != nil {
		return 0, err
	}
	order := string(q.Order)
	if q.Down {
		order += ` DESC`
	}
	columns := `d.server, d.pdus, d.device_lists, d.to_device, d.others, d.goal_pdus, d.goal_devices, d.goal_messages, d.goal_others,
		d.catch_up, d.batch, d.fails, d.failing_since, d.retry_at, d.failure, d.last_success, d.fence, s.name`
	err = tx.Query(`SELECT `+columns+where+` ORDER BY `+order+`, s.name LIMIT $2 OFFSET $3`, func(r *Row) error {
		each(ListedDestination{Destination: destinationRow(r), Name: matrix.ServerName(r.Text(17))})
		return nil
	}, contains, q.Limit, q.From)
	return total, err
}

// DestinationNamed reads one destination by its name; found is false if nothing was ever sent to it.
func (tx *Tx) DestinationNamed(name matrix.ServerName) (d ListedDestination, found bool, err error) {
	var nid ServerNID
	err = tx.Query(`SELECT nid FROM servers WHERE name = $1`, func(r *Row) error {
		nid, found = ServerNID(r.Int64(0)), true
		return nil
	}, string(name))
	if err != nil || !found {
		return d, false, err
	}
	d.Name = name
	d.Destination, found, err = tx.Destination(nid)
	return d, found, err
}

// likeText makes text mean itself in a pattern of LIKE with the escape character '!', in lower case.
func likeText(text string) string {
	lower := []byte(likeExact(text))
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] += 'a' - 'A'
		}
	}
	return string(lower)
}

// likeExact is likeText with letters as they are.
func likeExact(text string) string {
	var out []byte
	for _, c := range []byte(text) {
		if c == '%' || c == '_' || c == '!' {
			out = append(out, '!')
		}
		out = append(out, c)
	}
	return string(out)
}

// CountOutgoingMessages counts the messages to devices that wait for a destination after a position, as far as limit.
func (tx *Tx) CountOutgoingMessages(server ServerNID, after Pos, limit int) (n int, err error) {
	err = tx.Query(`SELECT count(*) FROM (SELECT pos FROM to_device_out WHERE server = $1 AND pos > $2 LIMIT $3) c`, func(r *Row) error {
		n = r.Int(0)
		return nil
	}, server, after, limit)
	return n, err
}

// InAnyRoom says whether a user of a server is joined to a room that we know of.
func (tx *Tx) InAnyRoom(server matrix.ServerName) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM memberships m JOIN servers s ON s.nid = m.server WHERE s.name = $1 AND m.membership = 1)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, string(server))
	return yes, err
}

// SharedRooms lists the rooms in which a server has a joined user, in order of their IDs, with how many of its users
// are in each.
func (tx *Tx) SharedRooms(server ServerNID, after matrix.RoomID, limit int, each func(room matrix.RoomID, users int)) error {
	return tx.Query(`SELECT r.room_id, count(*) FROM memberships m JOIN rooms r ON r.nid = m.room
		WHERE m.server = $1 AND m.membership = 1 AND r.room_id > $2 GROUP BY r.room_id ORDER BY r.room_id LIMIT $3`, func(r *Row) error {
		each(matrix.RoomID(r.Text(0)), r.Int(1))
		return nil
	}, server, string(after), limit)
}
