package federation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
	"conclave/rooms"
)

// receiptEDU is a read receipt as a server sends it.
func receiptEDU(room matrix.RoomID, user matrix.UserID, id matrix.EventID) string {
	return fmt.Sprintf(`{"edu_type":"m.receipt","content":{%q:{"m.read":{%q:{"data":{"ts":5},"event_ids":[%q]}}}}}`, room, user, id)
}

// TestReceiptsWaitForTheirEvents lets a receipt come before its event, with it, and behind it.
func TestReceiptsWaitForTheirEvents(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		bob, gone := w.p.User("bob"), w.p.User("gone")
		g := w.guestIn(w.p, ref, bob)
		w.guestIn(w.p, ref, gone)
		event := func(text string) (id matrix.EventID, pdus []string) {
			e := g.message(text)
			return e.ID, []string{string(e.JSON)}
		}

		first, pdus := event("the event comes first")
		accepted(t, w.send(w.p, "1", pdus, nil))
		w.arrives(ref, first)
		accepted(t, w.send(w.p, "2", nil, []string{receiptEDU(ref.ID, bob, first)}))
		w.hasRead(ref, bob, first)

		second, pdus := event("the receipt comes first")
		accepted(t, w.send(w.p, "3", nil, []string{receiptEDU(ref.ID, bob, second), receiptEDU(ref.ID, gone, second), receiptEDU(ref.ID, "@x:other.test", second)}))
		if got := w.receipts(ref); !slices.Equal(got, []string{fmt.Sprint(bob, " 1 ", first)}) {
			t.Errorf("before the event is there: %v", got)
		}
		w.clk.add(time.Second) // the event stands beside the leaving: where both are of one moment, their IDs decide
		w.leaves(w.p, ref, gone)
		accepted(t, w.send(w.p, "4", pdus, nil))
		w.hasRead(ref, bob, second)

		third, pdus := event("both at once")
		accepted(t, w.send(w.p, "5", pdus, []string{receiptEDU(ref.ID, bob, third)}))
		w.hasRead(ref, bob, third)

		accepted(t, w.send(w.p, "6", nil, []string{receiptEDU(ref.ID, bob, first)}))
		if got := w.receipts(ref); !slices.Equal(got, []string{fmt.Sprint(bob, " 1 ", third)}) {
			t.Errorf("in the end: %v", got)
		}
		if left := w.count("early_receipts"); left != 0 {
			t.Errorf("%d receipts still wait", left)
		}
	})
}

// hasRead waits until a user's receipt is at an event.
func (w *houseWorld) hasRead(ref rooms.Ref, user matrix.UserID, id matrix.EventID) {
	w.t.Helper()
	want := fmt.Sprint(user, " 1 ", id)
	wait.Until(w.t, "the receipt "+want, func() bool { return slices.Contains(w.receipts(ref), want) })
}

// count is how many rows a table has.
func (w *houseWorld) count(table string) (n int64) {
	w.t.Helper()
	err := w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		return tx.Query(`SELECT count(*) FROM `+table, func(r *store.Row) error {
			n = r.Int64(0)
			return nil
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}
