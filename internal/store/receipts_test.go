package store_test

import (
	"fmt"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestEarlyReceiptsAreBounded lets more receipts wait for their events than may: the newest stay, and none for ever.
func TestEarlyReceiptsAreBounded(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		const most = 50
		now := time.UnixMilli(1_700_000_000_000)
		keep := func(tx *store.Tx, user int, room store.RoomNID) {
			t.Helper()
			now = now.Add(time.Millisecond)
			r := store.Receipt{Room: room, User: store.UserNID(user), Kind: store.ReadReceipt, Event: matrix.EventID(fmt.Sprint("$", user))}
			if err := tx.KeepReceipt(r, now, most); err != nil {
				t.Error(err)
			}
		}
		held := func(tx *store.Tx) (n, oldest int64) {
			t.Helper()
			err := tx.Query(`SELECT count(*), coalesce(min(member), 0) FROM early_receipts`, func(r *store.Row) error {
				n, oldest = r.Int64(0), r.Int64(1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			return n, oldest
		}
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			for user := range most + 5 {
				keep(tx, user+1, 1)
			}
			keep(tx, most, 1) // in the place of the one that waits already
			if n, oldest := held(tx); n != most || oldest != 6 {
				t.Errorf("%d wait, the oldest of user %d", n, oldest)
			}
			now = now.Add(8 * 24 * time.Hour)
			keep(tx, 1, 2)
			if n, _ := held(tx); n != 1 {
				t.Errorf("%d wait after a week", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
