package store

import "conclave/internal/matrix"

// ReceiptKind is a kind of receipt.
type ReceiptKind int16

// The kinds of receipts.
const (
	ReadReceipt ReceiptKind = iota + 1
	PrivateReceipt
	DeliveredReceipt
	FullyRead // a marker rather than a receipt: others never see it
)

// Receipt says how far a user has got in a room or one of its threads.
type Receipt struct {
	Room   RoomNID
	User   UserNID
	UserID matrix.UserID // filled in when read
	Kind   ReceiptKind
	Thread string // thread_id, "" for none
	Event  matrix.EventID
	Place  Pos   // of the event
	TS     int64 // ms
}

// PutReceipt stores a receipt unless the user has got as far already; it reports whether it did.
func (tx *Tx) PutReceipt(r Receipt) (bool, error) {
	var had Pos
	err := tx.Query(`SELECT place FROM receipts WHERE room = $1 AND member = $2 AND kind = $3 AND thread = $4`, func(row *Row) error {
		had = Pos(row.Int64(0))
		return nil
	}, r.Room, r.User, r.Kind, r.Thread)
	if err != nil || had >= r.Place {
		return false, err
	}
	pos, err := tx.AddChange(ChangeReceipt, r.Room, r.User)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(`INSERT INTO receipts (room, member, kind, thread, event_id, place, ts, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (room, member, kind, thread) DO UPDATE SET event_id = excluded.event_id, place = excluded.place, ts = excluded.ts, pos = excluded.pos
		WHERE receipts.place < excluded.place`, r.Room, r.User, r.Kind, r.Thread, string(r.Event), r.Place, r.TS, pos)
	return n > 0, err
}

// Receipts reads a room's receipts that changed after one position and up to another, at most limit, newest first.
// Those that only their owner may see are left out for others.
func (tx *Tx) Receipts(room RoomNID, viewer UserNID, after, upTo Pos, limit int, each func(Receipt)) error {
	return tx.Query(`SELECT r.member, u.user_id, r.kind, r.thread, r.event_id, r.place, r.ts FROM receipts r JOIN users u ON u.nid = r.member
		WHERE r.room = $1 AND r.pos > $2 AND r.pos <= $3 AND (r.kind IN (1, 3) OR r.kind = 2 AND r.member = $4)
		ORDER BY r.pos DESC LIMIT $5`, func(row *Row) error {
		each(Receipt{room, UserNID(row.Int64(0)), matrix.UserID(row.Text(1)), ReceiptKind(row.Int64(2)), row.Text(3),
			matrix.EventID(row.Text(4)), Pos(row.Int64(5)), row.Int64(6)})
		return nil
	}, room, after, upTo, viewer, limit)
}

// RoomsWithReceipts says in which of the rooms receipts changed between two positions.
func (tx *Tx) RoomsWithReceipts(rooms []RoomNID, after, upTo Pos, each func(RoomNID)) error {
	return chunks(rooms, func(part []RoomNID) error {
		return tx.Query(`SELECT DISTINCT room FROM receipts WHERE room IN ({ids $1}) AND pos > $2 AND pos <= $3 AND kind <> 4`, func(r *Row) error {
			each(RoomNID(r.Int64(0)))
			return nil
		}, int64s(part), after, upTo)
	})
}

// ReadMark is how far a user has read a room for the count of unread messages: the furthest of its unthreaded and main
// receipts, its joining, and its own last message, as of a position.
func (tx *Tx) ReadMark(room RoomNID, user UserNID, joined, upTo Pos) (Pos, error) {
	mark := joined
	further := func(r *Row) error {
		mark = max(mark, Pos(r.Int64(0)))
		return nil
	}
	if err := tx.Query(`SELECT place FROM receipts WHERE room = $1 AND member = $2 AND kind IN (1, 2) AND thread IN ('', 'main')`, further, room, user); err != nil {
		return 0, err
	}
	err := tx.Query(`SELECT pos FROM events WHERE room = $1 AND sub = 0 AND pos > $2 AND pos <= $3 AND sender = $4 ORDER BY pos DESC LIMIT 1`,
		further, room, mark, upTo, user)
	return mark, err
}

// PutAccountData stores a user's own data, global with room 0.
func (tx *Tx) PutAccountData(user UserNID, room RoomNID, typ, content string) error {
	pos, err := tx.AddChange(ChangeAccountData, room, user)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO account_data (member, room, type, content, pos) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (member, room, type) DO UPDATE SET content = excluded.content, pos = excluded.pos`, user, room, typ, content, pos)
	return err
}

// AccountData reads one piece of a user's own data, "" if there is none.
func (tx *Tx) AccountData(user UserNID, room RoomNID, typ string) (content string, err error) {
	err = tx.Query(`SELECT content FROM account_data WHERE member = $1 AND room = $2 AND type = $3`, func(r *Row) error {
		content = r.Text(0)
		return nil
	}, user, room, typ)
	return content, err
}

// CountAccountData counts a user's pieces of data in a room, or global with room 0.
func (tx *Tx) CountAccountData(user UserNID, room RoomNID) (n int, err error) {
	err = tx.Query(`SELECT count(*) FROM account_data WHERE member = $1 AND room = $2`, func(r *Row) error {
		n = int(r.Int64(0))
		return nil
	}, user, room)
	return n, err
}

// AccountDataSince reads a user's own data of a room (0 = global) that changed after one position and up to another.
func (tx *Tx) AccountDataSince(user UserNID, room RoomNID, after, upTo Pos, each func(typ, content string)) error {
	return tx.Query(`SELECT type, content FROM account_data WHERE member = $1 AND room = $2 AND pos > $3 AND pos <= $4 ORDER BY type`, func(r *Row) error {
		each(r.Text(0), r.Text(1))
		return nil
	}, user, room, after, upTo)
}

// RoomsWithAccountData says in which rooms a user's own data changed between two positions.
func (tx *Tx) RoomsWithAccountData(user UserNID, after, upTo Pos, each func(RoomNID)) error {
	return tx.Query(`SELECT DISTINCT room FROM account_data WHERE member = $1 AND pos > $2 AND pos <= $3 AND room <> 0`, func(r *Row) error {
		each(RoomNID(r.Int64(0)))
		return nil
	}, user, after, upTo)
}

// PutFilter stores a filter under its ID.
func (tx *Tx) PutFilter(user UserNID, id, content string) error {
	_, err := tx.Exec(`INSERT INTO filters (member, filter, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, user, id, content)
	return err
}

// Filter reads a filter, "" if there is none.
func (tx *Tx) Filter(user UserNID, id string) (content string, err error) {
	err = tx.Query(`SELECT content FROM filters WHERE member = $1 AND filter = $2`, func(r *Row) error {
		content = r.Text(0)
		return nil
	}, user, id)
	return content, err
}

// Heroes are up to n users, other than one, whose names may stand for a room that has none: those joined or invited,
// longest-standing first, else those who left.
func (tx *Tx) Heroes(room RoomNID, except UserNID, n int) (ids []matrix.UserID, err error) {
	for _, which := range []string{`m.membership IN (1, 2)`, `m.membership IN (3, 4)`} {
		err = tx.Query(`SELECT u.user_id FROM memberships m JOIN users u ON u.nid = m.member WHERE m.room = $1 AND m.member <> $2 AND `+which+`
			ORDER BY m.joined = 0, m.joined, m.pos LIMIT $3`, func(r *Row) error {
			ids = append(ids, matrix.UserID(r.Text(0)))
			return nil
		}, room, except, n)
		if err != nil || len(ids) > 0 {
			break
		}
	}
	return ids, err
}
