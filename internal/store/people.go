package store

import (
	"strconv"

	"conclave/internal/matrix"
)

// PeopleCursor is how far the directory of people has followed the stream.
type PeopleCursor struct {
	Pos    Pos // of the last change of a membership that was taken in, with its room and user
	Room   RoomNID
	Member UserNID
	Stream Pos // up to where other changes were taken in; 0: it is to be made from the beginning
}

// PeopleCursor reads the cursor.
func (tx *Tx) PeopleCursor() (c PeopleCursor, err error) {
	err = tx.Query(`SELECT pos, room, member, stream FROM people_cursor`, func(r *Row) error {
		c = PeopleCursor{Pos(r.Int64(0)), RoomNID(r.Int64(1)), UserNID(r.Int64(2)), Pos(r.Int64(3))}
		return nil
	})
	return c, err
}

// SetPeopleCursor moves the cursor.
func (tx *Tx) SetPeopleCursor(c PeopleCursor) error {
	_, err := tx.Exec(`INSERT INTO people_cursor (one, pos, room, member, stream) VALUES (1, $1, $2, $3, $4)
		ON CONFLICT (one) DO UPDATE SET pos = excluded.pos, room = excluded.room, member = excluded.member, stream = excluded.stream`,
		c.Pos, c.Room, c.Member, c.Stream)
	return err
}

// MembershipsChanged reads memberships that changed after the cursor and up to a position, with their users' IDs, in the
// order of the cursor.
func (tx *Tx) MembershipsChanged(c PeopleCursor, upTo Pos, limit int, each func(MemberRow, matrix.UserID)) error {
	return tx.Query(`SELECT m.room, m.member, m.membership, m.event, m.pos, u.user_id FROM memberships m JOIN users u ON u.nid = m.member
		WHERE (m.pos, m.room, m.member) > ($1, $2, $3) AND m.pos <= $4 ORDER BY m.pos, m.room, m.member LIMIT $5`, func(r *Row) error {
		each(MemberRow{
			Room: RoomNID(r.Int64(0)), Member: UserNID(r.Int64(1)), Membership: Membership(r.Int64(2)), Event: EventNID(r.Int64(3)), Pos: Pos(r.Int64(4)),
		}, matrix.UserID(r.Text(5)))
		return nil
	}, c.Pos, c.Room, c.Member, upTo, limit)
}

// Person is an entry of the directory of people.
type Person struct {
	User   UserNID
	ID     matrix.UserID
	Name   string
	Avatar string
	Words  []string // by which it is found, in lower case
}

// PutPerson makes or replaces an entry.
func (tx *Tx) PutPerson(p Person) error {
	if _, err := tx.Exec(`INSERT INTO people (member, name, avatar) VALUES ($1, $2, $3)
		ON CONFLICT (member) DO UPDATE SET name = excluded.name, avatar = excluded.avatar`, p.User, p.Name, p.Avatar); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM people_words WHERE member = $1 AND word NOT IN ({texts $2})`, p.User, p.Words); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO people_words (word, member) SELECT value, $1 FROM ({texts $2}) v WHERE TRUE ON CONFLICT DO NOTHING`, p.User, p.Words)
	return err
}

// DropPerson removes an entry.
func (tx *Tx) DropPerson(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM people_words WHERE member = $1`, user)
	if err == nil {
		_, err = tx.Exec(`DELETE FROM people WHERE member = $1`, user)
	}
	return err
}

// SetOpenRoom notes whether everybody may find the members of a room.
func (tx *Tx) SetOpenRoom(room RoomNID, open bool) error {
	sql := `DELETE FROM open_rooms WHERE room = $1`
	if open {
		sql = `INSERT INTO open_rooms (room) VALUES ($1) ON CONFLICT DO NOTHING`
	}
	_, err := tx.Exec(sql, room)
	return err
}

// PeopleQuery is a search of the directory: words each of which begins a word of who is found. After is where the last
// page ended.
type PeopleQuery struct {
	By    UserNID  // who searches
	Words []string // in lower case, at least one
	After string   // the word by which the last one of the page before was found
	Last  UserNID  // who that was
	Limit int
}

// wordEnd comes after every continuation of a word, in the order of UTF-8.
const wordEnd = "\U0010FFFF"

// FindPeople reads whom somebody may find: who is in a room with them, or in one that is open. In the order of the words
// found, so that whole words come first and the search can end early. Who is found by several words comes several times.
func (tx *Tx) FindPeople(q PeopleQuery, each func(p Person, word string)) error {
	sql := `SELECT w.word, w.member, u.user_id, p.name, p.avatar FROM people_words w JOIN people p ON p.member = w.member JOIN users u ON u.nid = w.member
		WHERE w.word >= $1 AND w.word < $2 AND (w.word, w.member) > ($3, $4) AND w.member <> $5
		AND EXISTS (SELECT 1 FROM memberships y WHERE y.member = w.member AND y.membership = 1 AND
			(y.room IN (SELECT x.room FROM memberships x WHERE x.member = $5 AND x.membership = 1) OR y.room IN (SELECT o.room FROM open_rooms o)))
		AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.member = w.member AND a.deactivated)`
	args := []any{q.Words[0], q.Words[0] + wordEnd, q.After, q.Last, q.By, q.Limit}
	for _, word := range q.Words[1:] {
		from, to := strconv.Itoa(len(args)+1), strconv.Itoa(len(args)+2)
		sql += ` AND EXISTS (SELECT 1 FROM people_words v WHERE v.member = w.member AND v.word >= $` + from + ` AND v.word < $` + to + `)`
		args = append(args, word, word+wordEnd)
	}
	return tx.Query(sql+` ORDER BY w.word, w.member LIMIT $6`, func(r *Row) error {
		each(Person{User: UserNID(r.Int64(1)), ID: matrix.UserID(r.Text(2)), Name: r.Text(3), Avatar: r.Text(4)}, r.Text(0))
		return nil
	}, args...)
}
