package store

import (
	"time"

	"conclave/internal/matrix"
)

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
	if err == nil && r.Thread == "" && (r.Kind == ReadReceipt || r.Kind == PrivateReceipt) {
		_, err = tx.Exec(`DELETE FROM push_counts WHERE room = $1 AND member = $2 AND pos <= $3`, r.Room, r.User, r.Place)
	}
	return n > 0, err
}

// Bounds of the receipts that wait for their events: how many in one room, and how long.
const (
	MaxEarlyReceipts = 1000
	earlyReceiptTime = 7 * 24 * time.Hour
)

// KeepReceipt lets a receipt wait for its event, in the place of one that waits already. Where more than most wait in a
// room (MaxEarlyReceipts), those that came first give way, and so do those that have waited too long anywhere.
func (tx *Tx) KeepReceipt(r Receipt, now time.Time, most int) error {
	_, err := tx.Exec(`INSERT INTO early_receipts (room, member, kind, thread, event_id, ts, received) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (room, member, kind, thread) DO UPDATE SET event_id = excluded.event_id, ts = excluded.ts, received = excluded.received`,
		r.Room, r.User, r.Kind, r.Thread, string(r.Event), r.TS, now.UnixMilli())
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM early_receipts WHERE received < $1`, now.Add(-earlyReceiptTime).UnixMilli()); err != nil {
		return err
	}
	_, err = tx.Exec(`DELETE FROM early_receipts WHERE room = $1 AND received <= coalesce((
		SELECT received FROM early_receipts WHERE room = $1 ORDER BY received DESC LIMIT 1 OFFSET $2), 0)`, r.Room, most)
	return err
}

// RipeReceipts reads those of a room's waiting receipts whose events have come, or were refused for good: then the place
// is 0.
func (tx *Tx) RipeReceipts(room RoomNID, each func(Receipt)) error {
	return tx.Query(`SELECT x.member, x.kind, x.thread, x.event_id, x.ts, e.pos, e.sub, e.flags FROM early_receipts x
		JOIN events e ON e.room = x.room AND e.event_id = x.event_id
		WHERE x.room = $1 AND (e.pos IS NOT NULL AND (e.flags & $3) = 0 OR (e.flags & $2) <> 0)`, func(row *Row) error {
		r := Receipt{Room: room, User: UserNID(row.Int64(0)), Kind: ReceiptKind(row.Int64(1)), Thread: row.Text(2), Event: matrix.EventID(row.Text(3)), TS: row.Int64(4)}
		if e := (&EventRow{Pos: Pos(row.Int64(5)), Sub: row.Int64(6), Flags: EventFlags(row.Int64(7))}); e.Visible() {
			r.Place = e.ReceiptPlace()
		}
		each(r)
		return nil
	}, room, int64(FlagRejected|FlagSoftFailed), int64(FlagHeld))
}

// DropEarly removes a receipt that waits no longer. One that has taken its place meanwhile stays.
func (tx *Tx) DropEarly(r Receipt) error {
	_, err := tx.Exec(`DELETE FROM early_receipts WHERE room = $1 AND member = $2 AND kind = $3 AND thread = $4 AND event_id = $5`,
		r.Room, r.User, r.Kind, r.Thread, string(r.Event))
	return err
}

// receiptColumns are what receipts reads.
const receiptColumns = `r.room, r.member, u.user_id, r.kind, r.thread, r.event_id, r.place, r.ts`

func (tx *Tx) receipts(sql string, each func(Receipt), args ...any) error {
	return tx.Query(sql, func(row *Row) error {
		each(Receipt{RoomNID(row.Int64(0)), UserNID(row.Int64(1)), matrix.UserID(row.Text(2)), ReceiptKind(row.Int64(3)), row.Text(4),
			matrix.EventID(row.Text(5)), Pos(row.Int64(6)), row.Int64(7)})
		return nil
	}, args...)
}

// Receipts reads a room's receipts that changed after one position and up to another, at most limit, newest first.
// Those that only their owner may see are left out for others.
func (tx *Tx) Receipts(room RoomNID, viewer UserNID, after, upTo Pos, limit int, each func(Receipt)) error {
	return tx.receipts(`SELECT `+receiptColumns+` FROM receipts r JOIN users u ON u.nid = r.member
		WHERE r.room = $1 AND r.pos > $2 AND r.pos <= $3 AND (r.kind IN (1, 3) OR r.kind = 2 AND r.member = $4)
		ORDER BY r.pos DESC LIMIT $5`, each, room, after, upTo, viewer, limit)
}

// OwnReceipts is Receipts for those of the viewer alone, without a limit: there is one for each thread that it has read.
func (tx *Tx) OwnReceipts(room RoomNID, viewer UserNID, after, upTo Pos, each func(Receipt)) error {
	return tx.receipts(`SELECT `+receiptColumns+` FROM receipts r JOIN users u ON u.nid = r.member
		WHERE r.room = $1 AND r.member = $4 AND r.pos > $2 AND r.pos <= $3 AND r.kind IN (1, 2, 3)`, each, room, after, upTo, viewer)
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

// ReadMark is how far a user has read a room as of a position. main is for the count of unread messages of the main
// timeline: the furthest of its unthreaded and main receipts, its joining, and its own last message there. every holds
// for all threads: the furthest of its unthreaded receipts and its joining.
func (tx *Tx) ReadMark(room RoomNID, user UserNID, joined, upTo Pos) (main, every Pos, err error) {
	main, every = joined, joined
	err = tx.Query(`SELECT place, thread FROM receipts WHERE room = $1 AND member = $2 AND kind IN (1, 2) AND thread IN ('', 'main')`, func(r *Row) error {
		main = max(main, Pos(r.Int64(0)))
		if r.Text(1) == "" {
			every = max(every, Pos(r.Int64(0)))
		}
		return nil
	}, room, user)
	if err != nil {
		return 0, 0, err
	}
	main, err = tx.OwnNewest(room, user, main, upTo)
	return main, every, err
}

// OwnNewest is where a user's own last event in a room's main timeline stands after one position and up to another: the
// first of them if there is none.
func (tx *Tx) OwnNewest(room RoomNID, user UserNID, after, upTo Pos) (at Pos, err error) {
	at = after
	err = tx.Query(`SELECT pos FROM events WHERE room = $1 AND sub = 0 AND pos > $2 AND pos <= $3 AND sender = $4 AND thread = 0
		ORDER BY pos DESC LIMIT 1`, func(r *Row) error {
		at = Pos(r.Int64(0))
		return nil
	}, room, after, upTo, user)
	return at, err
}

// ThreadMark is how far a user has read a thread, and the thread's running numbers there and at its end.
type ThreadMark struct {
	Thread     EventNID
	Root       matrix.EventID
	Read, Head Counts // their ThreadNotify and ThreadHighlight
	ReadUpTo   Pos    // how far it is read
}

// UnreadThreads reads the threads of a room in which something came after a position and up to another, and after what
// the user has read of them: the furthest of its receipts in the thread and its own last message there.
func (tx *Tx) UnreadThreads(room RoomNID, user UserNID, after, upTo Pos, each func(ThreadMark)) error {
	return tx.Query(`SELECT x.thread, x.root, h.t_notify, h.t_highlight,
			coalesce((SELECT m.t_notify FROM events m WHERE m.thread = x.thread AND m.sub = 0 AND m.pos <= x.read ORDER BY m.pos DESC LIMIT 1), 0),
			coalesce((SELECT m.t_highlight FROM events m WHERE m.thread = x.thread AND m.sub = 0 AND m.pos <= x.read ORDER BY m.pos DESC LIMIT 1), 0), x.read
		FROM (SELECT t.thread, t.head, r.event_id AS root, {greatest}($3,
				coalesce((SELECT max(c.place) FROM receipts c
					WHERE c.room = $1 AND c.member = $2 AND c.kind IN (1, 2) AND c.thread = r.event_id), 0),
				coalesce((SELECT o.pos FROM events o WHERE o.thread = t.thread AND o.sub = 0 AND o.pos > $3 AND o.pos <= $4 AND o.sender = $2
					ORDER BY o.pos DESC LIMIT 1), 0)) AS read
			FROM (SELECT thread, max(pos) AS head FROM events WHERE room = $1 AND thread <> 0 AND sub = 0 AND pos > $3 AND pos <= $4 GROUP BY thread) t
			JOIN events r ON r.nid = t.thread AND r.room = $1) x
		JOIN events h ON h.thread = x.thread AND h.pos = x.head AND h.sub = 0
		WHERE x.head > x.read`, func(r *Row) error {
		each(ThreadMark{EventNID(r.Int64(0)), matrix.EventID(r.Text(1)),
			Counts{ThreadNotify: r.Int64(4), ThreadHighlight: r.Int64(5)}, Counts{ThreadNotify: r.Int64(2), ThreadHighlight: r.Int64(3)},
			Pos(r.Int64(6))})
		return nil
	}, room, user, after, upTo)
}

// ThreadAt is a thread of a room as it was just before a position: its root, and its running numbers.
func (tx *Tx) ThreadAt(room RoomNID, thread EventNID, before Pos) (t ThreadMark, err error) {
	err = tx.Query(`SELECT event_id FROM events WHERE nid = $1 AND room = $2`, func(r *Row) error {
		t.Thread, t.Root = thread, matrix.EventID(r.Text(0))
		return nil
	}, thread, room)
	if err != nil {
		return t, err
	}
	err = tx.Query(`SELECT t_notify, t_highlight FROM events WHERE thread = $1 AND sub = 0 AND pos < $2 ORDER BY pos DESC LIMIT 1`, func(r *Row) error {
		t.Read.ThreadNotify, t.Read.ThreadHighlight = r.Int64(0), r.Int64(1)
		return nil
	}, thread, before)
	return t, err
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

// OtherAccountData counts a user's pieces of data in a room, or global with room 0, that are of other types than one.
func (tx *Tx) OtherAccountData(user UserNID, room RoomNID, typ string) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM account_data WHERE member = $1 AND room = $2 AND type <> $3`, user, room, typ).Scan(&n)
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

// OtherFilters counts a user's filters other than one.
func (tx *Tx) OtherFilters(user UserNID, id string) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM filters WHERE member = $1 AND filter <> $2`, user, id).Scan(&n)
	return n, err
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
