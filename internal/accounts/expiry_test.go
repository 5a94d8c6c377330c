package accounts

import (
	"errors"
	"strings"
	"testing"
	"time"

	"conclave/internal/config"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestTheAuditLogHasAnEnd lets more entries grow old than one transaction removes.
func TestTheAuditLogHasAnEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.config.Audit.RetentionDays = 400
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			for range expireAtOne + 7 {
				w.note(tx, Event{Name: EventLogin, User: "@old:us.test"})
			}
			return nil
		}))
		w.pass(399 * day)
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			w.note(tx, Event{Name: EventLogin, User: "@young:us.test"})
			return nil
		}))
		count := func(q store.AuditQuery) (n int) {
			q.Limit = maxAuditPage
			entries, err := w.Audit(t.Context(), q)
			must(t, err)
			return len(entries)
		}
		must(t, w.expire(t.Context()))
		if n := count(store.AuditQuery{User: "@old:us.test"}); n != expireAtOne+7 {
			t.Errorf("before their time %d entries are left", n)
		}
		w.pass(2 * day)
		must(t, w.expire(t.Context()))
		if old, young, noted := count(store.AuditQuery{User: "@old:us.test"}), count(store.AuditQuery{User: "@young:us.test"}), count(store.AuditQuery{Event: "audit.trimmed"}); old != 0 || young != 1 || noted != 2 {
			t.Errorf("there are %d old entries, %d young ones, and %d notes of what was removed", old, young, noted)
		}
		w.config.Audit.RetentionDays = 0
		w.pass(10_000 * day)
		must(t, w.expire(t.Context()))
		if young := count(store.AuditQuery{User: "@young:us.test"}); young != 1 {
			t.Error("an entry ends that is to be kept for ever")
		}
	})
}

// TestRequestsForAccountsEnd lets requests wait longer than anybody should.
func TestRequestsForAccountsEnd(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		m := &mailWorld{w, &box{}}
		w.config.Email.SMTPURL, w.config.PublicURL, w.mail = "smtp://localhost", "https://chat.us.test", m.box
		w.config.Registration.Mode, w.config.Registration.RequestDays = config.RegistrationApproval, 30
		add := func(name, email string) {
			t.Helper()
			must(t, db.Write(t.Context(), func(tx *store.Tx) error {
				added, err := tx.AddRegistrationRequest(store.RegistrationRequest{Localpart: name, Password: "x", Email: email, Lang: "de", Created: w.now().UnixMilli()})
				if err == nil && !added {
					err = errors.New("the name is taken")
				}
				return err
			}))
		}
		add("anna", "anna@a.test")
		add("berta", "")
		w.pass(29 * day)
		add("clara", "clara@a.test")
		must(t, w.expire(t.Context()))
		if list, total, err := w.Requests(t.Context(), nil, 10); err != nil || total != 3 || len(list) != 3 {
			t.Fatalf("%d requests wait, %v", total, err)
		}
		w.pass(day + time.Second)
		must(t, w.expire(t.Context()))
		list, total, err := w.Requests(t.Context(), nil, 10)
		if err != nil || total != 1 || list[0].Localpart != "clara" {
			t.Fatalf("%d requests wait, %v", total, err)
		}
		mails := m.deliver()
		if len(mails) != 1 || mails[0].To != "anna@a.test" || !strings.Contains(mails[0].Subject, "abgelaufen") || !strings.Contains(mails[0].Text, "@anna:us.test") {
			t.Errorf("the mails are %+v", mails)
		}
		add("anna", "") // the name is free again
		noted, err := w.Audit(t.Context(), store.AuditQuery{Event: "registration.expired", Limit: 10})
		if err != nil || len(noted) != 2 || noted[0].User+noted[1].User != "@berta:us.test@anna:us.test" && noted[0].User+noted[1].User != "@anna:us.test@berta:us.test" {
			t.Errorf("noted are %+v, %v", noted, err)
		}
	})
}

// TestTransactionsAreForgotten lets more transactions of devices grow old than one database transaction removes.
func TestTransactionsAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		key := func(i int) store.TxnKey { return store.TxnKey{Device: int64(i), Hash: [16]byte{1}} }
		start := func(from, to int) {
			t.Helper()
			must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
				for i := from; i <= to; i++ { // every second one made an event
					if _, err := tx.StartTxn(store.Txn{Key: key(i), Event: store.EventNID(i % 2 * i), Answer: "{}"}, w.now().UnixMilli()); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		known := func(i int) (found bool) {
			t.Helper()
			must(t, w.db.Read(t.Context(), func(tx *store.Tx) (err error) {
				_, found, err = tx.TxnAnswer(key(i))
				return err
			}))
			return found
		}
		const old = 2*expireAtOne + 6
		start(1, old)
		w.pass(txnLife - time.Hour)
		start(old+1, old+2)
		must(t, w.expire(t.Context()))
		if !known(1) || !known(2) || !known(old) {
			t.Error("a transaction is forgotten before its time")
		}
		w.pass(2 * time.Hour)
		must(t, w.expire(t.Context()))
		for i := range old + 2 {
			if known(i+1) != (i >= old) {
				t.Fatalf("transaction %d, of %d old ones, is known: %v", i+1, old, known(i+1))
			}
		}
	})
}
