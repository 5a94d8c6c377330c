package store

import "conclave/internal/matrix"

// Staged is an event from another server that waits for its turn: checked for its form, its hash and its signatures, but
// not yet for its place in the room.
type Staged struct {
	NID      int64 // of KindStaged
	Room     RoomNID
	Origin   ServerNID // who brought it
	ID       matrix.EventID
	Received int64 // ms
	JSON     []byte
}

// MaxStaged is how many events may wait in one room; the oldest give way, and are asked for again when something that
// follows them comes.
const MaxStaged = 1000

// Stage writes events that wait. Those that wait already stay as they are.
func (tx *Tx) Stage(rows []Staged) error {
	rooms := map[RoomNID]bool{}
	for _, row := range rows {
		rooms[row.Room] = true
	}
	err := tx.InsertRows(Insert{Table: "staged", Rows: len(rows), Suffix: "ON CONFLICT DO NOTHING", Cols: []Col{
		IntCol("nid", func(i int) int64 { return rows[i].NID }),
		IntCol("room", func(i int) RoomNID { return rows[i].Room }),
		IntCol("origin", func(i int) ServerNID { return rows[i].Origin }),
		TextCol("event_id", func(i int) string { return string(rows[i].ID) }),
		IntCol("received", func(i int) int64 { return rows[i].Received }),
		TextCol("json", func(i int) string { return string(rows[i].JSON) }),
	}})
	if err != nil {
		return err
	}
	for room := range rooms {
		if _, err := tx.Exec(`DELETE FROM staged WHERE room = $1 AND nid <= coalesce((
			SELECT nid FROM staged WHERE room = $1 ORDER BY nid DESC LIMIT 1 OFFSET $2), 0)`, room, MaxStaged); err != nil {
			return err
		}
	}
	return nil
}

const selectStaged = `SELECT x.nid, x.room, x.origin, x.event_id, x.received, x.json, s.name FROM staged x JOIN servers s ON s.nid = x.origin `

func readStaged(r *Row, each func(Staged, matrix.ServerName)) {
	each(Staged{
		NID: r.Int64(0), Room: RoomNID(r.Int64(1)), Origin: ServerNID(r.Int64(2)), ID: matrix.EventID(r.Text(3)),
		Received: r.Int64(4), JSON: []byte(r.Text(5)),
	}, matrix.ServerName(r.Text(6)))
}

// Waiting reads events that wait in a room, in the order of their coming, after one and at most limit of them, with the
// name of the server that brought each.
func (tx *Tx) Waiting(room RoomNID, after int64, limit int, each func(Staged, matrix.ServerName)) error {
	return tx.Query(selectStaged+`WHERE x.room = $1 AND x.nid > $2 ORDER BY x.nid LIMIT $3`, func(r *Row) error {
		readStaged(r, each)
		return nil
	}, room, after, limit)
}

// WaitingNumbers reads the numbers of the events that wait in a room, in the order of their coming.
func (tx *Tx) WaitingNumbers(room RoomNID, each func(nid int64)) error {
	return tx.Query(`SELECT nid FROM staged WHERE room = $1 ORDER BY nid`, func(r *Row) error {
		each(r.Int64(0))
		return nil
	}, room)
}

// Staged reads those of some events that still wait, in the order of their coming, as Waiting does.
func (tx *Tx) Staged(nids []int64, each func(Staged, matrix.ServerName)) error {
	return tx.Query(selectStaged+`WHERE x.nid IN ({ids $1}) ORDER BY x.nid`, func(r *Row) error {
		readStaged(r, each)
		return nil
	}, nids)
}

// RoomsWaiting reads the rooms in which events wait.
func (tx *Tx) RoomsWaiting(each func(RoomNID)) error {
	return tx.Query(`SELECT DISTINCT room FROM staged`, func(r *Row) error {
		each(RoomNID(r.Int64(0)))
		return nil
	})
}

// Unstage removes events that wait no longer.
func (tx *Tx) Unstage(nids []int64) error {
	return chunks(nids, func(part []int64) error {
		_, err := tx.Exec(`DELETE FROM staged WHERE nid IN ({ids $1})`, part)
		return err
	})
}
