package keys_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
	"conclave/keys"
)

func txn(p *person, n byte) store.TxnKey {
	return store.TxnKey{Device: p.NID, Hash: [16]byte{n}}
}

// waiting are the messages of a device since a position.
func (w *world) waiting(p *person, since store.Pos) (events []string) {
	w.t.Helper()
	list, _, err := w.ToDevice(w.t.Context(), p.NID, since, w.pos(), 1000)
	must(w.t, err)
	for _, e := range list {
		events = append(events, string(e))
	}
	return events
}

func TestSendToDevice(t *testing.T) {
	proof.Of(t, "E2-11")
	each(t, func(t *testing.T, w *world) {
		alice, bob, bob2 := w.user("alice"), w.user("bob"), w.device("bob", "SECOND")
		start := w.pos()
		messages := keys.Messages{
			bob.ID:                           {"*": json.RawMessage(`{"n":1}`), bob2.DeviceID: json.RawMessage(`{"n":2}`), "NOSUCH": json.RawMessage(`{}`)},
			"@nobody:" + matrix.UserID(here): {"X": json.RawMessage(`{}`)},
		}
		var group sync.WaitGroup
		for range 20 { // one transaction, tried again and again
			group.Go(func() {
				if err := w.SendToDevice(t.Context(), alice.ID, txn(alice, 1), "m.test", messages); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if got := w.waiting(bob, 0); len(got) != 1 || got[0] != `{"content":{"n":1},"sender":"@alice:here.test","type":"m.test"}` {
			t.Errorf("the first device has %v", got)
		}
		if got := w.waiting(bob2, 0); len(got) != 1 || !strings.Contains(got[0], `"n":2`) {
			t.Errorf("the second device has %v", got)
		}
		told := 0
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) error {
			return tx.Changes(start, w.pos(), func(c store.Change) {
				if c.Kind == store.ChangeToDevice && c.User == bob.User.NID {
					told++
				}
			})
		}))
		if told != 1 {
			t.Errorf("bob is woken %d times", told)
		}

		// Pages in order; what a token shows as received goes.
		for i := range 5 {
			must(t, w.SendToDevice(t.Context(), alice.ID, txn(alice, byte(10+i)), "m.test", keys.Messages{bob.ID: {bob.DeviceID: json.RawMessage(fmt.Sprintf(`{"i":%d}`, i))}}))
		}
		after := store.Pos(0)
		for i, want := range []int{2, 2, 2, 0} {
			list, last, err := w.ToDevice(t.Context(), bob.NID, after, w.pos(), 2)
			must(t, err)
			if len(list) != want || i == 2 != (last == w.pos() && want > 0) {
				t.Errorf("page %d has %d messages and ends at %d of %d", i, len(list), last, w.pos())
			}
			must(t, w.Delivered(t.Context(), bob.NID, last))
			after = last
		}
		if got := w.waiting(bob, 0); len(got) != 0 {
			t.Errorf("delivered messages are still there: %v", got)
		}
	})
}

func TestMessagesAreBounded(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		send := func(m keys.Messages) error { return w.SendToDevice(t.Context(), alice.ID, txn(alice, 1), "t", m) }
		big := json.RawMessage(`{"x":"` + strings.Repeat("x", 64<<10) + `"}`)
		refused(t, send(keys.Messages{alice.ID: {"X": big}}), "M_TOO_LARGE")
		refused(t, send(keys.Messages{alice.ID: {"X": json.RawMessage(`{"x":1.5}`)}}), "M_BAD_JSON")
		refused(t, send(keys.Messages{alice.ID: {"X": json.RawMessage(`[]`)}}), "M_BAD_JSON")
		refused(t, send(keys.Messages{"alice": {"X": json.RawMessage(`{}`)}}), "M_INVALID_PARAM")
		many := map[matrix.DeviceID]json.RawMessage{}
		for i := range 1001 {
			many[matrix.DeviceID(fmt.Sprint(i))] = json.RawMessage(`{}`)
		}
		refused(t, send(keys.Messages{alice.ID: many}), "M_TOO_LARGE")
	})
}

