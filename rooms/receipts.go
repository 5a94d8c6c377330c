package rooms

import (
	"context"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// receiptKinds are the receipts that clients send by name.
var receiptKinds = map[string]store.ReceiptKind{
	"m.read": store.ReadReceipt, "m.read.private": store.PrivateReceipt, "im.conclave.delivered": store.DeliveredReceipt,
}

// Receipt notes that a user has got as far as an event that it can see. Going back changes nothing.
func (r *Rooms) Receipt(ctx context.Context, ref Ref, user Sender, kind string, id matrix.EventID, thread string) error {
	k, ok := receiptKinds[kind]
	if !ok {
		return matrix.InvalidParam("There is no receipt of type %.64q.", kind)
	}
	viewer, err := r.Viewer(ctx, ref.NID, user)
	if err != nil {
		return err
	}
	if viewer.Member == nil || viewer.Member.Membership != store.Join {
		return matrix.Forbidden("You are not in this room.")
	}
	row, err := r.Visible(ctx, ref, viewer, id)
	if err != nil {
		return err
	}
	if err := r.requireThread(ctx, ref, row, thread); err != nil {
		return err
	}
	return r.PutReceipt(ctx, store.Receipt{
		Room: ref.NID, User: user.NID, Kind: k, Thread: thread, Event: id, Place: row.ReceiptPlace(), TS: r.now().UnixMilli(),
	})
}

// PutReceipt stores a receipt that was checked.
func (r *Rooms) PutReceipt(ctx context.Context, receipt store.Receipt) error {
	return r.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.PutReceipt(receipt)
		return err
	})
}

// RemoteReceipt says how a receipt of another server, by a user of it who is in the room, is to be written. If its event
// is not here yet (events wait for their turn, receipts do not) it waits for it: it takes effect when the event does.
func (r *Rooms) RemoteReceipt(ctx context.Context, ref Ref, receipt store.Receipt) (write func(tx *store.Tx) error, err error) {
	if _, err := matrix.ParseEventID(string(receipt.Event)); err != nil {
		return nil, matrix.BadJSON("A receipt names an event.").With(err)
	}
	var row *store.EventRow
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.EventInRoom(ref.NID, receipt.Event)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case row == nil || !row.Visible() && (!settled(row) || row.Flags.Has(store.FlagHeld)):
		return func(tx *store.Tx) error {
			tx.AfterCommit(func() { r.wake(ref) }) // the event may have come while nobody knew of its receipt
			return tx.KeepReceipt(receipt, r.now(), store.MaxEarlyReceipts)
		}, nil
	case !row.Visible():
		return nil, matrix.NotFound("There is no such event in the room.")
	}
	receipt.Place = row.ReceiptPlace()
	return func(tx *store.Tx) error {
		_, err := tx.PutReceipt(receipt)
		return err
	}, nil
}

// ripen lets receipts take effect that waited for events which are here now. Whoever left the room meanwhile has read
// nothing there.
func (r *Rooms) ripen(ctx context.Context, ref Ref) error {
	var ripe []store.Receipt
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		ripe = nil
		return tx.RipeReceipts(ref.NID, func(receipt store.Receipt) { ripe = append(ripe, receipt) })
	})
	if err != nil || len(ripe) == 0 {
		return err
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		for _, receipt := range ripe {
			if err := tx.DropEarly(receipt); err != nil {
				return err
			}
			member, err := tx.Membership(ref.NID, receipt.User)
			if err != nil {
				return err
			}
			if receipt.Place == 0 || member == nil || member.Membership != store.Join {
				continue
			}
			if _, err := tx.PutReceipt(receipt); err != nil {
				return err
			}
		}
		tx.AfterCommit(func() { r.bus.Publish(cluster.Stream, int64(r.db.CachedBound())+1) })
		return nil
	})
}

// IsPublic says whether a room is listed in the directory.
func (r *Rooms) IsPublic(ctx context.Context, room store.RoomNID) (public bool, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.RoomsByNID([]store.RoomNID{room}, func(i store.RoomInfo) { public = i.Public })
	})
	return public, err
}

// Rename repeats a joined user's profile in its member event of a room, if that says something else.
func (r *Rooms) Rename(ctx context.Context, ref Ref, user Sender, p Profile) error {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return err
	}
	row, err := r.StateEvent(ctx, ref.NID, state, "m.room.member", string(user.ID))
	if err != nil || row == nil || row.Event.Membership() != "join" {
		return err
	}
	name, _ := matrix.GetString(row.Event.Content(), "displayname")
	avatar, _ := matrix.GetString(row.Event.Content(), "avatar_url")
	if name == p.DisplayName && avatar == p.AvatarURL {
		return nil
	}
	_, err = r.change(ctx, MemberRequest{Room: ref, Sender: user, Target: user.ID, Profile: p}, "join")
	return err
}
