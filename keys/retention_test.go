package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/wait"
	"conclave/keys"
)

// fill queues n messages, each at a position of its own, and returns the last of these.
func (w *world) fill(table, column, content string, of int64, n int) (last store.Pos) {
	w.t.Helper()
	must(w.t, w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		first, err := tx.NextPos(n)
		if err != nil {
			return err
		}
		last = first + store.Pos(n) - 1
		_, err = tx.Exec(fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO %s (%s, pos, %s) SELECT %d, i, '{}' FROM n`, first, last, table, column, content, of))
		return err
	}))
	return last
}

// kept is how many messages wait, and the oldest of them.
func (w *world) kept(table, column string, of int64) (n int64, oldest store.Pos) {
	w.t.Helper()
	must(w.t, w.db.Read(w.t.Context(), func(tx *store.Tx) error {
		return tx.Query(fmt.Sprintf(`SELECT count(*), coalesce(min(pos), 0) FROM %s WHERE %s = %d`, table, column, of), func(r *store.Row) error {
			n, oldest = r.Int64(0), store.Pos(r.Int64(1))
			return nil
		})
	}))
	return n, oldest
}

const keep, more = 20_000, 20_007

func TestSilentDevicesKeepTheNewestMessages(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		silent, awake, few := w.user("silent"), w.user("awake"), w.user("few")
		last := w.fill("to_device", "device", "event", silent.NID, more)
		w.fill("to_device", "device", "event", awake.NID, more)
		w.fill("to_device", "device", "event", few.NID, 5)
		touch := func(p *person) {
			must(t, w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.TouchDevice(p.NID, w.now().UnixMilli(), "") }))
		}
		for _, p := range []*person{silent, awake, few} {
			touch(p)
		}
		must(t, w.Tidy(t.Context()))
		if n, _ := w.kept("to_device", "device", silent.NID); n != more {
			t.Errorf("%d messages are left to a device that was just seen", n)
		}

		w.pass(29 * 24 * time.Hour)
		touch(awake)
		w.pass(2 * 24 * time.Hour)
		must(t, w.Tidy(t.Context()))
		if n, oldest := w.kept("to_device", "device", silent.NID); n != keep || oldest != last-keep+1 {
			t.Errorf("%d messages from %d to %d are left to the silent device", n, oldest, last)
		}
		for p, want := range map[*person]int64{awake: more, few: 5} {
			if n, _ := w.kept("to_device", "device", p.NID); n != want {
				t.Errorf("%s has %d messages, want %d", p.ID, n, want)
			}
		}
		// What is left comes in order, and new ones come behind it.
		must(t, w.SendToDevice(t.Context(), awake.ID, txn(awake, 9), "m.last", keys.Messages{few.ID: {"*": json.RawMessage(`{}`)}}))
		if got := w.waiting(few, 0); len(got) != 6 || got[5] != `{"content":{},"sender":"@awake:here.test","type":"m.last"}` {
			t.Errorf("waiting: %v", got)
		}
	})
}

func TestMessagesOfNoDeviceAreDropped(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		alice := w.user("alice")
		w.fill("to_device", "device", "event", 999_999, 2500) // as if the device had gone while they came
		w.fill("to_device", "device", "event", alice.NID, 3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		wait.Until(t, "messages of no device are dropped", func() bool {
			n, _ := w.kept("to_device", "device", 999_999)
			return n == 0
		})
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the work ended with %v", err)
		}
		if n, _ := w.kept("to_device", "device", alice.NID); n != 3 {
			t.Errorf("a device that is there has %d messages", n)
		}
	})
}

func TestDeadServersKeepTheNewestMessages(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		dead, err := w.db.Server(t.Context(), there)
		must(t, err)
		last := w.fill("to_device_out", "server", "content", int64(dead), more)
		failing := func(since int64) {
			must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
				if err := tx.AddDestination(dead, store.Cursors{}, 50); err != nil {
					return err
				}
				_, err := tx.Exec(`UPDATE destinations SET failing_since = $1 WHERE server = $2`, since, dead)
				return err
			}))
		}
		for _, since := range []int64{0, w.now().Add(-29 * 24 * time.Hour).UnixMilli()} {
			failing(since)
			must(t, w.Tidy(t.Context()))
			if n, _ := w.kept("to_device_out", "server", int64(dead)); n != more {
				t.Errorf("%d messages are left for a server that has failed since %d", n, since)
			}
		}
		w.pass(2 * 24 * time.Hour)
		must(t, w.Tidy(t.Context()))
		if n, oldest := w.kept("to_device_out", "server", int64(dead)); n != keep || oldest != last-keep+1 {
			t.Errorf("%d messages from %d to %d are left for the dead server", n, oldest, last)
		}
	})
}
