package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

func TestWriteIsAllOrNothing(t *testing.T) {
	own := errors.New("changed my mind")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		ran := false
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { ran = true })
			must(t, insert(1)(tx))
			return own
		})
		if err != own {
			t.Errorf("the closure's error came back as %v", err)
		}
		// An error that the closure hides counts all the same: PostgreSQL has given up the transaction by then.
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { ran = true })
			must(t, insert(2)(tx))
			if err := insert(2)(tx); !store.IsDuplicate(err) {
				t.Errorf("a second row of a key: %v", err)
			}
			if err := insert(3)(tx); err == nil {
				t.Error("a statement after one that failed")
			}
			return nil
		})
		if !store.IsDuplicate(err) {
			t.Errorf("hidden error: %v", err)
		}
		if got := ids(t, db); got != nil || ran {
			t.Errorf("left behind: %v, after commit %v", got, ran)
		}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { ran = true })
			return insert(4)(tx)
		}))
		if got := ids(t, db); !slices.Equal(got, []int64{4}) || !ran {
			t.Errorf("written: %v, after commit %v", got, ran)
		}
	})
}

func TestPanicReachesItsCaller(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		func() {
			defer func() {
				if v := fmt.Sprint(recover()); !strings.Contains(v, "oh no") {
					t.Errorf("recovered %q", v)
				}
			}()
			_ = db.Write(t.Context(), func(tx *store.Tx) error {
				must(t, insert(1)(tx))
				panic("oh no")
			})
		}()
		must(t, db.Write(t.Context(), insert(2)))
		if got := ids(t, db); !slices.Equal(got, []int64{2}) {
			t.Errorf("after a panic: %v", got)
		}
	})
}

func TestRulesOfTransactions(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		must(t, db.Write(t.Context(), insert(1)))
		var kept *store.Tx
		own := errors.New("enough")
		must(t, db.Read(t.Context(), func(tx *store.Tx) error {
			kept = tx
			err := tx.Query(`SELECT 1`, func(*store.Row) error {
				return tx.Query(`SELECT 2`, func(*store.Row) error { return nil })
			})
			if err == nil {
				t.Error("a statement inside another")
			}
			if err := tx.Query(`SELECT 1`, func(*store.Row) error { return own }); err != own {
				t.Errorf("the callback's error came back as %v", err)
			}
			for _, wrong := range []func(r *store.Row){
				func(r *store.Row) { r.Int64(0) }, func(r *store.Row) { r.Bytes(1) }, func(r *store.Row) { r.Text(1) },
			} {
				if err := tx.Query(`SELECT 'text', id FROM scratch`, func(r *store.Row) error { wrong(r); return nil }); err == nil {
					t.Error("a column read as what it is not")
				}
			}
			if _, err := tx.Exec(`SELECT $1`, 1.5); err == nil {
				t.Error("a number with a fraction as an argument")
			}
			return tx.Query(`SELECT 1`, func(*store.Row) error { return nil })
		}))
		if err := kept.Query(`SELECT 1`, func(*store.Row) error { return nil }); err == nil {
			t.Error("a statement after the end")
		}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			// The callback's own error does not break the transaction.
			if err := tx.Query(`SELECT 1`, func(*store.Row) error { return own }); err != own {
				t.Errorf("the callback's error came back as %v", err)
			}
			return insert(2)(tx)
		}))
		if err := db.Read(t.Context(), insert(3)); err == nil && !db.IsPostgres() {
			t.Error("a read that writes")
		}
		if err := db.Snapshot(t.Context(), insert(4)); err == nil {
			t.Error("a snapshot that writes")
		}
	})
}

func TestSnapshotDoesNotMove(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		for _, snapshot := range []bool{false, true} {
			read, want := db.Read, 1
			if snapshot {
				read, want = db.Snapshot, 0
			}
			count := func(tx *store.Tx) (n int, err error) {
				_, err = tx.QueryRow(`SELECT count(*) FROM scratch`).Scan(&n)
				return n, err
			}
			must(t, read(t.Context(), func(tx *store.Tx) error {
				before, err := count(tx)
				if err != nil {
					return err
				}
				must(t, db.Write(t.Context(), insert(int64(before)+1)))
				after, err := count(tx)
				if after-before != want {
					t.Errorf("snapshot %v: %d rows, then %d", snapshot, before, after)
				}
				return err
			}))
		}
	})
}

func TestContextEndsReadsButNotWrites(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan struct{})
		failed := make(chan error)
		go func() {
			failed <- db.Read(ctx, func(tx *store.Tx) error {
				close(started)
				return tx.Query(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`, func(*store.Row) error { return nil })
			})
		}()
		<-started
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("a read whose context ended: %v", err)
		}
		// The connection is as good as new.
		if got := ids(t, db); got != nil {
			t.Errorf("rows: %v", got)
		}
		if err := db.Write(ctx, insert(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("a write whose context had ended before: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		must(t, db.Write(ctx, func(tx *store.Tx) error {
			cancel()
			return insert(2)(tx)
		}))
		if got := ids(t, db); !slices.Equal(got, []int64{2}) {
			t.Errorf("rows: %v", got)
		}
	})
}

// A writer holds the queue, so that others gather behind it; one that fails takes none of the others with it, and one
// whose caller leaves is not run.
func TestWritersShareACommit(t *testing.T) {
	db := dbtest.Open(t, "sqlite")
	scratch(t, db)
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			close(held)
			<-hold
			return insert(0)(tx)
		}))
	})
	<-held
	left, leave := context.WithCancel(t.Context())
	var order []int64
	for id := int64(1); id <= 50; id++ {
		all.Go(func() {
			ctx := t.Context()
			if id%10 == 0 {
				ctx = left
			}
			err := db.Write(ctx, func(tx *store.Tx) error {
				tx.AfterCommit(func() { order = append(order, id) })
				if err := insert(id)(tx); err != nil {
					return err
				}
				if id%7 == 0 {
					return insert(id)(tx)
				}
				return nil
			})
			switch {
			case id%10 == 0 && !errors.Is(err, context.Canceled), id%10 != 0 && id%7 == 0 && !store.IsDuplicate(err),
				id%10 != 0 && id%7 != 0 && err != nil:
				t.Errorf("write %d: %v", id, err)
			}
		})
	}
	leave()
	close(hold)
	all.Wait()
	var want []int64
	for id := int64(0); id <= 50; id++ {
		if id == 0 || id%7 != 0 && id%10 != 0 {
			want = append(want, id)
		}
	}
	if got := ids(t, db); !slices.Equal(got, want) {
		t.Errorf("rows: %v", got)
	}
	if len(order) != len(want)-1 {
		t.Errorf("after commit: %v", order)
	}
}

func TestNumbers(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		var mu sync.Mutex
		seen := map[int64]bool{}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 800 {
					n, err := db.NextNID(store.KindEvent)
					mu.Lock()
					if err != nil || n <= 0 || seen[n] {
						t.Errorf("number %d, again %v: %v", n, seen[n], err)
					}
					seen[n] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if n, err := db.NextNID(store.KindRoom); n != 1 || err != nil {
			t.Errorf("another kind begins with %d: %v", n, err)
		}
		if _, err := db.NextNID(0); err == nil {
			t.Error("a number of no kind")
		}
	})
}
