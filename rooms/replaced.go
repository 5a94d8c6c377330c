package rooms

import (
	"context"
	"errors"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Replaced finds the room that a room replaces, if both say so, the old one by its tombstone, and a user was in it: a room
// alone may call any other its predecessor.
func (r *Rooms) Replaced(ctx context.Context, ref Ref, user Sender) (old Ref, found bool, err error) {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return old, false, err
	}
	create, err := r.StateEvent(ctx, ref.NID, state, "m.room.create", "")
	if err != nil || create == nil {
		return old, false, err
	}
	name, _ := matrix.GetString(create.Event.Content(), "predecessor", "room_id")
	id, err := matrix.ParseRoomID(name)
	if err != nil {
		return old, false, nil //nolint:nilerr // it replaces none
	}
	var unknown *matrix.Error
	if old, err = r.Lookup(ctx, id); errors.As(err, &unknown) {
		return old, false, nil
	}
	if err != nil {
		return old, false, err
	}
	member, err := r.Membership(ctx, old.NID, user.NID)
	if err != nil || member == nil || member.Joined == 0 {
		return old, false, err
	}
	if state, err = r.CurrentState(ctx, old.NID); err != nil || state == (store.State{}) {
		return old, false, err
	}
	tombstone, err := r.StateEvent(ctx, old.NID, state, "m.room.tombstone", "")
	if err != nil || tombstone == nil {
		return old, false, err
	}
	next, _ := matrix.GetString(tombstone.Event.Content(), "replacement_room")
	return old, next == string(ref.ID), nil
}
