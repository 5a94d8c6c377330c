package sync

import (
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// TestOwnReceiptsAreAlwaysThere: of a room with more receipts than one response brings, a client is told all the same how far
// its user has read, however long ago that was.
func TestOwnReceiptsAreAlwaysThere(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		var users []store.User
		for _, id := range []matrix.UserID{"@own:one.example", "@other:one.example"} {
			user, err := db.User(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			users = append(users, user)
		}
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			put := func(user store.User, thread string, event matrix.EventID) error {
				_, err := tx.PutReceipt(store.Receipt{Room: 1, User: user.NID, Kind: store.ReadReceipt, Thread: thread, Event: event, Place: 1})
				return err
			}
			if err := put(users[0], "", "$own"); err != nil {
				return err
			}
			for i := range maxReceipts {
				if err := put(users[1], "$"+string(rune(0x4e00+i)), "$other"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		bound, err := db.StreamBound(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e := &Engine{db: db}
		event, err := e.receiptEvent(t.Context(), rooms.Sender{NID: users[0].NID, ID: "@own:one.example"}, rooms.Ref{NID: 1}, 0, bound)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"$own", "$other"} {
			if _, ok := matrix.Get(event, "content", id, "m.read"); !ok {
				t.Errorf("there is no receipt for %s: %s", id, event)
			}
		}
	})
}
