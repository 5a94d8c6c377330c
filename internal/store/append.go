package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"conclave/internal/matrix"
)

// Append is a group of events that enter one room's present, with all that follows from them: prepared in memory on top
// of a head, written in one transaction with the groups of other rooms (law 3).
type Append struct {
	Room RoomNID
	Head EventNID // the room's newest event as the group was prepared; 0 for a new room

	Makes      *NewRoom
	Events     []*EventRow // in their order; Append gives them their positions
	Aside      []*EventRow // events without a position: soft-failed
	Replaced   []EventNID  // what stands among Events or Aside now: outliers, and redactions that were held back
	Nodes      []Node
	Members    []MemberChange
	Txns       []Txn
	Redactions []Redaction
	Released   []EventNID // redactions that were held back until now and stay where they are
	Relations  []Relation
	Gaps       []Gap            // what events of this group follow and is not held
	Filled     []matrix.EventID // events of this group that something was waiting for

	done chan error
}

// Last is the position of the last event, once the group is written.
func (a *Append) Last() Pos {
	if len(a.Events) == 0 {
		return 0
	}
	return a.Events[len(a.Events)-1].Pos
}

// NewRoom is a room that is made with its first events.
type NewRoom struct {
	ID      matrix.RoomID
	Version matrix.RoomVersion
	Public  bool
	Alias   matrix.RoomAlias // "" for none
	Creator UserNID
}

// MemberChange is a change of somebody's membership in the current state. NotMember stands for a membership that the
// state has no more. At is the index in Events of the event that brought it about.
type MemberChange struct {
	Member     User
	Membership Membership
	Event      EventNID
	At         int
}

// Txn is a client's transaction and what it is answered.
type Txn struct {
	Key    TxnKey
	Client string // the client's own transaction ID, shown to the device that sent the event
	Event  EventNID
	Answer string
}

// Redaction is a redaction and, if its target is held and it counts, the target's redacted text.
type Redaction struct {
	Target    matrix.EventID
	TargetNID EventNID
	By        EventNID
	Power     RedactPower
	JSON      []byte
}

// RedactPower is what is known of the power of whoever redacts.
type RedactPower int

// The kinds of knowledge. Their numbers are stored.
const (
	PowerUnknown RedactPower = 0 // or none
	PowerNow     RedactPower = 1 // sufficient when the redaction came
	PowerThen    RedactPower = 2 // sufficient where the redaction stands in history that was fetched
)

// ErrHeadMoved means that another node was faster: the room's newest event is not the one that a group was prepared on.
var ErrHeadMoved = errors.New("store: the room's head has moved")

// ErrRoomBusy means that another node is writing to the room at this moment.
var ErrRoomBusy = errors.New("store: the room is being written to by another node")

// KnownTxns is the error of a group some of whose transactions had been answered before. Nothing of it was written.
type KnownTxns struct{ Answers map[TxnKey]string }

// Error implements error.
func (k *KnownTxns) Error() string {
	return fmt.Sprintf("store: %d transactions are known", len(k.Answers))
}

// linger is how long the writer waits for groups that are likely to come: a small part of what a commit takes.
const linger = 250 * time.Microsecond

// maxAppend is how many events share a transaction.
const maxAppend = 64

// Append writes a group and returns once it is durable, or says why it cannot be: ErrHeadMoved, ErrRoomBusy,
// *KnownTxns, or an error of the database, after which nothing of the group is there. It does not end with ctx: what was
// handed in is written.
func (db *DB) Append(ctx context.Context, a *Append) error {
	a.done = make(chan error, 1)
	select {
	case db.appends <- a:
	case <-ctx.Done():
		return ctx.Err()
	case <-db.ctx.Done():
		return ErrClosed
	}
	err := <-a.done
	if err == nil {
		db.wrote(a.Last())
	}
	return err
}

// appender is the one writer of a node: it takes the groups that wait into one transaction after the other.
func (db *DB) appender() {
	last := 0
	for {
		select {
		case first := <-db.appends:
			groups := db.gatherAppends(first, last)
			last = len(groups)
			db.appendGroups(groups)
		case <-db.ctx.Done():
			return
		}
	}
}

// gatherAppends takes the groups of other rooms that wait behind the first. If several came together the last time, it
// waits a moment for as many again: those who were answered then are about to send their next, and one commit for all is
// cheaper for each than two for halves of them.
func (db *DB) gatherAppends(first *Append, last int) []*Append {
	groups := []*Append{first}
	var over <-chan time.Time
	for events := len(first.Events); events < maxAppend; {
		select {
		case a := <-db.appends:
			groups = append(groups, a)
			events += len(a.Events)
			continue
		default:
		}
		if last < 2 || len(groups) >= 2*last {
			return groups
		}
		if over == nil {
			over = time.After(linger)
		}
		select {
		case a := <-db.appends:
			groups = append(groups, a)
			events += len(a.Events)
		case <-over:
			return groups
		}
	}
	return groups
}

