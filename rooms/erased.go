package rooms

import (
	"context"
	"sync"
	"time"

	"conclave/internal/store"
)

// What a user has said who wanted to be forgotten is served redacted to users and servers that came into the room after that;
// whoever could see it before still can (client-server API, "deactivateAccount"). Only messages and the user's own member
// events are: a room's name, its rules and its permissions are the room's, whoever set them, and a redacted copy of them in
// a timeline would take them from the room for those who come later.

// erasures remembers whose content is erased, and since when. They are few.
type erasures struct {
	mu      sync.Mutex
	counted uint64    // the store's count of erasures by this process as they were read
	until   time.Time // when to look whether another node has erased somebody
	since   map[store.UserNID]store.Pos
}

// erasedElsewhere is how long another node's erasure may go unnoticed.
const erasedElsewhere = time.Second

// erasedSince says from which position on a user's content is erased; 0 if it is not.
func (r *Rooms) erasedSince(ctx context.Context, user store.UserNID) (store.Pos, error) {
	e := &r.erasures
	e.mu.Lock()
	defer e.mu.Unlock()
	now, counted := r.now(), r.db.Erasures()
	if e.since != nil && counted == e.counted && now.Before(e.until) {
		return e.since[user], nil
	}
	var since map[store.UserNID]store.Pos
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		since = e.since
		n, err := tx.CountErased()
		if err != nil || since != nil && n == len(since) {
			return err
		}
		since = make(map[store.UserNID]store.Pos, n)
		return tx.Erased(func(user store.UserNID, from store.Pos) { since[user] = from })
	})
	if err != nil {
		return 0, err
	}
	e.since, e.counted, e.until = since, counted, now.Add(erasedElsewhere)
	return since[user], nil
}

// erasable says whether an event is of those that are taken from newcomers once its sender is erased.
func erasable(row *store.EventRow) bool {
	if row.Event == nil { // its text was not read
		return !row.Flags.Has(store.FlagState)
	}
	return !row.Event.IsState() || row.Event.Type() == "m.room.member" && row.Event.StateKeyEquals(string(row.Event.Sender()))
}

// erased says whether an event that the reader may see is to be shown without its content: its sender was erased, and the
// reader neither was in the room at the event nor has been in it since before the erasure.
func (v *Visibility) erased(ctx context.Context, row *store.EventRow) (bool, error) {
	since, err := v.r.erasedSince(ctx, row.Sender)
	if err != nil || since == 0 || !erasable(row) {
		return false, err
	}
	for _, u := range v.users {
		if u.Member != nil && u.Member.Joined != 0 && u.Member.Joined <= since {
			return false, nil
		}
	}
	if row.After == nil {
		return true, nil
	}
	then, err := v.sight(ctx, row.StateAfter())
	if err != nil {
		return false, err
	}
	for _, was := range then.was {
		if was == store.Join {
			return false, nil
		}
	}
	return true, nil
}

// Shown is an event as the reader may have it: nil if not at all, a copy without content if its sender was erased before the
// reader came.
func (v *Visibility) Shown(ctx context.Context, row *store.EventRow) (*store.EventRow, error) {
	ok, err := v.May(ctx, row)
	if err != nil || !ok {
		return nil, err
	}
	return v.without(ctx, row)
}

// without is an event that the reader may see, or a copy without content.
func (v *Visibility) without(ctx context.Context, row *store.EventRow) (*store.EventRow, error) {
	gone, err := v.erased(ctx, row)
	if err != nil || !gone {
		return row, err
	}
	less := *row
	if row.Event != nil {
		if less.Event, err = row.Event.Redacted(); err != nil {
			return nil, err
		}
	}
	less.Flags |= store.FlagRedacted | store.FlagErased
	return &less, nil
}

// StateShown are events of a room's state as a viewer may have them: what erased users were called is not told to those who
// came later. The viewer may see the state.
func (r *Rooms) StateShown(ctx context.Context, ref Ref, viewer Viewer, rows []*store.EventRow) ([]*store.EventRow, error) {
	var v *Visibility
	var out []*store.EventRow
	for i, row := range rows {
		since, err := r.erasedSince(ctx, row.Sender)
		if err != nil {
			return nil, err
		}
		if since == 0 || !erasable(row) {
			continue
		}
		if v == nil {
			v, out = r.VisibleTo(ref, viewer), append(out, rows...)
		}
		if out[i], err = v.without(ctx, row); err != nil {
			return nil, err
		}
	}
	if out == nil {
		return rows, nil
	}
	return out, nil
}
