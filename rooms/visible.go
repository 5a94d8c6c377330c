package rooms

import (
	"context"
	"slices"

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

// Visibility answers for one reader and one room which events may be seen, remembering what it learnt about states: most
// events of a page share one. A reader is a user, or a server, which may have what some user of it may see.
type Visibility struct {
	r      *Rooms
	ref    Ref
	users  []Viewer
	server bool
	known  map[viewKey]sight
}

// sight is what one state says: how history is visible, and what each of the reader's users was in it.
type sight struct {
	visibility matrix.HistoryVisibility
	was        []store.Membership
}

// VisibleTo makes the oracle for one user in one room. It and VisibleToServer are the only ones: sync, pagination,
// context, search, push, relations and federation all ask them, and both ask one rule (law 11).
func (r *Rooms) VisibleTo(ref Ref, viewer Viewer) *Visibility {
	return &Visibility{r: r, ref: ref, users: []Viewer{viewer}, known: map[viewKey]sight{}}
}

// maxServerMembers bounds how many users of a server are looked at, those first that are in the room for longest. Where
// a server has more, what only the others might see stays hidden.
const maxServerMembers = 1000

// VisibleToServer makes the oracle for a server in a room (threats F15). A server that never had a user in it is refused
// (M_FORBIDDEN).
func (r *Rooms) VisibleToServer(ctx context.Context, ref Ref, server matrix.ServerName) (*Visibility, error) {
	v := &Visibility{r: r, ref: ref, server: true, known: map[viewKey]sight{}}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		v.users = nil
		return tx.MembersFrom(ref.NID, server, maxServerMembers, func(id matrix.UserID, m store.MemberRow) {
			v.users = append(v.users, Viewer{ID: id, Member: &m})
		})
	})
	if err == nil && !slices.ContainsFunc(v.users, func(u Viewer) bool { return u.Member.Joined != 0 }) {
		err = matrix.Forbidden("%s is not in the room.", server)
	}
	return v, err
}

// mayBeSeen is the rule of the spec's "Room history visibility", for a user and the state at an event: what the
// visibility was, what the user was, and whether it was in the room at some time after the event. An invitation alone
// shows nothing: "in all cases except world_readable, a user needs to join a room to view events in that room".
func mayBeSeen(visibility matrix.HistoryVisibility, was store.Membership, later bool) bool {
	switch {
	case visibility == matrix.WorldReadable || was == store.Join:
		return true
	case visibility == matrix.Joined:
		return false
	case visibility == matrix.Invited:
		return was == store.Invite && later
	}
	return later // shared, and whatever is not understood (spec: the default)
}

// May says whether the reader may have an event whole. Of changes of the visibility, and of the memberships that it goes
// by, the more generous side counts.
func (v *Visibility) May(ctx context.Context, row *store.EventRow) (bool, error) {
	switch {
	case row.After == nil || row.Flags&(store.FlagRejected|store.FlagOutlier) != 0:
		return false, nil
	case v.server && row.Live() && v.wasIn(row.Pos):
		return true, nil // it was sent this, whatever branch of the graph it is of
	case !v.server && !row.Visible():
		return false, nil // soft-failed: servers judge that for themselves
	}
	after, err := v.sight(ctx, row.StateAfter())
	if err != nil || v.allows(after, row) {
		return err == nil, err
	}
	if !row.Flags.Has(store.FlagState) || !v.turning(row.Event) { // a row that is no state event's may come without its text
		return false, nil
	}
	before, err := v.sight(ctx, row.StateBefore())
	return err == nil && v.allows(before, row), err
}

// Joined reports whether the reader is in the room now.
func (v *Visibility) Joined() bool {
	return slices.ContainsFunc(v.users, func(u Viewer) bool { return u.Member != nil && u.Member.Membership == store.Join })
}

// turning says whether an event changes what the reader may see.
func (v *Visibility) turning(ev *matrix.Event) bool {
	switch ev.Type() {
	case "m.room.history_visibility":
		return ev.StateKeyEquals("")
	case "m.room.member":
		return slices.ContainsFunc(v.users, func(u Viewer) bool { return ev.StateKeyEquals(string(u.ID)) })
	}
	return false
}