// appendGroups writes groups together, and one by one if that fails.
func (db *DB) appendGroups(groups []*Append) {
	ctx, cancel := context.WithTimeout(db.ctx, writeTime)
	defer cancel()
	verdicts, err := db.appendOnce(ctx, groups)
	if err != nil && len(groups) > 1 {
		for _, a := range groups {
			db.appendGroups([]*Append{a})
		}
		return
	}
	for i, a := range groups {
		if err != nil {
			a.done <- err
		} else {
			a.done <- verdicts[i]
		}
	}
}

// appendOnce is one transaction: what was found under the rooms' locks decides which groups it holds.
func (db *DB) appendOnce(ctx context.Context, groups []*Append) (verdicts []error, err error) {
	w := &appendWork{db: db, groups: groups, ts: time.Now().UnixMilli()}
	defer func() {
		if v := recover(); v != nil { // whoever handed in what does this gets the error, and the node goes on writing
			db.log.Error("a panic while writing events", "panic", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			err = errAppendPanic
		}
	}()
	err = db.Batch2(ctx, w.look, w.write)
	if errors.Is(err, errNothing) {
		err = nil
	}
	return w.verdicts, err
}

var errAppendPanic = errors.New("store: a panic while writing events, see the log")

// errNothing ends a transaction none of whose groups can be written.
var errNothing = errors.New("store: nothing to write")

// appendWork is one transaction of the appender.
type appendWork struct {
	db     *DB
	groups []*Append
	ts     int64

	heads    map[RoomNID]EventNID
	locked   map[RoomNID]bool
	known    map[TxnKey]string
	first    Pos
	verdicts []error
	good     []*Append
}

// look asks for what the groups depend on: the rooms' locks and heads, known transactions, positions.
func (w *appendWork) look(b *Batch) {
	w.heads, w.locked, w.known = map[RoomNID]EventNID{}, map[RoomNID]bool{}, map[TxnKey]string{}
	rooms := make([]int64, len(w.groups))
	events := 0
	var txns [][]byte
	for i, a := range w.groups {
		rooms[i] = int64(a.Room)
		events += len(a.Events)
		for _, t := range a.Txns {
			txns = append(txns, t.Key.bytes())
		}
	}
	b.LockRooms(rooms, func(room int64) { w.locked[RoomNID(room)] = true })
	b.Query(`SELECT r.nid, coalesce((SELECT e.nid FROM events e WHERE e.room = r.nid AND e.sub = 0 AND e.pos IS NOT NULL
		ORDER BY e.pos DESC LIMIT 1), 0) FROM rooms r WHERE r.nid IN ({ids $1})`, func(r *Row) error {
		w.heads[RoomNID(r.Int64(0))] = EventNID(r.Int64(1))
		return nil
	}, rooms)
	if len(txns) > 0 { // one look into the index for each, whatever a planner thinks of the size of the table
		b.Query(`SELECT v.value, (SELECT t.answer FROM txns t WHERE t.txn = v.value) FROM ({blobs $1}) v`, func(r *Row) error {
			if !r.IsNull(1) {
				w.known[txnKeyOf(r.Bytes(0))] = r.Text(1)
			}
			return nil
		}, txns)
	}
	b.NextPos(max(1, events), func(first Pos) { w.first = first })
}

// judge decides which groups can be written.
func (w *appendWork) judge() {
	w.verdicts, w.good = make([]error, len(w.groups)), nil
	for i, a := range w.groups {
		w.verdicts[i] = w.verdict(a)
		if w.verdicts[i] == nil {
			w.good = append(w.good, a)
			w.heads[a.Room] = -1 // a second group of the room in this transaction would not fit
		}
	}
}

func (w *appendWork) verdict(a *Append) error {
	if !w.locked[a.Room] {
		return ErrRoomBusy
	}
	if w.heads[a.Room] != a.Head {
		return ErrHeadMoved
	}
	var known map[TxnKey]string
	for _, t := range a.Txns {
		if answer, ok := w.known[t.Key]; ok {
			if known == nil {
				known = map[TxnKey]string{}
			}
			known[t.Key] = answer
		}
	}
	if known != nil {
		return &KnownTxns{known}
	}
	return nil
}

// write queues the rows of the groups that can be written.
func (w *appendWork) write(b *Batch) error {
	w.judge()
	if len(w.good) == 0 {
		return errNothing
	}
	pos := w.first
	for _, a := range w.good {
		for _, e := range a.Events {
			e.Pos = pos
			pos++
		}
	}
	w.writeEvents(b)
	w.writeRest(b)
	b.wrote = w.commit()
	return nil
}

// commit is what the journal is to hold of the groups.
func (w *appendWork) commit() Commit {
	c := Commit{Appended: true}
	for _, a := range w.good {
		c.Events = append(c.Events, a.Events...)
		for _, m := range a.Members {
			c.Changes = append(c.Changes, Change{a.Events[m.At].Pos, ChangeMembership, a.Room, m.Member.NID})
		}
	}
	return c
}
