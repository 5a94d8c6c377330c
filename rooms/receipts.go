package rooms

import (
	"context"

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
	return r.PutReceipt(ctx, store.Receipt{
		Room: ref.NID, User: user.NID, Kind: k, Thread: thread, Event: id, Place: row.Pos, TS: r.now().UnixMilli(),
	})
}

// PutReceipt stores a receipt that was checked.
func (r *Rooms) PutReceipt(ctx context.Context, receipt store.Receipt) error {
	return r.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.PutReceipt(receipt)
		return err
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
