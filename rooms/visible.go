package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// Viewer is who wants to see events: a user with what it is in the room now. The zero Member of a stranger sees only
// what is world-readable.
type Viewer struct {
	ID     matrix.UserID
	Member *store.MemberRow // nil for somebody who never had to do with the room
}

// viewKey is what visibility depends on: the state at an event, as its two roots.
type viewKey = store.State

// Visibility answers for one viewer and room which events it may see, remembering what it learnt about states: most
// events of a page share one.
type Visibility struct {
	r      *Rooms
	ref    Ref
	viewer Viewer
	known  map[viewKey]sight
}

// sight is what one state says: how history is visible, and what the viewer was in it.
type sight struct {
	visibility matrix.HistoryVisibility
	membership store.Membership
}

// VisibleTo makes the oracle for one viewer in one room. It is the only one: sync, pagination, context, search, push
// and relations all ask it (law 11).
func (r *Rooms) VisibleTo(ref Ref, viewer Viewer) *Visibility {
	return &Visibility{r: r, ref: ref, viewer: viewer, known: map[viewKey]sight{}}
}

// May says whether the viewer may see an event, by the rules of the spec's "Room history visibility": the visibility
// and the viewer's membership when the event was sent, and whether it joined later. For the viewer's own membership
// events, and for changes of the visibility, the more generous side of the change counts.
func (v *Visibility) May(ctx context.Context, row *store.EventRow) (bool, error) {
	if !row.Visible() || row.After == nil {
		return false, nil
	}
	after, err := v.sight(ctx, row.StateAfter())
	if err != nil {
		return false, err
	}
	if v.allows(after, row) {
		return true, nil
	}
	if !v.turning(row.Event) {
		return false, nil
	}
	before, err := v.sight(ctx, row.StateBefore())
	return err == nil && v.allows(before, row), err
}

// turning says whether an event changes what this viewer may see.
func (v *Visibility) turning(ev *matrix.Event) bool {
	switch ev.Type() {
	case "m.room.history_visibility":
		return ev.StateKeyEquals("")
	case "m.room.member":
		return ev.StateKeyEquals(string(v.viewer.ID))
	}
	return false
}

func (v *Visibility) allows(s sight, row *store.EventRow) bool {
	switch s.visibility {
	case matrix.WorldReadable:
		return true
	case matrix.Joined:
		return s.membership == store.Join
	case matrix.Invited:
		return s.membership == store.Join || s.membership == store.Invite && v.joinedAfter(row)
	default: // shared, and whatever is not understood (spec: the default)
		return s.membership == store.Join || v.joinedAfter(row)
	}
}

// joinedAfter says whether the viewer was in the room at some time after the event.
func (v *Visibility) joinedAfter(row *store.EventRow) bool {
	m := v.viewer.Member
	if m == nil || m.Joined == 0 {
		return false
	}
	return m.Membership == store.Join || m.Departed > row.Pos
}

// sight reads what a state says for this viewer.
func (v *Visibility) sight(ctx context.Context, state store.State) (sight, error) {
	if s, ok := v.known[state]; ok {
		return s, nil
	}
	s := sight{visibility: matrix.Shared}
	visibility := authrules.StateKey{Type: "m.room.history_visibility"}
	member := authrules.StateKey{Type: "m.room.member", Key: string(v.viewer.ID)}
	found, err := v.r.StateEvents(ctx, v.ref.NID, state, []authrules.StateKey{visibility, member})
	if err != nil {
		return s, err
	}
	if row := found[visibility]; row != nil {
		s.visibility = matrix.ParseHistoryVisibility(row.Event.Content())
	}
	if row := found[member]; row != nil {
		s.membership = store.MembershipOf(row.Event.Membership())
	}
	v.known[state] = s
	return s, nil
}

// Filter keeps the events that the viewer may see, in their order.
func (v *Visibility) Filter(ctx context.Context, rows []*store.EventRow) ([]*store.EventRow, error) {
	kept := rows[:0:0]
	for _, row := range rows {
		ok, err := v.May(ctx, row)
		if err != nil {
			return nil, err
		}
		if ok {
			kept = append(kept, row)
		}
	}
	return kept, nil
}

// Viewer reads what a user is in a room, for VisibleTo. Whoever has forgotten a room never was in it.
func (r *Rooms) Viewer(ctx context.Context, room store.RoomNID, user Sender) (Viewer, error) {
	row, err := r.Membership(ctx, room, user.NID)
	if row != nil && row.Forgotten {
		row = nil
	}
	return Viewer{ID: user.ID, Member: row}, err
}
