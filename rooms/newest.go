package rooms

import (
	"context"

	"conclave/internal/store"
)

// Newest reads the newest events of several rooms up to a position, the newest first: of each as many as a page of so many
// events reads at first (PageRequest.Newest). Events that are in memory are not read again. Rooms without events are left out.
func (r *Rooms) Newest(ctx context.Context, rooms []store.RoomNID, upTo store.Pos, limit int) (map[store.RoomNID][]*store.EventRow, error) {
	marks := map[store.RoomNID][]store.EventMark{}
	since := r.cache.events.reading()
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		clear(marks)
		return tx.NewestOf(rooms, upTo, firstRows(limit), func(room store.RoomNID, list []store.EventMark) { marks[room] = list })
	})
	if err != nil {
		return nil, err
	}
	known := map[store.EventNID]*store.EventRow{}
	var missing []store.EventNID
	for _, list := range marks {
		for _, m := range list {
			if row, ok := r.cache.events.get(m.NID); ok && m.Of(row) {
				known[m.NID] = row
			} else {
				missing = append(missing, m.NID)
			}
		}
	}
	if len(missing) > 0 {
		var read []*store.EventRow
		err = r.db.Read(ctx, func(tx *store.Tx) error {
			read = nil
			return tx.EventsOf(rooms, missing, func(row *store.EventRow) { read = append(read, row) })
		})
		if err != nil {
			return nil, err
		}
		r.cache.events.fill(since, read...)
		for _, row := range read {
			known[row.NID] = row
		}
	}
	newest := make(map[store.RoomNID][]*store.EventRow, len(marks))
	for room, list := range marks {
		rows := make([]*store.EventRow, 0, len(list))
		for _, m := range list {
			if row := known[m.NID]; row != nil { // one that cannot be read is left out, as from every timeline
				rows = append(rows, row)
			}
		}
		newest[room] = rows
	}
	return newest, nil
}

// LookupMany is LookupNID for several rooms, with a few questions for those that are not known yet.
func (r *Rooms) LookupMany(ctx context.Context, nids []store.RoomNID) (map[store.RoomNID]Ref, error) {
	refs := make(map[store.RoomNID]Ref, len(nids))
	var missing []store.RoomNID
	for _, nid := range nids {
		if ref, ok := r.cache.byNID.GetIfPresent(nid); ok {
			refs[nid] = ref
		} else {
			missing = append(missing, nid)
		}
	}
	if len(missing) == 0 {
		return refs, nil
	}
	certain := map[store.RoomNID]bool{}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		clear(certain)
		err := tx.RoomsByNID(missing, func(i store.RoomInfo) { refs[i.NID] = Ref{NID: i.NID, ID: i.ID, Version: i.Version} })
		if err != nil {
			return err
		}
		return tx.WithPresent(missing, func(nid store.RoomNID) { certain[nid] = true })
	})
	if err != nil {
		return nil, err
	}
	for _, nid := range missing {
		ref, ok := refs[nid]
		if !ok {
			return nil, corrupt("room %d has no row", nid)
		}
		if certain[nid] {
			r.cache.byNID.Set(nid, ref)
		}
	}
	return refs, nil
}
