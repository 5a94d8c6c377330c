package store_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// appends makes groups for rooms of its own.
type appends struct {
	t  *testing.T
	db *store.DB
	by store.User
}

func newAppends(t *testing.T, db *store.DB) *appends {
	t.Helper()
	by, err := db.User(t.Context(), "@a:one")
	must(t, err)
	return &appends{t, db, by}
}

func (a *appends) nid(kind store.Kind) int64 {
	a.t.Helper()
	n, err := a.db.NextNID(kind)
	must(a.t, err)
	return n
}

// row is an event in a room.
func (a *appends) row(room store.RoomNID, body string) *store.EventRow {
	a.t.Helper()
	tmpl := matrix.Template{RoomID: matrix.RoomID(fmt.Sprintf("!%d:one", room)), Sender: "@a:one", Type: "m", Content: fmt.Appendf(nil, `{"b":%q}`, body), OriginServerTS: 1}
	ev, err := tmpl.Build(11, "one", "ed25519:a", ed25519.NewKeyFromSeed(make([]byte, 32)))
	must(a.t, err)
	state := &store.State{Members: statetree.Name{1}}
	return &store.EventRow{NID: store.EventNID(a.nid(store.KindEvent)), Room: room, Sender: a.by.NID, After: state, Event: ev}
}

// room makes a room by an append and returns it with its head.
func (a *appends) room() (store.RoomNID, store.EventNID) {
	a.t.Helper()
	room := store.RoomNID(a.nid(store.KindRoom))
	first := a.row(room, "first")
	must(a.t, a.db.Append(a.t.Context(), &store.Append{Room: room, Events: []*store.EventRow{first}, Makes: a.makes(room)}))
	return room, first.NID
}

func (a *appends) makes(room store.RoomNID) *store.NewRoom {
	return &store.NewRoom{ID: matrix.RoomID(fmt.Sprintf("!%d:one", room)), Version: 11, Creator: a.by.NID}
}

// counts are the rows of the tables that an append writes to.
func (a *appends) counts() (text string) {
	a.t.Helper()
	for _, table := range appendTables {
		var n int
		must(a.t, a.db.Read(a.t.Context(), func(tx *store.Tx) error {
			_, err := tx.QueryRow(`SELECT count(*) FROM ` + table).Scan(&n)
			return err
		}))
		text += fmt.Sprint(table, " ", n, "; ")
	}
	return text
}

var appendTables = []string{"rooms", "aliases", "events", "state_nodes", "txns", "memberships", "changes", "relations", "redactions"}

// everything is a group that writes to every table.
func (a *appends) everything(body string) *store.Append {
	a.t.Helper()
	room := store.RoomNID(a.nid(store.KindRoom))
	one, two := a.row(room, body), a.row(room, body+"2")
	g := &store.Append{
		Room: room, Makes: a.makes(room), Events: []*store.EventRow{one, two},
		Nodes:      []store.Node{{Name: statetree.Name{1}, Data: []byte("x")}},
		Members:    []store.MemberChange{{Member: a.by, Membership: store.Join, Event: one.NID}, {Member: a.by, Membership: store.Leave, Event: two.NID, At: 1}},
		Txns:       []store.Txn{{Key: store.TxnKey{Device: 1, Hash: [16]byte{byte(room)}}, Event: one.NID, Answer: "a"}},
		Relations:  []store.Relation{{Target: "$x", RelType: "m.thread", Event: two.NID}},
		Redactions: []store.Redaction{{Target: one.Event.ID(), TargetNID: one.NID, By: two.NID, JSON: one.Event.JSON()}},
	}
	g.Makes.Alias = matrix.RoomAlias("#" + body + ":one")
	return g
}

// TestAppendIsAllOrNothing breaks the writing of one table after the other: nothing of the group is there, and the same
// group is written once the table is whole again.
func TestAppendIsAllOrNothing(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		a := newAppends(t, db)
		run := func(sql string) {
			t.Helper()
			must(t, db.Write(t.Context(), func(tx *store.Tx) error {
				_, err := tx.Exec(sql)
				return err
			}))
		}
		if db.IsPostgres() {
			run(`CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''boom''; END'`)
		}
		for _, table := range appendTables {
			g := a.everything(table)
			before := a.counts()
			if db.IsPostgres() {
				run(`CREATE TRIGGER boom BEFORE INSERT ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION boom()`)
			} else {
				run(`CREATE TRIGGER boom BEFORE INSERT ON ` + table + ` BEGIN SELECT RAISE(ABORT, 'boom'); END`)
			}
			if err := db.Append(t.Context(), g); err == nil {
				t.Errorf("%s cannot be written, and yet the group is", table)
			}
			if after := a.counts(); after != before {
				t.Errorf("%s cannot be written, and left behind is %s, before it was %s", table, after, before)
			}
			if db.IsPostgres() {
				run(`DROP TRIGGER boom ON ` + table)
			} else {
				run(`DROP TRIGGER boom`)
			}
			must(t, db.Append(t.Context(), g))
		}
	})
}

