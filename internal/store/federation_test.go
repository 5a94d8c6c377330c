package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// change and look run one step in a transaction of its own.
func change(t *testing.T, db *store.DB, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, db *store.DB, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Read(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func TestServerKeys(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		key := func(server matrix.ServerName, id matrix.KeyID, b byte, until, expired int64) store.ServerKey {
			return store.ServerKey{Server: server, ID: id, Public: bytes.Repeat([]byte{b}, 32), ValidUntil: until, Expired: expired}
		}
		read := func(servers ...matrix.ServerName) map[string]store.ServerKey {
			found := map[string]store.ServerKey{}
			look(t, db, func(tx *store.Tx) error {
				return tx.ServerKeys(servers, func(k store.ServerKey) { found[string(k.Server)+" "+string(k.ID)] = k })
			})
			return found
		}
		change(t, db, func(tx *store.Tx) error {
			return errors.Join(tx.PutServerKey(key("a.test", "ed25519:1", 1, 100, 0)), tx.PutServerKey(key("a.test", "ed25519:2", 2, 100, 0)),
				tx.PutServerKey(key("b.test", "ed25519:1", 3, 100, 50)))
		})
		change(t, db, func(tx *store.Tx) error {
			return errors.Join(tx.PutServerKey(key("a.test", "ed25519:1", 1, 200, 150)), tx.PutServerKey(key("a.test", "ed25519:2", 9, 999, 0)))
		})
		found := read("a.test", "b.test", "c.test")
		if len(found) != 3 || len(read()) != 0 || len(read("b.test")) != 1 {
			t.Fatalf("found %v", found)
		}
		if k := found["a.test ed25519:1"]; k.ValidUntil != 200 || k.Expired != 150 || k.Public[0] != 1 {
			t.Errorf("what is new about a key was not stored: %+v", k)
		}
		if k := found["a.test ed25519:2"]; k.ValidUntil != 100 || k.Public[0] != 2 {
			t.Errorf("another key took a key's place: %+v", k)
		}
	})
}

func TestKeyDocuments(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for i := range 2 {
			change(t, db, func(tx *store.Tx) error {
				return tx.PutKeyDocument(store.KeyDocument{Server: "a.test", JSON: fmt.Appendf(nil, `{"n":%d}`, i), Fetched: int64(i), ValidUntil: 7})
			})
		}
		var found []store.KeyDocument
		look(t, db, func(tx *store.Tx) error {
			found = nil
			return tx.KeyDocuments([]matrix.ServerName{"a.test", "b.test"}, func(d store.KeyDocument) { found = append(found, d) })
		})
		if len(found) != 1 || string(found[0].JSON) != `{"n":1}` || found[0].Fetched != 1 || found[0].ValidUntil != 7 {
			t.Errorf("found %+v", found)
		}
	})
}

func TestDestinationsAreWorkedForByOne(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		server := serverNID(t, db, "a.test")
		at := store.Cursors{PDUs: 1, DeviceLists: 2, ToDevice: 3, Others: 4}
		for range 2 { // the second time changes nothing
			change(t, db, func(tx *store.Tx) error { return tx.AddDestination(server, at, 50) })
			at.PDUs += 10
		}
		var mu sync.Mutex
		var leases []store.Destination
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				var d store.Destination
				var ok bool
				err := db.Write(context.WithoutCancel(t.Context()), func(tx *store.Tx) (err error) {
					d, ok, err = tx.LeaseDestination(server, 0, 60_000, false)
					return err
				})
				if err != nil {
					t.Error(err)
				}
				if ok {
					mu.Lock()
					leases = append(leases, d)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(leases) != 1 {
			t.Fatalf("%d leases of one destination", len(leases))
		}
		first := leases[0]
		if first.At != (store.Cursors{PDUs: 1, DeviceLists: 2, ToDevice: 3, Others: 4}) || first.Batch != 50 || first.Fence != 1 {
			t.Errorf("the row is %+v", first)
		}
		var second store.Destination
		var ok bool
		change(t, db, func(tx *store.Tx) (err error) {
			second, ok, err = tx.LeaseDestination(server, 0, 60_000, true)
			return err
		})
		if !ok || second.Fence != 2 {
			t.Fatalf("taken over: %v %+v", ok, second)
		}
		first.At.PDUs, second.At.PDUs = 100, 200
		second.Goal, second.CatchUp, second.Batch = store.Cursors{PDUs: 5, DeviceLists: 6, ToDevice: 7, Others: 8}, 9, 10
		second.Fails, second.FailingSince, second.RetryAt, second.Failure = 11, 12, 13, "why"
		save := func(d store.Destination) (ok bool) {
			change(t, db, func(tx *store.Tx) (err error) { ok, err = tx.SaveDestination(d, 0); return err })
			return ok
		}
		if save(first) {
			t.Error("the one who lost the lease could save")
		}
		if !save(second) {
			t.Error("the holder of the lease could not save")
		}
		var got store.Destination
		look(t, db, func(tx *store.Tx) (err error) { got, ok, err = tx.Destination(server); return err })
		if !ok || got != second {
			t.Errorf("stored %+v, want %+v", got, second)
		}
		lease := func(now int64) (ok bool) {
			change(t, db, func(tx *store.Tx) (err error) {
				_, ok, err = tx.LeaseDestination(server, now, 60_000, false)
				return err
			})
			return ok
		}
		if lease(12) {
			t.Error("leased before its time")
		}
		if !lease(13) {
			t.Error("given back and due, but not to be leased")
		}
	})
}