func (v *Visibility) allows(s sight, row *store.EventRow) bool {
	for i, u := range v.users {
		if mayBeSeen(s.visibility, s.was[i], u.joinedAfter(row)) {
			return true
		}
	}
	return false
}

// wasIn says whether a user was in the room at a position of its present, as far as the last stay of each says.
func (v *Visibility) wasIn(at store.Pos) bool {
	return slices.ContainsFunc(v.users, func(u Viewer) bool {
		m := u.Member
		return m != nil && m.Joined != 0 && m.Joined <= at && (m.Membership == store.Join || at <= m.Departed)
	})
}

// joinedAfter says whether the user was in the room at some time after an event.
func (u Viewer) joinedAfter(row *store.EventRow) bool {
	m := u.Member
	return m != nil && m.Joined != 0 && (m.Membership == store.Join || m.Departed > row.Pos)
}

// sight reads what a state says for the reader.
func (v *Visibility) sight(ctx context.Context, state store.State) (sight, error) {
	if s, ok := v.known[state]; ok {
		return s, nil
	}
	keys := make([]authrules.StateKey, 1, len(v.users)+1)
	keys[0].Type = "m.room.history_visibility"
	for _, u := range v.users {
		keys = append(keys, authrules.StateKey{Type: "m.room.member", Key: string(u.ID)})
	}
	s := sight{visibility: matrix.Shared, was: make([]store.Membership, len(v.users))}
	found, err := v.r.StateEvents(ctx, v.ref.NID, state, keys)
	if err != nil {
		return s, err
	}
	if row := found[keys[0]]; row != nil {
		s.visibility = matrix.ParseHistoryVisibility(row.Event.Content())
	}
	for i, key := range keys[1:] {
		if row := found[key]; row != nil {
			s.was[i] = store.MembershipOf(row.Event.Membership())
		}
	}
	v.known[state] = s
	return s, nil
}

// Filter keeps the events that the reader may see, in their order and as the reader may have them.
func (v *Visibility) Filter(ctx context.Context, rows []*store.EventRow) ([]*store.EventRow, error) {
	kept := rows[:0:0]
	for _, row := range rows {
		row, err := v.Shown(ctx, row)
		if err != nil {
			return nil, err
		}
		if row != nil {
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

// AllSeeReplaced reports whether everybody who may see a state event may also see the one that it replaced: where history
// was shared both times, since whoever sees the event was in the room after it, and where the earlier one is open to the
// world.
func (r *Rooms) AllSeeReplaced(ctx context.Context, ref Ref, row, replaced *store.EventRow) (bool, error) {
	if replaced.After == nil || replaced.Flags&(store.FlagRejected|store.FlagOutlier) != 0 {
		return false, nil
	}
	if since, err := r.erasedSince(ctx, replaced.Sender); err != nil || since != 0 {
		return false, err
	}
	v := &Visibility{r: r, ref: ref, known: map[viewKey]sight{}} // of nobody: only what the states say of history
	then, err := v.sight(ctx, replaced.StateAfter())
	if err != nil || then.visibility == matrix.WorldReadable {
		return err == nil, err
	}
	for _, state := range []store.State{row.StateBefore(), row.StateAfter()} {
		now, err := v.sight(ctx, state)
		if err != nil || now.visibility != matrix.Shared {
			return false, err
		}
	}
	return then.visibility == matrix.Shared, nil
}

// MaySeeReplaced reports whether the reader, a user, of a state event may see the one that it replaced: as an event, or
// because the reader was in the room while it was in force.
func (v *Visibility) MaySeeReplaced(ctx context.Context, row, replaced *store.EventRow) (bool, error) {
	if gone, err := v.erased(ctx, replaced); err != nil || gone {
		return false, err
	}
	then, err := v.sight(ctx, row.StateBefore())
	if err != nil || then.was[0] == store.Join {
		return err == nil, err
	}
	return v.May(ctx, replaced)
}
