package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// judge says what events that have come into rooms do for one user, by the rules that the user has now.
type judge struct {
	r       *Rooms
	user    Sender
	program *pushrules.Program
	ignored map[matrix.UserID]bool
	places  map[store.RoomNID]*place
}

// place is a room that the user is in.
type place struct {
	ref     Ref
	see     *Visibility
	members int
	levels  map[store.State]*authrules.Levels
	read    store.Pos // how far the main timeline is read
	threads map[store.EventNID]store.Pos
}

func (r *Rooms) judge(ctx context.Context, user Sender) (*judge, error) {
	ignored, err := r.Ignored(ctx, user.NID)
	if err != nil {
		return nil, err
	}
	j := &judge{r: r, user: user, program: r.book.base, ignored: ignored, places: map[store.RoomNID]*place{}}
	own, err := r.rulesOf(ctx, []store.UserNID{user.NID})
	if len(own) > 0 {
		j.program = own[0].program
	}
	return j, err
}

// look says what an event does for the user, who is in its room; nil if nothing, or if the user may not see it.
func (j *judge) look(ctx context.Context, row *store.EventRow) (*Notice, error) {
	if j.ignored[row.Event.Sender()] {
		return nil, nil
	}
	p, err := j.place(ctx, row.Room)
	if err != nil || p == nil {
		return nil, err
	}
	actions, err := j.actions(ctx, p, row)
	if err != nil || !actions.Notify {
		return nil, err
	}
	if ok, err := p.see.May(ctx, row); err != nil || !ok {
		return nil, err
	}
	read := row.Pos <= p.read
	if row.Thread != 0 {
		upTo, unread := p.threads[row.Thread]
		read = !unread || row.Pos <= upTo
	}
	return &Notice{Ref: p.ref, Row: row, Pos: row.Pos, Actions: actions, Read: read}, nil
}

// place reads what is asked of a room again and again.
func (j *judge) place(ctx context.Context, room store.RoomNID) (*place, error) {
	if p, ok := j.places[room]; ok {
		return p, nil
	}
	ref, err := j.r.LookupNID(ctx, room)
	if err != nil {
		return nil, err
	}
	viewer, err := j.r.Viewer(ctx, room, j.user)
	if err != nil {
		return nil, err
	}
	if viewer.Member == nil || viewer.Member.Membership != store.Join { // it has left since
		j.places[room] = nil
		return nil, nil
	}
	p := &place{ref: ref, see: j.r.VisibleTo(ref, viewer), levels: map[store.State]*authrules.Levels{}, threads: map[store.EventNID]store.Pos{}}
	bound, err := j.r.db.StreamBound(ctx)
	if err != nil {
		return nil, err
	}
	err = j.r.db.Read(ctx, func(tx *store.Tx) error {
		counts, err := tx.MemberCounts(room)
		if err != nil {
			return err
		}
		p.members = counts[store.Join]
		main, every, err := tx.ReadMark(room, j.user.NID, viewer.Member.Joined, bound)
		if err != nil {
			return err
		}
		p.read = main
		return tx.UnreadThreads(room, j.user.NID, every, bound, func(t store.ThreadMark) { p.threads[t.Thread] = t.ReadUpTo })
	})
	j.places[room] = p
	return p, err
}

// actions evaluates the user's rules.
func (j *judge) actions(ctx context.Context, p *place, row *store.EventRow) (pushrules.Actions, error) {
	var failed error
	sender := row.Event.Sender()
	e := &pushrules.Event{
		Get: rulesView(row.Event), RoomID: string(p.ref.ID), Sender: string(sender), Members: p.members,
		MayNotify: func(key string) bool {
			levels, err := j.levels(ctx, p, row.StateBefore())
			if err != nil {
				failed = err
				return false
			}
			return levels.UserLevel(sender) >= levels.Notification(key)
		},
	}
	who := pushrules.Person{UserID: string(j.user.ID)}
	if j.program.Personal() {
		member, err := j.r.StateEvent(ctx, row.Room, row.StateAfter(), "m.room.member", who.UserID)
		if err != nil {
			return pushrules.Actions{}, err
		}
		if member != nil {
			who.DisplayName, _ = matrix.GetString(member.Event.Content(), "displayname")
		}
	}
	return j.program.Evaluate(e, who), failed
}

func (j *judge) levels(ctx context.Context, p *place, state store.State) (*authrules.Levels, error) {
	if levels, ok := p.levels[state]; ok {
		return levels, nil
	}
	levels, err := j.r.levelsAt(ctx, p.ref, state)
	p.levels[state] = &levels
	return &levels, err
}

// invitation says what a pending invitation does for the user; nil if nothing.
func (j *judge) invitation(ctx context.Context, m store.MemberRow) (*Notice, error) {
	blocks, err := j.r.BlocksInvites(ctx, j.user.NID)
	if err != nil || blocks {
		return nil, err
	}
	ref, err := j.r.LookupNID(ctx, m.Room)
	if err != nil {
		return nil, err
	}
	rows, err := j.r.eventsByNID(ctx, m.Room, []store.EventNID{m.Event})
	if err != nil || len(rows) == 0 || rows[0] == nil || j.ignored[rows[0].Event.Sender()] {
		return nil, err
	}
	p := &place{ref: ref, members: 2, levels: map[store.State]*authrules.Levels{}}
	actions, err := j.actions(ctx, p, rows[0])
	if err != nil || !actions.Notify {
		return nil, err
	}
	return &Notice{Ref: ref, Row: rows[0], Pos: m.Pos, Actions: actions, Invited: &m}, nil
}
