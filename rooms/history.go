package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Place is a point between two events of a room: just after the event at (Pos, Sub). Places order as the room's
// timeline does: history before the event that it was fetched for.
type Place struct {
	Pos store.Pos
	Sub int64
}

// Newest is after everything.
var Newest = Place{Pos: 1<<62 - 1}

// Before is the place just before an event.
func Before(row *store.EventRow) Place { return Place{row.Pos, row.Sub - 1} }

// After is the place just after an event.
func After(row *store.EventRow) Place { return Place{row.Pos, row.Sub} }

// Less reports whether p is before q.
func (p Place) Less(q Place) bool { return p.Pos < q.Pos || p.Pos == q.Pos && p.Sub < q.Sub }

// PageRequest asks for a piece of a room's timeline.
type PageRequest struct {
	Ref      Ref
	Viewer   Viewer
	From     Place
	To       *Place // where to end, nil for the room's end in that direction
	Backward bool
	Limit    int
	Keep     func(*store.EventRow) bool // the filter; nil keeps all

	// Newest are the rows that the page begins with, backward from From, where Newest has read them for as many events as
	// Limit. Nil: they are read.
	Newest []*store.EventRow
}

// Page is a piece of a timeline in the order of reading.
type Page struct {
	Events []*store.EventRow
	End    Place // where to read on
	Done   bool  // there is nothing behind End
}

// pageRows bounds the work of one page: how many rows may be read to find the wanted ones (threats, history 5).
const pageRows = 2000

// readRows reads rows after lo and up to hi, in the order of the page.
type readRows func(ctx context.Context, lo, hi store.Place, limit int) ([]*store.EventRow, error)

// Page reads events that the viewer may see. Events that are hidden or filtered out cost rows of the budget; when it
// is spent the page ends early, with a token to go on from.
func (r *Rooms) Page(ctx context.Context, q PageRequest) (*Page, error) {
	newest := q.Newest
	return r.page(ctx, q, func(ctx context.Context, lo, hi store.Place, limit int) (rows []*store.EventRow, err error) {
		if newest != nil {
			rows, newest = after(lo, newest), nil
			return rows, nil
		}
		err = r.db.Read(ctx, func(tx *store.Tx) error {
			rows, err = tx.Timeline(q.Ref.NID, lo, hi, q.Backward, limit)
			return err
		})
		return rows, err
	})
}

// after are those of some rows, the newest first, that stand after a place.
func after(lo store.Place, rows []*store.EventRow) []*store.EventRow {
	for i, row := range rows {
		if !Place(lo).Less(Place{row.Pos, row.Sub}) {
			return rows[:i]
		}
	}
	return rows
}

// firstRows is how many rows a page reads first that is to have so many events.
func firstRows(events int) int { return min(max(events, 20), 200) }

// page is Page for what read finds.
func (r *Rooms) page(ctx context.Context, q PageRequest, read readRows) (*Page, error) {
	sees := r.VisibleTo(q.Ref, q.Viewer)
	page := &Page{End: q.From}
	for seen := 0; len(page.Events) < q.Limit && seen < pageRows; {
		batch := firstRows(q.Limit - len(page.Events))
		lo, hi := q.stretch(page.End)
		rows, err := read(ctx, lo, hi, batch)
		if err != nil {
			return nil, err
		}
		seen += len(rows)
		for _, row := range rows {
			if len(page.Events) == q.Limit {
				return page, nil
			}
			page.End = After(row)
			if q.Backward {
				page.End = Before(row)
			}
			if q.Keep != nil && !q.Keep(row) {
				continue
			}
			shown, err := sees.Shown(ctx, row)
			if err != nil {
				return nil, err
			}
			if shown != nil {
				page.Events = append(page.Events, shown)
			}
		}
		if len(rows) < batch {
			page.Done = true
			break
		}
	}
	return page, nil
}

// stretch is what is left to read of a page from a place on.
func (q *PageRequest) stretch(from Place) (lo, hi store.Place) {
	lo, hi = store.Place{Pos: 0}, store.Place(from)
	if !q.Backward {
		lo, hi = hi, store.Place{Pos: Newest.Pos}
	}
	if q.To == nil {
		return lo, hi
	}
	if q.Backward {
		return store.Place(*q.To), hi
	}
	return lo, store.Place(*q.To)
}

// Around reads what stands before and after an event, for /context. The event itself must be visible (M_NOT_FOUND).
func (r *Rooms) Around(ctx context.Context, ref Ref, viewer Viewer, id matrix.EventID, limit int, keep func(*store.EventRow) bool) (*store.EventRow, *Page, *Page, error) {
	row, err := r.Visible(ctx, ref, viewer, id)
	if err != nil {
		return nil, nil, nil, err
	}
	before, after, err := r.Surroundings(ctx, ref, viewer, row, limit/2, limit-limit/2, keep)
	return row, before, after, err
}

// Surroundings reads what stands before and after an event that a viewer may see, at most so many events on either side.
func (r *Rooms) Surroundings(ctx context.Context, ref Ref, viewer Viewer, row *store.EventRow, before, after int, keep func(*store.EventRow) bool) (earlier, later *Page, err error) {
	q := PageRequest{Ref: ref, Viewer: viewer, From: Before(row), Backward: true, Limit: before, Keep: keep}
	if earlier, err = r.Page(ctx, q); err != nil {
		return nil, nil, err
	}
	q.From, q.Backward, q.Limit = After(row), false, after
	later, err = r.Page(ctx, q)
	return earlier, later, err
}

// Visible finds an event that the viewer may see. One that exists but is hidden is as absent as any other.
func (r *Rooms) Visible(ctx context.Context, ref Ref, viewer Viewer, id matrix.EventID) (*store.EventRow, error) {
	row, err := r.EventInRoom(ctx, ref.NID, id)
	if err != nil {
		return nil, err
	}
	shown, err := r.VisibleTo(ref, viewer).Shown(ctx, row)
	if err == nil && shown == nil {
		err = matrix.NotFound("There is no such event in this room.")
	}
	return shown, err
}

// History is Page that first asks other servers for what is missing in the stretch that it reads.
func (r *Rooms) History(ctx context.Context, q PageRequest) (*Page, error) {
	page, err := r.Page(ctx, q)
	if err != nil || !q.Backward || r.source == nil {
		return page, err
	}
	filled, err := r.backfill(ctx, q.Ref, page.End, q.From)
	if err != nil {
		r.log.Info("history not fetched", "room", q.Ref.ID, "err", err) // what is here is an answer too
	}
	if filled {
		if page, err = r.Page(ctx, q); err != nil {
			return nil, err
		}
	}
	if page.Done && len(page.Events) > 0 {
		gap, _, err := r.newestGap(ctx, q.Ref, page.End, q.From)
		if err != nil {
			return nil, err
		}
		page.Done = gap == nil // there is more, which may be had later
	}
	return page, nil
}

// newestGap finds the latest gap in a stretch of a timeline. History stands before the event that it is missing before,
// and a client that has read that event comes with a place just before it: such a gap counts.
func (r *Rooms) newestGap(ctx context.Context, ref Ref, lo, hi Place) (row *store.EventRow, missing []matrix.EventID, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, missing, err = tx.NewestGap(ref.NID, store.Place{Pos: lo.Pos, Sub: lo.Sub}, store.Place{Pos: hi.Pos, Sub: hi.Sub + 1})
		return err
	})
	return row, missing, err
}
