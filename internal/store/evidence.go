package store

import (
	"context"
	"fmt"

	"conclave/internal/matrix"
)

// Evidence writes events that have no stream position: outliers, rejected events, history. held are rows that they take
// the place of, by number. An event that is there already stays as it is. The rows, all of one room, get their heights.
func (tx *Tx) Evidence(rows []*EventRow, held []EventNID) error {
	if len(held) > 0 {
		if _, err := tx.Exec(`DELETE FROM events WHERE nid IN ({ids $1}) AND pos IS NULL`, int64s(held)); err != nil {
			return err
		}
	}
	if err := tx.raise(rows); err != nil {
		return err
	}
	in := eventInsert(rows)
	in.Suffix = "ON CONFLICT DO NOTHING"
	return tx.InsertRows(in)
}

// Stated finds those of the events at which the state is known.
func (tx *Tx) Stated(room RoomNID, ids []matrix.EventID, each func(matrix.EventID)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT event_id FROM events WHERE event_id IN ({texts $1}) AND room = $2 AND state_after IS NOT NULL`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)))
			return nil
		}, texts(part), room)
	})
}

// Elsewhere finds which of the events are held in another room than the one given. It is only good for refusing them.
func (tx *Tx) Elsewhere(room RoomNID, ids []matrix.EventID, each func(matrix.EventID)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT event_id FROM events WHERE event_id IN ({texts $1}) AND room <> $2`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)))
			return nil
		}, texts(part), room)
	})
}

// Gap says that an event of a room follows one that we do not hold.
type Gap struct {
	Room    RoomNID
	Event   EventNID
	Missing matrix.EventID
}

// AddGaps notes what is missing.
func (tx *Tx) AddGaps(gaps []Gap) error { return tx.InsertRows(gapInsert(gaps)) }

func gapInsert(gaps []Gap) Insert {
	return Insert{Table: "gaps", Rows: len(gaps), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		IntCol("room", func(i int) RoomNID { return gaps[i].Room }),
		IntCol("event", func(i int) EventNID { return gaps[i].Event }),
		TextCol("missing", func(i int) string { return string(gaps[i].Missing) }),
	}}
}

// CloseGaps forgets that events are missing: they are held now, or cannot be had.
func (tx *Tx) CloseGaps(room RoomNID, missing []matrix.EventID) error {
	return chunks(missing, func(part []matrix.EventID) error {
		_, err := tx.Exec(`DELETE FROM gaps WHERE room = $1 AND missing IN ({texts $2})`, room, texts(part))
		return err
	})
}

// Awaited finds which of some events are followed by one that has a place in the room already.
func (tx *Tx) Awaited(room RoomNID, ids []matrix.EventID, each func(matrix.EventID)) error {
	return chunks(ids, func(part []matrix.EventID) error {
		return tx.Query(`SELECT DISTINCT g.missing FROM gaps g JOIN events e ON e.nid = g.event
			WHERE g.room = $1 AND g.missing IN ({texts $2}) AND e.pos IS NOT NULL`, func(r *Row) error {
			each(matrix.EventID(r.Text(0)))
			return nil
		}, room, texts(part))
	})
}

// NewestGap finds the latest event in a stretch of a room's timeline, after lo and up to hi, of whose parents some are
// missing, and which; nil if the stretch is whole.
func (tx *Tx) NewestGap(room RoomNID, lo, hi Place) (row *EventRow, missing []matrix.EventID, err error) {
	row, err = tx.event(selectEvents+`WHERE e.nid = (SELECT x.nid FROM gaps g JOIN events x ON x.nid = g.event
		WHERE g.room = $1 AND x.pos IS NOT NULL AND (x.pos, x.sub) > ($2, $3) AND (x.pos, x.sub) <= ($4, $5)
		ORDER BY x.pos DESC, x.sub DESC LIMIT 1)`, room, lo.Pos, lo.Sub, hi.Pos, hi.Sub)
	if err != nil || row == nil {
		return nil, nil, err
	}
	err = tx.Query(`SELECT missing FROM gaps WHERE room = $1 AND event = $2 ORDER BY missing`, func(r *Row) error {
		missing = append(missing, matrix.EventID(r.Text(0)))
		return nil
	}, room, row.NID)
	return row, missing, err
}

