package store

import (
	"context"
	"sync"
)

// Pos is a position in the stream of all persisted changes. Positions are visible in the order of commits: who has read
// up to StreamBound misses nothing. 0 is before everything.
type Pos int64

// bounds remembers how far the stream is known to be complete, and lets callers share the question.
type bounds struct {
	mu      sync.Mutex
	last    Pos
	running *inquiry // under way; may have begun too early for a new caller
	next    *inquiry // begins when running ends
}

// inquiry is one question to the database that several callers wait for.
type inquiry struct {
	done chan struct{}
	err  error
}

// StreamBound is the position up to which every change is committed and readable. It only moves forward. The answer is
// never older than the call: everything that was committed before is within it. Callers share the question.
func (db *DB) StreamBound(ctx context.Context) (Pos, error) {
	b := &db.bounds
	if pos, ok := db.engine.boundNow(); ok {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last = max(b.last, pos)
		return b.last, nil
	}
	b.mu.Lock()
	mine := b.next
	if mine == nil {
		mine = &inquiry{done: make(chan struct{})}
		if b.running == nil {
			b.running = mine
			go db.inquire(mine)
		} else {
			b.next = mine
		}
	}
	b.mu.Unlock()
	select {
	case <-mine.done:
		if mine.err != nil {
			return 0, mine.err
		}
		return db.CachedBound(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Given is the last position that was given out, whether or not what has it is committed: no reader of the stream, on any
// node, can have come further.
func (db *DB) Given(ctx context.Context) (Pos, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	return db.engine.given(ctx)
}

// CachedBound is the last known StreamBound, without asking the database. It may be too low.
func (db *DB) CachedBound() Pos {
	db.bounds.mu.Lock()
	defer db.bounds.mu.Unlock()
	return db.bounds.last
}

// Written is the last position that a call of this process has written and committed. Who waits for a reader to have
// come that far lets callers read their own writes.
func (db *DB) Written() Pos { return Pos(db.written.Load()) }

// wrote notes that everything of this process up to a position it was given is committed.
func (db *DB) wrote(pos Pos) {
	for {
		last := db.written.Load()
		if int64(pos) <= last || db.written.CompareAndSwap(last, int64(pos)) {
			return
		}
	}
}

// inquire asks for callers until no more of them wait.
func (db *DB) inquire(q *inquiry) {
	b := &db.bounds
	for q != nil {
		ctx, cancel := context.WithTimeout(db.ctx, readTime)
		pos, err := db.engine.bound(ctx)
		cancel()
		b.mu.Lock()
		b.last = max(b.last, pos)
		q.err = err
		close(q.done)
		q = b.next
		b.running, b.next = q, nil
		b.mu.Unlock()
	}
}

// ChangeKind says what a Change is about. The kinds belong to the domains; a number never gets a second meaning.
type ChangeKind int16

// Change is a persisted change that is not an event. Room and User are 0 where it does not concern one.
type Change struct {
	Pos  Pos
	Kind ChangeKind
	Room RoomNID
	User UserNID
}

// AddChange writes a change to the stream, at a position of its own.
func (tx *Tx) AddChange(kind ChangeKind, room RoomNID, user UserNID) (Pos, error) {
	pos, err := tx.NextPos(1)
	if err != nil {
		return 0, err
	}
	return pos, tx.AddChanges([]Change{{pos, kind, room, user}})
}

// AddChanges writes changes at positions of NextPos. Different changes can share one.
func (tx *Tx) AddChanges(list []Change) error {
	tx.changes = append(tx.changes, list...)
	return tx.InsertRows(changeInsert(list))
}

func changeInsert(list []Change) Insert {
	return Insert{Table: "changes", Rows: len(list), Cols: []Col{
		IntCol("pos", func(i int) Pos { return list[i].Pos }),
		IntCol("kind", func(i int) ChangeKind { return list[i].Kind }),
		IntCol("room", func(i int) RoomNID { return list[i].Room }),
		IntCol("member", func(i int) UserNID { return list[i].User }),
	}}
}

// Changes reads the changes after one position and up to another, in order.
func (tx *Tx) Changes(after, upTo Pos, each func(Change)) error {
	return tx.Query(`SELECT pos, kind, room, member FROM changes WHERE pos > $1 AND pos <= $2 ORDER BY pos, kind, room, member`, func(r *Row) error {
		each(Change{Pos(r.Int64(0)), ChangeKind(r.Int64(1)), RoomNID(r.Int64(2)), UserNID(r.Int64(3))})
		return nil
	}, after, upTo)
}