func serverNID(t *testing.T, db *store.DB, name matrix.ServerName) store.ServerNID {
	t.Helper()
	nid, err := db.Server(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return nid
}

func TestWaitingDestinations(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for i, c := range []struct {
			name    matrix.ServerName
			retry   int64
			leaseMS int64
		}{
			{"idle.test", 0, 0}, {"due.test", 100, 0}, {"later.test", 200, 0}, {"worked-for.test", 100, 60_000}, {"abandoned.test", 0, -60_000},
		} {
			server := serverNID(t, db, c.name)
			change(t, db, func(tx *store.Tx) error {
				if err := tx.AddDestination(server, store.Cursors{PDUs: store.Pos(i)}, 50); err != nil {
					return err
				}
				d, _, err := tx.LeaseDestination(server, 0, 60_000, false)
				if err != nil {
					return err
				}
				d.RetryAt = c.retry
				_, err = tx.SaveDestination(d, c.leaseMS)
				return err
			})
		}
		waiting := func(now int64) (names []matrix.ServerName) {
			look(t, db, func(tx *store.Tx) error {
				names = nil
				return tx.WaitingDestinations(now, 10, func(name matrix.ServerName) { names = append(names, name) })
			})
			slices.Sort(names)
			return names
		}
		if got := waiting(150); !slices.Equal(got, []matrix.ServerName{"abandoned.test", "due.test"}) {
			t.Errorf("waiting: %v", got)
		}
		server := serverNID(t, db, "due.test")
		for i, want := range []bool{true, false} {
			var revived bool
			change(t, db, func(tx *store.Tx) (err error) { revived, err = tx.ReviveDestination(server); return err })
			if revived != want {
				t.Errorf("revival %d: %v", i, revived)
			}
		}
		if got := waiting(150); !slices.Equal(got, []matrix.ServerName{"abandoned.test"}) {
			t.Errorf("waiting after a revival: %v", got)
		}
	})
}

func TestSetAside(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		server := serverNID(t, db, "a.test")
		for ts := int64(1); ts <= 5; ts++ {
			change(t, db, func(tx *store.Tx) error {
				return tx.AddSetAside(server, store.SetAside{TS: ts * 10, Item: fmt.Sprintf("$%d", ts), Reason: "r"}, ts*10-25)
			})
		}
		var items []string
		look(t, db, func(tx *store.Tx) error {
			items = nil
			return tx.SetAsideItems(server, 10, func(a store.SetAside) { items = append(items, a.Item) })
		})
		if !slices.Equal(items, []string{"$5", "$4", "$3"}) {
			t.Errorf("set aside: %v", items)
		}
	})
}

func TestInboundTransactions(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		a, b := serverNID(t, db, "a.test"), serverNID(t, db, "b.test")
		add := func(origin store.ServerNID, txn, answer string, ts int64) (ok bool) {
			change(t, db, func(tx *store.Tx) (err error) {
				ok, err = tx.AddInboundTxn(origin, txn, []byte(answer), ts)
				return err
			})
			return ok
		}
		if !add(a, "1", `{"n":1}`, 10) || add(a, "1", `{"n":2}`, 20) || !add(b, "1", `{"n":3}`, 30) {
			t.Error("transactions are not told apart by origin and ID")
		}
		read := func(origin store.ServerNID, txn string) (answer []byte, found bool) {
			look(t, db, func(tx *store.Tx) (err error) { answer, found, err = tx.InboundTxn(origin, txn); return err })
			return answer, found
		}
		if answer, found := read(a, "1"); !found || string(answer) != `{"n":1}` {
			t.Errorf("answered %s, %v", answer, found)
		}
		if _, found := read(a, "2"); found {
			t.Error("a transaction that never came is known")
		}
		var n int64
		change(t, db, func(tx *store.Tx) (err error) { n, err = tx.ForgetInboundTxns(25, 10); return err })
		if _, found := read(a, "1"); found || n != 1 {
			t.Errorf("forgot %d", n)
		}
		if _, found := read(b, "1"); !found {
			t.Error("a newer transaction was forgotten")
		}
	})
}

// TestLeasesEndByTheDatabasesClock waits for the end of a real lease: the clock is not ours to set.
func TestLeasesEndByTheDatabasesClock(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		server := serverNID(t, db, "a.test")
		change(t, db, func(tx *store.Tx) error { return tx.AddDestination(server, store.Cursors{}, 50) })
		lease := func() (ok bool) {
			change(t, db, func(tx *store.Tx) (err error) { _, ok, err = tx.LeaseDestination(server, 0, 300, false); return err })
			return ok
		}
		if !lease() {
			t.Fatal("no lease")
		}
		deadline := time.Now().Add(10 * time.Second)
		for n := 0; !lease(); n++ {
			if time.Now().After(deadline) {
				t.Fatal("the lease does not end")
			}
		}
	})
}