func TestMessagesForOtherServers(t *testing.T) {
	proof.Of(t, "ED-06")
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		far, third := matrix.UserID("@far:"+there), matrix.UserID("@third:third.test")
		server, err := w.db.Server(t.Context(), there)
		must(t, err)
		start := w.pos()
		content := json.RawMessage(`{"x":"` + strings.Repeat("x", 25<<10) + `"}`)
		messages := keys.Messages{far: {"A": content, "B": content, "C": content, "D": content, "E": content}, third: {"*": json.RawMessage(`{}`)}}
		for range 2 {
			must(t, w.SendToDevice(t.Context(), alice.ID, txn(alice, 1), "m.test", messages))
		}
		servers, err := w.Concerned(t.Context(), start, w.pos())
		must(t, err)
		if len(servers) != 2 {
			t.Errorf("%d servers are concerned, want 2", len(servers))
		}
		edus, last, err := w.OutgoingToDevice(t.Context(), server, start, w.pos(), 2)
		must(t, err)
		rest, end, err := w.OutgoingToDevice(t.Context(), server, last, w.pos(), 2)
		must(t, err)
		if len(edus) != 2 || len(rest) != 1 || end != w.pos() {
			t.Fatalf("%d and %d EDUs, want 2 and 1", len(edus), len(rest))
		}
		seen, ids := map[string]bool{}, map[string]bool{}
		for _, e := range append(edus, rest...) {
			var c struct {
				Sender, Type string
				ID           string `json:"message_id"`
				Messages     keys.Messages
			}
			must(t, json.Unmarshal(e.Content, &c))
			ids[c.ID] = true
			if e.Type != "m.direct_to_device" || c.Sender != string(alice.ID) || c.Type != "m.test" || len(c.ID) > 32 || len(e.Content) > 64<<10 {
				t.Errorf("EDU %.200s", e.Content)
			}
			for device := range c.Messages[far] {
				seen[string(device)] = true
			}
		}
		if len(seen) != 5 || len(ids) != 3 {
			t.Errorf("the EDUs are for %v under the IDs %v", seen, ids)
		}
		must(t, w.SentToDevice(t.Context(), server, last))
		if edus, _, err := w.OutgoingToDevice(t.Context(), server, 0, w.pos(), 10); err != nil || len(edus) != 1 {
			t.Errorf("%d EDUs are left (%v)", len(edus), err)
		}
	})
}

func TestReceiveToDevice(t *testing.T) {
	proof.Of(t, "ED-06")
	each(t, func(t *testing.T, w *world) {
		bob, gone := w.user("bob"), w.user("gone")
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE accounts SET deactivated = TRUE WHERE member = $1`, gone.User.NID)
			return err
		}))
		edu := func(sender, id, target string) []byte {
			return fmt.Appendf(nil, `{"sender":%q,"type":"m.test","message_id":%q,"messages":{%q:{"*":{"x":1}}}}`, sender, id, target)
		}
		for range 3 {
			must(t, w.ReceiveToDevice(t.Context(), there, edu("@far:there.test", "one", string(bob.ID))))
		}
		must(t, w.ReceiveToDevice(t.Context(), "third.test", edu("@a:third.test", "one", string(bob.ID))))
		must(t, w.ReceiveToDevice(t.Context(), there, edu("@far:there.test", "two", string(gone.ID))))
		must(t, w.ReceiveToDevice(t.Context(), there, edu("@far:there.test", "three", "@x:elsewhere.test")))
		refused(t, w.ReceiveToDevice(t.Context(), there, edu("@a:third.test", "four", string(bob.ID))), "M_FORBIDDEN")
		refused(t, w.ReceiveToDevice(t.Context(), there, edu(string(bob.ID), "five", string(bob.ID))), "M_FORBIDDEN")
		for _, bad := range []string{`[]`, `{}`, `{"sender":"@far:there.test"}`, `{"sender":"@far:there.test","type":"t","message_id":"x","messages":[]}`} {
			if err := w.ReceiveToDevice(t.Context(), there, []byte(bad)); err == nil {
				t.Errorf("%s was taken", bad)
			}
		}
		if got := w.waiting(bob, 0); len(got) != 2 {
			t.Errorf("bob has %v, want one message of each server", got)
		}
		if got := w.waiting(gone, 0); len(got) != 0 {
			t.Errorf("a closed account has %v", got)
		}
	})
}