// TestAppendsShareATransaction has many rooms append at once, some of whose groups cannot be written: each gets its own
// verdict, positions are distinct and in the order of each group.
func TestAppendsShareATransaction(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		a := newAppends(t, db)
		type job struct {
			g   *store.Append
			err error
		}
		var jobs []*job
		for n := range 30 {
			room, head := a.room()
			g := &store.Append{Room: room, Head: head, Events: []*store.EventRow{a.row(room, "x"), a.row(room, "y")}}
			switch n % 5 {
			case 3:
				g.Head++ // not the room's head
			case 4:
				g.Events[1].NID = g.Events[0].NID // a row that cannot be
			}
			jobs = append(jobs, &job{g: g})
		}
		var all sync.WaitGroup
		for _, j := range jobs {
			all.Go(func() { j.err = db.Append(t.Context(), j.g) })
		}
		all.Wait()
		seen := map[store.Pos]bool{}
		for n, j := range jobs {
			switch n % 5 {
			case 3:
				if !errors.Is(j.err, store.ErrHeadMoved) {
					t.Errorf("a head that has moved: %v", j.err)
				}
			case 4:
				if j.err == nil {
					t.Error("two events of one number")
				}
			default:
				x, y := j.g.Events[0].Pos, j.g.Events[1].Pos
				if j.err != nil || x <= 0 || y <= x || seen[x] || seen[y] || j.g.Last() != y {
					t.Errorf("positions %d and %d, %v", x, y, j.err)
				}
				seen[x], seen[y] = true, true
			}
			must(t, db.Read(t.Context(), func(tx *store.Tx) error {
				head, err := tx.Head(j.g.Room)
				if want := j.g.Events[1].NID; err == nil && (head.NID == want) != (j.err == nil) {
					t.Errorf("group %d: the head is %d, the group was written: %v", n, head.NID, j.err == nil)
				}
				return err
			}))
		}
	})
}

func TestKnownTransactions(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		a := newAppends(t, db)
		room, head := a.room()
		key, other := store.TxnKey{Device: 7, Hash: [16]byte{1}}, store.TxnKey{Device: 7, Hash: [16]byte{2}}
		first := &store.Append{Room: room, Head: head, Events: []*store.EventRow{a.row(room, "x")}}
		first.Txns = []store.Txn{{Key: key, Client: "c", Event: first.Events[0].NID, Answer: "$answer"}}
		must(t, db.Append(t.Context(), first))
		again := &store.Append{Room: room, Head: first.Events[0].NID, Events: []*store.EventRow{a.row(room, "y"), a.row(room, "z")}}
		again.Txns = []store.Txn{{Key: other, Event: again.Events[0].NID, Answer: "$other"}, {Key: key, Event: again.Events[1].NID, Answer: "$again"}}
		err := db.Append(t.Context(), again)
		var known *store.KnownTxns
		if !errors.As(err, &known) || len(known.Answers) != 1 || known.Answers[key] != "$answer" {
			t.Fatalf("a known transaction: %v", err)
		}
		must(t, db.Read(t.Context(), func(tx *store.Tx) error {
			if _, found, err := tx.TxnAnswer(other); found || err != nil {
				t.Errorf("the other transaction of the group is there: %v", err)
			}
			answer, found, err := tx.TxnAnswer(key)
			if answer != "$answer" || !found {
				t.Errorf("the answer is %q", answer)
			}
			return err
		}))
	})
}

// TestRoomBusy has another node hold a room's lock.
func TestRoomBusy(t *testing.T) {
	url := dbtest.URL(t, "postgres")
	var dbs [2]*store.DB
	for i := range dbs {
		db, err := store.Open(t.Context(), store.Options{URL: url, Cluster: true})
		must(t, err)
		defer func() { must(t, db.Close()) }()
		dbs[i] = db
	}
	a := newAppends(t, dbs[0])
	room, head := a.room()
	held, let := make(chan struct{}), make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- dbs[1].Batch2(context.Background(), func(b *store.Batch) {
			b.LockRooms([]int64{int64(room)}, func(int64) {})
		}, func(b *store.Batch) error {
			close(held)
			<-let
			return nil
		})
	}()
	<-held
	g := &store.Append{Room: room, Head: head, Events: []*store.EventRow{a.row(room, "x")}}
	if err := dbs[0].Append(t.Context(), g); !errors.Is(err, store.ErrRoomBusy) {
		t.Errorf("a room that another node writes to: %v", err)
	}
	close(let)
	must(t, <-ended)
	must(t, dbs[0].Append(t.Context(), g))
}

// TestAppendContainsAPanic: a group over which the writer panics gets an error, and the others are written.
func TestAppendContainsAPanic(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		a := newAppends(t, db)
		var all sync.WaitGroup
		for range 5 {
			room, head := a.room()
			bad := &store.Append{Room: room, Head: head, Events: []*store.EventRow{a.row(room, "bad")}}
			bad.Members = []store.MemberChange{{Member: a.by, Membership: store.Join, Event: head, At: 1}} // there is no such event
			all.Go(func() {
				if err := db.Append(t.Context(), bad); err == nil {
					t.Error("written")
				}
				if err := db.Append(t.Context(), &store.Append{Room: room, Head: head, Events: []*store.EventRow{a.row(room, "good")}}); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() { a.room() })
		}
		all.Wait()
	})
}
