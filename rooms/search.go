package rooms

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of one search.
const (
	maxSearchRooms = 1000 // those that something last happened to the searcher in
	searchScan     = 1000 // matches looked at for one page: those that the searcher may not see cost too
	searchBatch    = 100
	searchTime     = 8 * time.Second
)

// SearchRoom is a room that somebody may search, as they were or are in it.
type SearchRoom struct {
	Ref    Ref
	Viewer Viewer
}

// SearchRooms are the rooms that a user is in or has been in, and has not forgotten.
func (r *Rooms) SearchRooms(ctx context.Context, user Sender) (map[store.RoomNID]SearchRoom, error) {
	var in []store.MemberRow
	out := map[store.RoomNID]SearchRoom{}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		in = nil
		clear(out)
		err := tx.MembershipsOf(user.NID, func(m store.MemberRow) {
			if m.Joined != 0 && !m.Forgotten {
				in = append(in, m)
			}
		})
		if err != nil {
			return err
		}
		slices.SortFunc(in, func(a, b store.MemberRow) int { return int(b.Pos - a.Pos) })
		in = in[:min(len(in), maxSearchRooms)]
		nids := make([]store.RoomNID, len(in))
		members := make(map[store.RoomNID]*store.MemberRow, len(in))
		for i := range in {
			nids[i], members[in[i].Room] = in[i].Room, &in[i]
		}
		return tx.RoomsByNID(nids, func(i store.RoomInfo) {
			out[i.NID] = SearchRoom{Ref{NID: i.NID, ID: i.ID, Version: i.Version}, Viewer{ID: user.ID, Member: members[i.NID]}}
		})
	})
	return out, err
}

// SearchRequest asks for events by words.
type SearchRequest struct {
	Words   []string // as SearchWords made them
	Rooms   map[store.RoomNID]SearchRoom
	Kinds   []store.DocumentKind
	Senders []store.UserNID // nil: anybody
	Recent  bool            // the newest first, else those that fit best
	After   *store.SearchPlace
	Keep    func(*store.EventRow) bool // nil keeps all
	Heed    func(*store.EventRow) bool // likewise, of what stands around a hit
	Limit   int
}

// Found is an event that was found.
type Found struct {
	Room SearchRoom
	Row  *store.EventRow
	At   store.SearchPlace
}

// SearchPage is a part of what was found. More is where to go on, nil if nothing is left. Count is of those hits that the
// searcher may see, as far as was looked.
type SearchPage struct {
	Hits  []Found
	More  *store.SearchPlace
	Count int
}

// Search finds events that have all of some words and that the searcher may see, also as they were edited.
func (r *Rooms) Search(ctx context.Context, q SearchRequest) (*SearchPage, error) {
	inTime, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	page, err := r.search(inTime, q)
	if err != nil && ctx.Err() == nil && (inTime.Err() != nil || errors.Is(err, context.DeadlineExceeded)) {
		err = matrix.Errorf(http.StatusServiceUnavailable, "M_UNKNOWN", "This search takes too long. Narrow it down to fewer rooms, or rarer words.").With(err)
	}
	return page, err
}

func (r *Rooms) search(ctx context.Context, q SearchRequest) (*SearchPage, error) {
	page := &SearchPage{}
	query := store.SearchQuery{Words: q.Words, Kinds: q.Kinds, Senders: q.Senders, Recent: q.Recent, After: q.After, Limit: searchBatch}
	sees := map[store.RoomNID]*Visibility{}
	for nid, room := range q.Rooms {
		query.Rooms = append(query.Rooms, nid)
		sees[nid] = r.VisibleTo(room.Ref, room.Viewer)
	}
	if len(q.Words) == 0 || len(query.Rooms) == 0 {
		return page, nil
	}
	var last *store.SearchPlace
	for scanned := 0; scanned < searchScan; scanned += searchBatch {
		var hits []store.Hit
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			hits = nil
			return tx.Search(query, func(h store.Hit) { hits = append(hits, h) })
		})
		if err != nil {
			return nil, err
		}
		found, err := r.visibleHits(ctx, q, hits, sees)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			page.Count++
			if len(page.Hits) < q.Limit {
				page.Hits = append(page.Hits, f)
				last = &page.Hits[len(page.Hits)-1].At
			} else if page.More == nil {
				page.More = last
			}
		}
		if len(hits) < searchBatch {
			return page, nil
		}
		query.After = &hits[len(hits)-1].At
	}
	if page.More == nil { // not all was looked at
		page.More = query.After
	}
	return page, nil
}

// visibleHits are those hits that the searcher may see, and whose words are of a text that the searcher may see.
func (r *Rooms) visibleHits(ctx context.Context, q SearchRequest, hits []store.Hit, sees map[store.RoomNID]*Visibility) ([]Found, error) {
	nids := map[store.RoomNID][]store.EventNID{}
	for _, h := range hits {
		nids[h.Room] = append(nids[h.Room], h.Event)
		if h.Source != h.Event {
			nids[h.Room] = append(nids[h.Room], h.Source)
		}
	}
	rows := map[store.EventNID]*store.EventRow{}
	err := r.db.Read(ctx, func(tx *store.Tx) error { // as they are now: what was redacted is found no more
		for room, list := range nids {
			if err := tx.EventsByNID(room, list, func(row *store.EventRow) { rows[row.NID] = row }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, h := range hits {
		row, source := rows[h.Event], rows[h.Source]
		if row == nil || source == nil || (row.Flags | source.Flags).Has(store.FlagRedacted) || q.Keep != nil && !q.Keep(row) {
			continue
		}
		shown, err := sees[h.Room].Shown(ctx, row)
		ok := shown == row
		if ok && err == nil && source != row {
			shown, err = sees[h.Room].Shown(ctx, source)
			ok = shown == source
		}
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, Found{q.Rooms[h.Room], row, h.At})
		}
	}
	return found, nil
}

// ViewedState is a room's state as a viewer who was in it has it: now, or as it was when the viewer left.
func (r *Rooms) ViewedState(ctx context.Context, room store.RoomNID, viewer Viewer) (store.State, error) {
	if m := viewer.Member; m != nil && m.Membership != store.Join && m.Departed != 0 {
		return r.StateAt(ctx, room, m.Departed)
	}
	return r.CurrentState(ctx, room)
}
