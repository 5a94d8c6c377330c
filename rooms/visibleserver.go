package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// ServerVisibility answers for one server which events of a room some user of it may see: VisibleTo for servers, and
// likewise the only such oracle (law 11, threats F15).
type ServerVisibility struct {
	r       *Rooms
	ref     Ref
	members []serverMember
	joined  bool // some user is in the room now
	known   map[viewKey]serverSight
}

type serverMember struct {
	id  matrix.UserID
	row store.MemberRow
}

// serverSight is what one state says: how history is visible, and the most that a user of the server was in it.
type serverSight struct {
	visibility matrix.HistoryVisibility
	membership store.Membership
}

// maxServerMembers bounds how many users of a server are looked at, those first that are in the room for longest. Where
// a server has more, what only the others might see stays hidden.
const maxServerMembers = 1000

// VisibleToServer makes the oracle for a server in a room. A server that never had a user in it is refused (M_FORBIDDEN).
func (r *Rooms) VisibleToServer(ctx context.Context, ref Ref, server matrix.ServerName) (*ServerVisibility, error) {
	v := &ServerVisibility{r: r, ref: ref, known: map[viewKey]serverSight{}}
	ever := false
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		v.members, v.joined, ever = nil, false, false
		return tx.MembersFrom(ref.NID, server, maxServerMembers, func(id matrix.UserID, m store.MemberRow) {
			v.members = append(v.members, serverMember{id, m})
			v.joined = v.joined || m.Membership == store.Join
			ever = ever || m.Joined != 0
		})
	})
	if err == nil && !ever {
		err = matrix.Forbidden("%s is not in the room.", server)
	}
	return v, err
}

// Joined reports whether a user of the server is in the room now.
func (v *ServerVisibility) Joined() bool { return v.joined }

// May says whether the server may be given an event whole.
func (v *ServerVisibility) May(ctx context.Context, row *store.EventRow) (bool, error) {
	if row.After == nil || row.Flags&(store.FlagRejected|store.FlagOutlier) != 0 {
		return false, nil
	}
	if row.Live() && v.wasIn(row.Pos) {
		return true, nil
	}
	after, err := v.sight(ctx, row.StateAfter())
	if err != nil || v.allows(after, row) {
		return err == nil, err
	}
	if row.Event.Type() != "m.room.history_visibility" && row.Event.Type() != "m.room.member" {
		return false, nil
	}
	before, err := v.sight(ctx, row.StateBefore())
	return err == nil && v.allows(before, row), err
}

// wasIn says whether a user of the server was in the room at a position of its present, as far as the last stay of each
// says.
func (v *ServerVisibility) wasIn(at store.Pos) bool {
	for _, m := range v.members {
		if m.row.Joined != 0 && m.row.Joined <= at && (m.row.Membership == store.Join || at <= m.row.Departed) {
			return true
		}
	}
	return false
}

// joinedAfter says whether a user of the server was in the room at some time after an event.
func (v *ServerVisibility) joinedAfter(row *store.EventRow) bool {
	for _, m := range v.members {
		if m.row.Joined != 0 && (m.row.Membership == store.Join || row.Pos < m.row.Departed) {
			return true
		}
	}
	return false
}

func (v *ServerVisibility) allows(s serverSight, row *store.EventRow) bool {
	switch s.visibility {
	case matrix.WorldReadable:
		return true
	case matrix.Joined:
		return s.membership == store.Join
	case matrix.Invited:
		return s.membership == store.Join || s.membership == store.Invite && v.joinedAfter(row)
	default:
		return s.membership == store.Join || v.joinedAfter(row)
	}
}

func (v *ServerVisibility) sight(ctx context.Context, state store.State) (serverSight, error) {
	if s, ok := v.known[state]; ok {
		return s, nil
	}
	visibility := authrules.StateKey{Type: "m.room.history_visibility"}
	keys := make([]authrules.StateKey, 0, len(v.members)+1)
	keys = append(keys, visibility)
	for _, m := range v.members {
		keys = append(keys, authrules.StateKey{Type: "m.room.member", Key: string(m.id)})
	}
	found, err := v.r.StateEvents(ctx, v.ref.NID, state, keys)
	s := serverSight{visibility: matrix.Shared}
	if err != nil {
		return s, err
	}
	if row := found[visibility]; row != nil {
		s.visibility = matrix.ParseHistoryVisibility(row.Event.Content())
	}
	for key, row := range found {
		if key.Type != "m.room.member" {
			continue
		}
		switch row.Event.Membership() {
		case "join":
			s.membership = store.Join
		case "invite":
			if s.membership != store.Join {
				s.membership = store.Invite
			}
		}
	}
	v.known[state] = s
	return s, nil
}
