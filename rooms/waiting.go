package rooms

import (
	"cmp"
	"context"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of finding out what waits for somebody.
const (
	waitingPages   = 20 // of heardPage events
	waitingSenders = 3  // who are named
	waitingKnown   = 50 // who are told apart
)

// WaitingRoom is a room in which something is unread that a user was to be told of. What follows Invited is filled in only
// for as many rooms as were asked for.
type WaitingRoom struct {
	Ref     Ref
	Newest  int64 // ms: when the newest of it was sent, as its sender says
	Invited bool  // it is an invitation

	Unread  Tally    // in the whole room; of an invitation nothing
	Name    string   // or else an alias; "" if there is neither
	Senders []string // who sent it last, by name
	Others  int      // who sent some of it besides
}

// waiting is such a room while notices are gathered.
type waiting struct {
	newest Notice
	by     map[store.UserNID]Notice // the newest of each sender
}

// Waiting lists the rooms in which something is unread that a user is to be told of and that came after one position and up
// to another, those with the newest first; the first of them, as many as described, are described. reached is how far it
// looked, which is not to the end if there is very much.
func (r *Rooms) Waiting(ctx context.Context, user Sender, after, upTo store.Pos, described int) (list []WaitingRoom, reached store.Pos, err error) {
	found := map[store.RoomNID]*waiting{}
	reached = after
	for page := 0; page < waitingPages && reached < upTo; page++ {
		var notices []Notice
		if notices, reached, err = r.Notices(ctx, user, reached, upTo); err != nil {
			return nil, 0, err
		}
		for _, n := range notices {
			w := found[n.Ref.NID]
			if w == nil {
				w = &waiting{by: map[store.UserNID]Notice{}}
				found[n.Ref.NID] = w
			}
			w.newest = n
			if _, known := w.by[n.Row.Sender]; known || len(w.by) < waitingKnown {
				w.by[n.Row.Sender] = n
			}
		}
	}
	rooms := make([]*waiting, 0, len(found))
	for _, w := range found {
		rooms = append(rooms, w)
	}
	slices.SortFunc(rooms, func(a, b *waiting) int { return cmp.Compare(b.newest.Pos, a.newest.Pos) })
	ignored, err := r.Ignored(ctx, user.NID)
	if err != nil {
		return nil, 0, err
	}
	for _, w := range rooms {
		one := WaitingRoom{Ref: w.newest.Ref, Newest: w.newest.Row.Event.OriginServerTS(), Invited: w.newest.Invited != nil}
		if len(list) < described {
			if still, err := r.describeWaiting(ctx, user, w, ignored, upTo, &one); err != nil {
				return nil, 0, err
			} else if !still {
				continue
			}
		}
		list = append(list, one)
	}
	return list, reached, nil
}

// describeWaiting fills in what waits in a room; still is false if nothing does any more.
func (r *Rooms) describeWaiting(ctx context.Context, user Sender, w *waiting, ignored map[matrix.UserID]bool, upTo store.Pos, out *WaitingRoom) (still bool, err error) {
	if w.newest.Invited == nil {
		viewer, err := r.Viewer(ctx, w.newest.Ref.NID, user)
		if err != nil || viewer.Member == nil || viewer.Member.Membership != store.Join {
			return false, err
		}
		var without []matrix.UserID
		for id := range ignored {
			without = append(without, id)
		}
		unread, err := r.Unread(ctx, w.newest.Ref, *viewer.Member, without, upTo)
		if err != nil {
			return false, err
		}
		if out.Unread = unread.Total(); out.Unread.Notify == 0 {
			return false, nil
		}
	}
	last := make([]Notice, 0, len(w.by))
	for _, n := range w.by {
		last = append(last, n)
	}
	slices.SortFunc(last, func(a, b Notice) int { return cmp.Compare(b.Pos, a.Pos) })
	out.Others = max(0, len(last)-waitingSenders)
	for _, n := range last[:len(last)-out.Others] {
		names, err := r.NamesFor(ctx, n)
		if err != nil {
			return false, err
		}
		out.Name = cmp.Or(names.Room, names.Alias)
		out.Senders = append(out.Senders, cmp.Or(names.Sender, string(n.Row.Event.Sender())))
	}
	return true, nil
}
