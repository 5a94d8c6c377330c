package store_test

import (
	"fmt"
	"slices"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestStagedIsBounded: of too many events that wait in a room the oldest give way, in that room alone.
func TestStagedIsBounded(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		origin, err := db.Server(t.Context(), "near.test")
		if err != nil {
			t.Fatal(err)
		}
		stage := func(room store.RoomNID, from, n int) {
			rows := make([]store.Staged, n)
			for i := range rows {
				nid := int64(from + i)
				rows[i] = store.Staged{NID: nid, Room: room, Origin: origin, ID: matrix.EventID(fmt.Sprintf("$%d", nid)), JSON: []byte("{}")}
			}
			if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Stage(rows) }); err != nil {
				t.Fatal(err)
			}
		}
		waiting := func(room store.RoomNID) (nids []int64) {
			err := db.Read(t.Context(), func(tx *store.Tx) error {
				nids = nil
				return tx.Waiting(room, 0, 2*store.MaxStaged, func(s store.Staged, from matrix.ServerName) {
					if from != "near.test" || string(s.JSON) != "{}" {
						t.Errorf("%+v from %s", s, from)
					}
					nids = append(nids, s.NID)
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			return nids
		}
		stage(1, 1, 10)
		stage(2, 11, store.MaxStaged-10)
		stage(2, 2000, 30)
		stage(2, 2000, 30) // again: nothing new
		if got := waiting(1); len(got) != 10 {
			t.Errorf("%d wait in the quiet room", len(got))
		}
		got := waiting(2)
		if len(got) != store.MaxStaged || got[0] != 31 || got[len(got)-1] != 2029 {
			t.Errorf("%d wait, %d to %d", len(got), got[0], got[len(got)-1])
		}
		var numbers, some []int64
		err = db.Read(t.Context(), func(tx *store.Tx) error {
			numbers, some = nil, nil
			if err := tx.WaitingNumbers(2, func(nid int64) { numbers = append(numbers, nid) }); err != nil {
				return err
			}
			return tx.Staged([]int64{2000, 40, 7, 5000}, func(s store.Staged, from matrix.ServerName) {
				if from != "near.test" || s.ID != matrix.EventID(fmt.Sprintf("$%d", s.NID)) {
					t.Errorf("%+v from %s", s, from)
				}
				some = append(some, s.NID)
			})
		})
		if err != nil || !slices.Equal(numbers, got) || !slices.Equal(some, []int64{7, 40, 2000}) {
			t.Errorf("%d numbers, of four asked for %v: %v", len(numbers), some, err)
		}
		if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Unstage(got) }); err != nil {
			t.Fatal(err)
		}
		if got := waiting(2); len(got) != 0 {
			t.Errorf("%d still wait", len(got))
		}
	})
}
