package keys

import (
	"context"
	"time"

	"conclave/internal/store"
)

// What is kept of messages that nobody fetches. A message that was accepted is kept for as long as its device exists; but
// a device that has been silent for longer than silentTime, and a server that has been failing for longer, keep the
// newest keepMessages only, so that what never comes back cannot fill the disk. Whoever comes back after that has missed
// room keys of months ago, and asks for them as a new device does.
const (
	silentTime   = 30 * 24 * time.Hour
	keepMessages = 20_000
	tidyEvery    = time.Hour
	tidyBatch    = 1000
)

// tidy drops messages of devices that are gone, and of silent receivers what they may not keep, in short transactions.
// It can be run anywhere at any time: what it leaves undone is done the next time.
func (k *Keys) tidy(ctx context.Context) error {
	if err := k.drop(ctx, func(tx *store.Tx) (int64, error) { return tx.DropOrphanMessages(tidyBatch) }, nil); err != nil {
		return err
	}
	before := k.now() - silentTime.Milliseconds()
	err := k.eachSilent(ctx, func(tx *store.Tx, after int64, each func(int64)) error {
		return tx.SilentDevices(after, before, tidyBatch, each)
	}, func(device int64) error {
		return k.drop(ctx, func(tx *store.Tx) (int64, error) { return tx.TrimDeviceMessages(device, keepMessages, tidyBatch) },
			[]any{"device", device})
	})
	if err != nil {
		return err
	}
	return k.eachSilent(ctx, func(tx *store.Tx, after int64, each func(int64)) error {
		return tx.SilentServers(store.ServerNID(after), before, tidyBatch, func(s store.ServerNID) { each(int64(s)) })
	}, func(server int64) error {
		return k.drop(ctx, func(tx *store.Tx) (int64, error) {
			return tx.TrimOutgoingMessages(store.ServerNID(server), keepMessages, tidyBatch)
		}, []any{"server", server})
	})
}

// eachSilent runs do for every receiver that list names, page by page.
func (k *Keys) eachSilent(ctx context.Context, list func(tx *store.Tx, after int64, each func(int64)) error, do func(int64) error) error {
	for last, more := int64(0), true; more; {
		var page []int64
		err := k.o.DB.Read(ctx, func(tx *store.Tx) error {
			page = page[:0]
			return list(tx, last, func(nid int64) { page = append(page, nid) })
		})
		if err != nil {
			return err
		}
		for _, nid := range page {
			if err := do(nid); err != nil {
				return err
			}
			last = nid
		}
		more = len(page) == tidyBatch
	}
	return nil
}

// drop runs a deletion until there is nothing left to delete, and logs how much that was if it concerns a receiver.
func (k *Keys) drop(ctx context.Context, do func(*store.Tx) (int64, error), whose []any) error {
	total := int64(0)
	for {
		var n int64
		err := k.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
			n, err = do(tx)
			return err
		})
		if err != nil {
			return err
		}
		if total += n; n < tidyBatch {
			break
		}
	}
	if total > 0 && whose != nil {
		k.o.Log.Warn("dropped the oldest messages for a receiver that has been silent for long",
			append([]any{"dropped", total, "kept", keepMessages}, whose...)...)
	}
	return nil
}
