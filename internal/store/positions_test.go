package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestPositionsAreVisibleInTheOrderOfCommits is law 4: many writers take positions and commit after delays of their own,
// some fail; a reader that never goes beyond the bound finds each change once, in order, and misses none.
func TestPositionsAreVisibleInTheOrderOfCommits(t *testing.T) {
	for _, nodes := range []struct {
		engine string
		count  int
	}{{"sqlite", 1}, {"postgres", 1}, {"postgres", 2}} {
		t.Run(fmt.Sprint(nodes.engine, nodes.count), func(t *testing.T) {
			url := dbtest.URL(t, nodes.engine)
			var dbs []*store.DB
			for range nodes.count {
				db, err := store.Open(t.Context(), store.Options{URL: url, Cluster: nodes.count > 1, MaxConns: 12})
				must(t, err)
				defer func() { must(t, db.Close()) }()
				dbs = append(dbs, db)
			}
			readWhileWriting(t, dbs)
		})
	}
}

func readWhileWriting(t *testing.T, dbs []*store.DB) {
	const writers, each = 8, 25
	var mu sync.Mutex
	var written []store.Pos
	var all sync.WaitGroup
	var working atomic.Int32
	working.Store(writers)
	for w := range writers {
		db := dbs[w%len(dbs)]
		all.Go(func() {
			defer working.Add(-1)
			for n := range each {
				var at []store.Pos
				err := db.Write(t.Context(), func(tx *store.Tx) error {
					at = nil
					for range 1 + rand.IntN(3) {
						pos, err := tx.AddChange(1, store.RoomNID(w+1), store.UserNID(n+1))
						if err != nil {
							return err
						}
						at = append(at, pos)
						time.Sleep(rand.N(2 * time.Millisecond)) // a writer that dawdles with its positions in hand
					}
					if n%5 == 4 {
						return fmt.Errorf("changed my mind")
					}
					return nil
				})
				if err == nil {
					mu.Lock()
					written = append(written, at...)
					mu.Unlock()
				}
			}
		})
	}
	var seen []store.Pos
	last := store.Pos(0)
	for done := false; !done; {
		done = working.Load() == 0
		bound, err := dbs[0].StreamBound(t.Context())
		must(t, err)
		if bound < last {
			t.Errorf("the bound went back from %d to %d", last, bound)
		}
		must(t, dbs[0].Read(t.Context(), func(tx *store.Tx) error {
			return tx.Changes(last, bound, func(c store.Change) { seen = append(seen, c.Pos) })
		}))
		last = bound
	}
	all.Wait()
	slices.Sort(written)
	if !slices.IsSorted(seen) || !slices.Equal(seen, written) {
		t.Errorf("%d changes were written, %d seen, in order: %v", len(written), len(seen), slices.IsSorted(seen))
	}
}

func TestPositionsAreBounded(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			for _, n := range []int{0, -1, 1 << 30} {
				if _, err := tx.NextPos(n); err == nil {
					t.Errorf("%d positions at once", n)
				}
			}
			first, err := tx.NextPos(10)
			if err != nil {
				return err
			}
			next, err := tx.NextPos(1)
			if next != first+10 {
				t.Errorf("after ten positions from %d comes %d", first, next)
			}
			return err
		}))
	})
}