// OldestSub is the lowest sub-order of the events that stand at a position of a room.
func (tx *Tx) OldestSub(room RoomNID, pos Pos) (sub int64, err error) {
	err = tx.Query(`SELECT coalesce(min(sub), 0) FROM events WHERE room = $1 AND pos = $2`, func(r *Row) error {
		sub = r.Int64(0)
		return nil
	}, room, pos)
	return sub, err
}

// ClearStripped forgets what an invitation came with, once the room itself is here.
func (tx *Tx) ClearStripped(room RoomNID, user UserNID) error {
	_, err := tx.Exec(`DELETE FROM stripped_states WHERE room = $1 AND member = $2`, room, user)
	return err
}

// ClearStrippedOf is ClearStripped for everybody: what the room shows is read from its state from now on.
func (tx *Tx) ClearStrippedOf(room RoomNID) error {
	_, err := tx.Exec(`DELETE FROM stripped_states WHERE room = $1`, room)
	return err
}

// PutMember notes where a user stands in a room that we are not in: invited, or gone again. stripped is what the
// invitation came with, "" for nothing. The event must be held.
func (tx *Tx) PutMember(room RoomNID, who User, membership Membership, event EventNID, stripped string) (Pos, error) {
	pos, err := tx.AddChange(ChangeMembership, room, who.NID)
	if err != nil {
		return 0, err
	}
	change := MemberChange{Member: who, Membership: membership, Event: event}
	if err := tx.InsertRows(memberInsert([]placedMember{{change, room, pos}})); err != nil {
		return 0, err
	}
	if err := tx.ClearStripped(room, who.NID); err != nil || stripped == "" {
		return pos, err
	}
	_, err = tx.Exec(`INSERT INTO stripped_states (room, member, events) VALUES ($1, $2, $3)`, room, who.NID, stripped)
	return pos, err
}

// Users finds the numbers of many users and gives them out at first sight.
func (db *DB) Users(ctx context.Context, ids []matrix.UserID) (map[matrix.UserID]User, error) {
	found := make(map[matrix.UserID]User, len(ids))
	find := func(tx *Tx) error {
		return chunks(ids, func(part []matrix.UserID) error {
			return tx.Query(`SELECT user_id, nid, server FROM users WHERE user_id IN ({texts $1})`, func(r *Row) error {
				found[matrix.UserID(r.Text(0))] = User{UserNID(r.Int64(1)), ServerNID(r.Int64(2))}
				return nil
			}, texts(part))
		})
	}
	if err := db.Read(ctx, find); err != nil {
		return nil, err
	}
	fresh, numbers, err := db.newUsers(ctx, ids, found)
	if err != nil || len(fresh) == 0 {
		return found, err
	}
	err = db.Write(ctx, func(tx *Tx) error {
		if err := tx.InsertRows(Insert{Table: "users", Rows: len(fresh), Suffix: "ON CONFLICT (user_id) DO NOTHING", Cols: []Col{
			IntCol("nid", func(i int) UserNID { return numbers[i].NID }),
			TextCol("user_id", func(i int) string { return string(fresh[i]) }),
			IntCol("server", func(i int) ServerNID { return numbers[i].Server }),
		}}); err != nil {
			return err
		}
		return find(tx)
	})
	if err != nil {
		return nil, fmt.Errorf("giving out numbers to users: %w", err)
	}
	return found, nil
}

// newUsers draws numbers for those of the users that have none.
func (db *DB) newUsers(ctx context.Context, ids []matrix.UserID, known map[matrix.UserID]User) (fresh []matrix.UserID, numbers []User, err error) {
	seen := map[matrix.UserID]bool{}
	servers := map[matrix.ServerName]ServerNID{}
	for _, id := range ids {
		if _, ok := known[id]; ok || seen[id] {
			continue
		}
		seen[id] = true
		nid, err := db.NextNID(KindUser)
		if err != nil {
			return nil, nil, err
		}
		name := id.Server()
		if servers[name] == 0 {
			if servers[name], err = db.Server(ctx, name); err != nil {
				return nil, nil, err
			}
		}
		fresh, numbers = append(fresh, id), append(numbers, User{UserNID(nid), servers[name]})
	}
	return fresh, numbers, nil
}
