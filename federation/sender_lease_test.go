package federation

import (
	"net/http"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
)

// TestAStartIsAnnounced: who took something of us hears of our next start, although there is nothing to send; once.
func TestAStartIsAnnounced(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.run() // it has never taken anything
		w.box.add("a", "", 1)
		w.s.Wake()
		w.until("it came", 0, func() bool { return len(w.got) == 1 })
		w.until("that is stored", 0, func() bool { return w.row().At.PDUs == 1 })
		w.stop()
		w.run()
		w.until("the start is announced", 0, func() bool { return len(w.txns) == 2 })
		w.mu.Lock()
		hello := w.txns[1]
		w.mu.Unlock()
		if len(hello.pdus)+len(hello.edus) > 0 || hello.id[0] != 'h' {
			t.Errorf("the announcement is %+v", hello)
		}
		w.box.add("a", "", 1)
		w.s.Wake()
		w.until("the next one came", 0, func() bool { return len(w.got) == 2 })
		w.stop()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.txns) != 3 {
			t.Errorf("%d transactions: %+v", len(w.txns), w.txns)
		}
	})
}

func TestOnlyTheHolderOfALeaseSends(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		nid, err := db.Server(t.Context(), w.p.Name)
		if err != nil {
			t.Fatal(err)
		}
		var held store.Destination
		var ok bool
		write := func(fn func(tx *store.Tx) error) {
			t.Helper()
			if err := db.Write(t.Context(), fn); err != nil {
				t.Fatal(err)
			}
		}
		write(func(tx *store.Tx) error { return tx.AddDestination(nid, store.Cursors{}, maxPDUs) })
		write(func(tx *store.Tx) error { held, ok, err = tx.LeaseDestination(nid, 0, 60_000, false); return err })
		if !ok {
			t.Fatal("a free destination could not be leased")
		}
		w.box.add("a", "", 3)
		other := NewSender(SenderOptions{DB: db, Outbox: w.box, Client: w.c, Identity: w.own})
		other.ctx = t.Context()
		other.work(t.Context(), w.p.Name, nil)
		if len(w.p.Calls("/")) != 0 {
			t.Error("it was sent to by two")
		}
		write(func(tx *store.Tx) error { _, ok, err = tx.LeaseDestination(nid, 0, 60_000, true); return err })
		if !ok {
			t.Error("a lease could not be taken over")
		}
		held.At.PDUs = 99
		write(func(tx *store.Tx) error { ok, err = tx.SaveDestination(held, 0); return err })
		if ok || w.row().At.PDUs == 99 {
			t.Error("whoever lost a lease could still move the cursor")
		}
	})
}

func TestSenderStopsInTheMiddle(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		release, arrived := make(chan struct{}), make(chan struct{}, 1)
		w.setJudge(func(sentTxn) peer.Reply {
			arrived <- struct{}{}
			<-release
			return peer.Refuse(http.StatusTeapot, "M_UNKNOWN")
		})
		w.box.add("a", "", 3)
		w.run()
		<-arrived
		w.stop() // does not wait for the peer
		close(release)
		w.setJudge(nil)
		if d := w.row(); d.Fails != 0 || d.At.PDUs != 0 || d.Goal.PDUs != 3 {
			t.Errorf("the row is %+v", d)
		}
		w.run()
		w.until("all came", 0, func() bool { return len(w.got) == 3 })
	})
}
