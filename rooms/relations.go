package rooms

import (
	"context"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// maxOwnAnnotations bounds how many of a user's annotations of one event are compared with a new one.
const maxOwnAnnotations = 200

// mayRelate refuses an event of ours that repeats an annotation of its sender (M_DUPLICATE_ANNOTATION) or that would begin a
// thread at an event which itself relates to one (client-server API, "Avoiding duplicate annotations" and "Validation of
// m.thread relationships"). What comes from other servers is taken as it is.
func (d *draft) mayRelate(ctx context.Context, e *entry, ev *matrix.Event) error {
	relType, target, ok := relation(ev)
	if !ok {
		return nil
	}
	switch relType {
	case "m.thread":
		root, err := d.known(ctx, target)
		if err != nil || root == nil {
			return err
		}
		if _, _, related := relation(root.Event); related {
			return matrix.Errorf(400, "M_UNKNOWN", "A thread begins at an event that relates to no other.")
		}
	case "m.annotation":
		return d.mayAnnotate(ctx, e, ev, target)
	}
	return nil
}

// mayAnnotate refuses an annotation that its sender has made already.
func (d *draft) mayAnnotate(ctx context.Context, e *entry, ev *matrix.Event, target matrix.EventID) error {
	key, ok := matrix.GetString(ev.Content(), "m.relates_to", "key")
	if !ok {
		return nil
	}
	same := func(row *store.EventRow) bool {
		had, ok := matrix.GetString(row.Event.Content(), "m.relates_to", "key")
		return ok && had == key
	}
	double := slices.ContainsFunc(d.out.Events, func(row *store.EventRow) bool {
		relType, id, ok := relation(row.Event)
		return ok && relType == "m.annotation" && id == target && row.Sender == e.sender && row.Event.Type() == ev.Type() && same(row)
	})
	answered := false
	err := d.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		if e.txn != (store.TxnKey{}) { // the same request again is answered as before: that is found out on writing
			if _, answered, err = tx.TxnAnswer(e.txn); err != nil {
				return err
			}
		}
		return tx.Annotations(d.ref.NID, target, e.sender, ev.Type(), maxOwnAnnotations, func(row *store.EventRow) {
			double = double || same(row)
		})
	})
	if err == nil && double && !answered {
		err = matrix.Errorf(400, "M_DUPLICATE_ANNOTATION", "You have annotated this event with that already.")
	}
	return err
}

// RelatedRequest asks for events that relate to one.
type RelatedRequest struct {
	Ref       Ref
	Reader    Reader
	Event     matrix.EventID
	RelType   string // "" for any
	EventType string // "" for any
	Recurse   bool   // also those that relate to them, and so on
	From      Place
	To        *Place // where to end, nil for the end in that direction
	Backward  bool
	Limit     int
}

// RecursionDepth is how many relations may lie between an event and those that are found to relate to it.
const RecursionDepth = 4

// Related reads events that relate to one which the reader may see (M_NOT_FOUND), as far as the reader may see them and
// does not ignore their senders.
func (r *Rooms) Related(ctx context.Context, q RelatedRequest) (*Page, error) {
	if _, err := r.Visible(ctx, q.Ref, q.Reader.Viewer, q.Event); err != nil {
		return nil, err
	}
	depth := 1
	if q.Recurse {
		depth = RecursionDepth
	}
	read := func(ctx context.Context, lo, hi store.Place, limit int) (rows []*store.EventRow, err error) {
		err = r.db.Read(ctx, func(tx *store.Tx) error {
			rows, err = tx.Related(store.RelatedQuery{
				Room: q.Ref.NID, Target: q.Event, RelType: q.RelType, EventType: q.EventType, Depth: depth,
				Lo: lo, Hi: hi, Backward: q.Backward, Limit: limit,
			})
			return err
		})
		return rows, err
	}
	return r.page(ctx, PageRequest{
		Ref: q.Ref, Viewer: q.Reader.Viewer, From: q.From, To: q.To, Backward: q.Backward, Limit: q.Limit, Keep: q.Reader.Heeding(nil),
	}, read)
}

// ThreadsRequest asks for the threads of a room.
type ThreadsRequest struct {
	Ref          Ref
	Reader       Reader
	Participated bool   // only those that the reader took part in
	UpTo         *Place // where the reader's view ends, nil for somebody in the room
	From         Place  // where the newest event of the thread stands that was read last
	Limit        int
}

// threadTries bounds how often more threads are read to fill a page with visible ones.
const threadTries = 5

// Threads reads the roots of a room's threads that the reader may see, the thread with the newest event first. The page's End
// is where the newest event of its last thread stands.
func (r *Rooms) Threads(ctx context.Context, q ThreadsRequest) (*Page, error) {
	sees := r.VisibleTo(q.Ref, q.Reader.Viewer)
	page := &Page{End: q.From}
	query := store.ThreadQuery{
		Room: q.Ref.NID, Reader: q.Reader.NID, Own: q.Participated, Without: q.Reader.Ignored, UpTo: Newest.Pos, Limit: q.Limit + 1,
	}
	if q.UpTo != nil {
		query.UpTo = q.UpTo.Pos
	}
	for range threadTries {
		query.Before = store.Place{Pos: page.End.Pos, Sub: page.End.Sub}
		var found []store.ThreadRoot
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			found = nil
			return tx.Threads(query, func(t store.ThreadRoot) { found = append(found, t) })
		})
		if err != nil {
			return nil, err
		}
		nids := make([]store.EventNID, len(found))
		for i, t := range found {
			nids[i] = t.Root
		}
		rows, err := r.readable(ctx, q.Ref.NID, nids)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			if len(page.Events) == q.Limit {
				return page, nil
			}
			page.End = Place(t.Newest)
			root, err := r.root(ctx, sees, rows[t.Root])
			if err != nil {
				return nil, err
			}
			if root != nil {
				page.Events = append(page.Events, root)
			}
		}
		if len(found) <= q.Limit {
			page.Done = true
			break
		}
	}
	return page, nil
}

// root is an event at which a thread can begin, as it may be seen; nil if it may not. State events show no threads.
func (r *Rooms) root(ctx context.Context, sees *Visibility, row *store.EventRow) (*store.EventRow, error) {
	if row == nil || row.Event.IsState() {
		return nil, nil
	}
	if _, _, related := relation(row.Event); related {
		return nil, nil
	}
	return sees.Shown(ctx, row)
}
