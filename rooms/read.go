package rooms

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// LookupNID finds a room by its number.
func (r *Rooms) LookupNID(ctx context.Context, nid store.RoomNID) (Ref, error) {
	if ref, ok := r.cache.byNID.GetIfPresent(nid); ok {
		return ref, nil
	}
	var ref Ref
	certain := false
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		err = tx.RoomsByNID([]store.RoomNID{nid}, func(i store.RoomInfo) { ref = Ref{NID: i.NID, ID: i.ID, Version: i.Version} })
		if err == nil {
			certain, err = tx.HasPresent(nid)
		}
		return err
	})
	if err == nil && ref.NID == 0 {
		err = corrupt("room %d has no row", nid)
	}
	if err == nil && certain {
		r.cache.byNID.Set(nid, ref)
	}
	return ref, err
}

// StateAt is the current state of a room as it was at a position of the stream.
func (r *Rooms) StateAt(ctx context.Context, room store.RoomNID, at store.Pos) (store.State, error) {
	var state store.State
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		head, err := tx.HeadAt(room, at)
		if head != nil {
			state = head.CurrentState()
		}
		return err
	})
	return state, err
}

// WorldReadable says whether a state lets anybody read the room.
func (r *Rooms) WorldReadable(ctx context.Context, room store.RoomNID, state store.State) (bool, error) {
	row, err := r.StateEvent(ctx, room, state, "m.room.history_visibility", "")
	return row != nil && matrix.ParseHistoryVisibility(row.Event.Content()) == matrix.WorldReadable, err
}

// StateEventList is StateEvents as a list, in the order of the keys.
func (r *Rooms) StateEventList(ctx context.Context, room store.RoomNID, s store.State, keys []authrules.StateKey) ([]*store.EventRow, error) {
	found, err := r.StateEvents(ctx, room, s, keys)
	if err != nil {
		return nil, err
	}
	rows := make([]*store.EventRow, 0, len(found))
	for _, key := range keys {
		if row := found[key]; row != nil {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// MembersAmong are the member events, in a state, of those who sent some events.
func (r *Rooms) MembersAmong(ctx context.Context, room store.RoomNID, s store.State, events []*store.EventRow) ([]*store.EventRow, error) {
	seen := map[matrix.UserID]bool{}
	var keys []authrules.StateKey
	for _, row := range events {
		if sender := row.Event.Sender(); !seen[sender] {
			seen[sender] = true
			keys = append(keys, authrules.StateKey{Type: "m.room.member", Key: string(sender)})
		}
	}
	return r.StateEventList(ctx, room, s, keys)
}

// JoinedRooms are the IDs of the rooms that a user is in.
func (r *Rooms) JoinedRooms(ctx context.Context, user store.UserNID) ([]matrix.RoomID, error) {
	var nids []store.RoomNID
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		nids = nil
		return tx.MembershipsOf(user, func(m store.MemberRow) {
			if m.Membership == store.Join {
				nids = append(nids, m.Room)
			}
		})
	})
	if err != nil {
		return nil, err
	}
	ids := make([]matrix.RoomID, 0, len(nids))
	for _, nid := range nids {
		ref, err := r.LookupNID(ctx, nid)
		if err != nil {
			return nil, err
		}
		ids = append(ids, ref.ID)
	}
	return ids, nil
}

// levelsAt are the power levels in force in a state.
func (r *Rooms) levelsAt(ctx context.Context, ref Ref, s store.State) (authrules.Levels, error) {
	found, err := r.StateEvents(ctx, ref.NID, s, []authrules.StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}})
	if err != nil {
		return authrules.Levels{}, err
	}
	state := authrules.Map{}
	for key, row := range found {
		state[key] = row.Event
	}
	return authrules.LevelsOf(ref.Version, state), nil
}

// strippedTypes are the state events that an invitation shows (client-server API, "Stripped state").
var strippedTypes = []string{
	"m.room.create", "m.room.join_rules", "m.room.name", "m.room.avatar", "m.room.topic", "m.room.canonical_alias", "m.room.encryption",
}

// StrippedState is what somebody who is invited or knocks may see of a room: from its state if we are in it, else what
// the invitation came with.
func (r *Rooms) StrippedState(ctx context.Context, ref Ref, m store.MemberRow) ([]json.RawMessage, error) {
	var given string
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		given, err = tx.Stripped(ref.NID, m.Member)
		return err
	})
	if err != nil {
		return nil, err
	}
	var events []json.RawMessage
	if given != "" {
		var g glimpse
		g, err = readGlimpse(given)
		events = g.Events
	} else {
		events, err = r.strippedFromState(ctx, ref, m.Pos)
	}
	if err != nil {
		return nil, err
	}
	row, err := r.MemberEvent(ctx, m)
	if err != nil {
		return nil, err
	}
	return append(events, matrix.Stripped(row.Event)), nil
}

// MemberEvent is the event that gave somebody the membership they have.
func (r *Rooms) MemberEvent(ctx context.Context, m store.MemberRow) (*store.EventRow, error) {
	rows, err := r.eventsByNID(ctx, m.Room, []store.EventNID{m.Event})
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// strippedFromState reads the stripped state of a room that we are in, as of a position.
func (r *Rooms) strippedFromState(ctx context.Context, ref Ref, at store.Pos) ([]json.RawMessage, error) {
	state, err := r.StateAt(ctx, ref.NID, at)
	if err != nil {
		return nil, err
	}
	rows, err := r.strippedRows(ctx, ref, state)
	events := make([]json.RawMessage, 0, len(rows)+1)
	for _, row := range rows {
		events = append(events, matrix.Stripped(row.Event))
	}
	return events, err
}

// strippedRows are the events of a state that an invitation shows.
func (r *Rooms) strippedRows(ctx context.Context, ref Ref, state store.State) ([]*store.EventRow, error) {
	keys := make([]authrules.StateKey, len(strippedTypes))
	for i, typ := range strippedTypes {
		keys[i] = authrules.StateKey{Type: typ}
	}
	return r.StateEventList(ctx, ref.NID, state, keys)
}
