package rooms

import (
	"context"
	"encoding/json"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Reader is who events are shown to together with what relates to them: some senders do not count for it.
type Reader struct {
	Viewer
	NID     store.UserNID
	Ignored []store.UserNID // "Ignoring Users"
}

// Heeds says whether an event is shown to the reader in a list: of users whom it ignores it gets state alone.
func (r *Reader) Heeds(row *store.EventRow) bool {
	return row.Event.IsState() || !slices.Contains(r.Ignored, row.Sender)
}

// Heeding is a filter that keeps what Heeds and another filter keep; nil keeps all.
func (r *Reader) Heeding(keep func(*store.EventRow) bool) func(*store.EventRow) bool {
	if len(r.Ignored) == 0 {
		return keep
	}
	return func(row *store.EventRow) bool { return r.Heeds(row) && (keep == nil || keep(row)) }
}

// maxIgnored bounds how many ignored users are taken notice of.
const maxIgnored = 5000

// Reader reads whom a viewer ignores.
func (r *Rooms) Reader(ctx context.Context, user store.UserNID, viewer Viewer) (Reader, error) {
	out := Reader{Viewer: viewer, NID: user}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		out.Ignored = nil
		content, err := tx.AccountData(user, 0, "m.ignored_user_list")
		if err != nil || content == "" {
			return err
		}
		var list struct {
			Users map[matrix.UserID]json.RawMessage `json:"ignored_users"`
		}
		if json.Unmarshal([]byte(content), &list) != nil {
			return nil // what is no list ignores nobody
		}
		var ids []matrix.UserID
		for id := range list.Users {
			if len(ids) < maxIgnored && id != viewer.ID && matrix.IsText(string(id)) {
				ids = append(ids, id)
			}
		}
		return tx.KnownUsers(ids, func(nid store.UserNID, _ matrix.UserID, _ bool) { out.Ignored = append(out.Ignored, nid) })
	})
	return out, err
}

// Bundle is what relates to an event, summed up for one reader (client-server API, "Aggregations of child events").
type Bundle struct {
	Edit       *store.EventRow  // the newest valid one (m.replace)
	References []matrix.EventID // m.reference, oldest first
	Thread     *Thread
}

// Thread is a thread as its root shows it (m.thread).
type Thread struct {
	Latest       *store.EventRow
	Bundle       *Bundle // of the latest event; nil for none
	Count        int
	Participated bool // the reader began it or wrote in it
}

// Bounds of what one event's bundle looks at.
const (
	maxEdits      = 5   // of one event, in case the newest are no valid ones
	maxReferences = 200 // the newest ones
)

// Bundles sums up what relates to each of some events of a room, as far as the reader may see it. Events without any are left
// out, and so are state events. It asks the database a fixed number of questions, however many events there are.
func (r *Rooms) Bundles(ctx context.Context, ref Ref, reader Reader, rows []*store.EventRow) (map[store.EventNID]*Bundle, error) {
	b := &bundling{r: r, ref: ref, reader: reader, sees: r.VisibleTo(ref, reader.Viewer)}
	bundles, err := b.bundle(ctx, rows, true)
	if err != nil {
		return nil, err
	}
	var latest []*store.EventRow
	for _, bundle := range bundles {
		if bundle.Thread != nil {
			latest = append(latest, bundle.Thread.Latest)
		}
	}
	inner, err := b.bundle(ctx, latest, false) // an event of a thread is no root of one
	if err != nil {
		return nil, err
	}
	for _, bundle := range bundles {
		if bundle.Thread != nil {
			bundle.Thread.Bundle = inner[bundle.Thread.Latest.NID]
		}
	}
	return bundles, nil
}

// bundling is the making of bundles for one reader.
type bundling struct {
	r      *Rooms
	ref    Ref
	reader Reader
	sees   *Visibility
}

// children is what the database knows of what relates to some events.
type children struct {
	edits, references map[matrix.EventID][]store.Child
	threads           map[matrix.EventID][]store.ThreadPart
}

// bundle is Bundles for one level: threads only if they are wanted.
func (b *bundling) bundle(ctx context.Context, rows []*store.EventRow, threads bool) (map[store.EventNID]*Bundle, error) {
	var parents []*store.EventRow
	var editable, roots, all []matrix.EventID
	for _, row := range rows {
		if row.Event.IsState() {
			continue
		}
		id := row.Event.ID()
		parents, all = append(parents, row), append(all, id)
		relType, _, related := relation(row.Event)
		if relType != "m.replace" && !row.Flags.Has(store.FlagRedacted) {
			editable = append(editable, id)
		}
		if threads && !related {
			roots = append(roots, id)
		}
	}
	if len(parents) == 0 {
		return nil, nil
	}
	found, err := b.read(ctx, all, editable, roots)
	if err != nil {
		return nil, err
	}
	out := map[store.EventNID]*Bundle{}
	of := func(row *store.EventRow) *Bundle {
		if out[row.NID] == nil {
			out[row.NID] = &Bundle{}
		}
		return out[row.NID]
	}
	for _, row := range parents {
		ids, err := b.references(ctx, found.references[row.Event.ID()])
		if err != nil {
			return nil, err
		}
		if len(ids) > 0 {
			of(row).References = ids
		}
	}
	edits, err := b.r.newestEdits(ctx, b.ref, b.sees, parents, found.edits)
	for _, row := range parents {
		if edit := edits[row.NID]; edit != nil {
			of(row).Edit = edit
		}
	}
	if err != nil {
		return nil, err
	}
	return out, b.threads(ctx, parents, found.threads, of)
}

// read asks the database for everything that relates to some events.
func (b *bundling) read(ctx context.Context, all, editable, roots []matrix.EventID) (*children, error) {
	var found *children
	left := store.Pos(0)
	if m := b.reader.Member; m != nil {
		left = m.Departed
	}
	err := b.r.db.Read(ctx, func(tx *store.Tx) error {
		found = &children{map[matrix.EventID][]store.Child{}, map[matrix.EventID][]store.Child{}, map[matrix.EventID][]store.ThreadPart{}}
		if err := tx.Edits(b.ref.NID, editable, maxEdits, func(c store.Child) { found.edits[c.Target] = append(found.edits[c.Target], c) }); err != nil {
			return err
		}
		err := tx.References(b.ref.NID, all, b.reader.Ignored, maxReferences, func(c store.Child) {
			found.references[c.Target] = append(found.references[c.Target], c)
		})
		if err != nil {
			return err
		}
		return tx.ThreadParts(b.ref.NID, roots, b.reader.NID, b.reader.Ignored, left, func(p store.ThreadPart) {
			found.threads[p.Newest.Target] = append(found.threads[p.Newest.Target], p)
		})
	})
	return found, err
}

// references are the IDs of those events that the reader may see.
func (b *bundling) references(ctx context.Context, list []store.Child) (ids []matrix.EventID, err error) {
	for i := range list {
		ok, err := b.sees.May(ctx, &list[i].Row)
		if err != nil {
			return nil, err
		}
		if ok {
			ids = append(ids, list[i].ID)
		}
	}
	return ids, nil
}

// threads sums up the threads that begin at some events.
func (b *bundling) threads(ctx context.Context, roots []*store.EventRow, parts map[matrix.EventID][]store.ThreadPart, of func(*store.EventRow) *Bundle) error {
	newest := map[store.EventNID]store.EventNID{} // by root
	threads := map[store.EventNID]*Thread{}
	var wanted []store.EventNID
	for _, root := range roots {
		t := &Thread{Participated: root.Sender == b.reader.NID}
		for _, part := range parts[root.Event.ID()] { // the newest first
			ok, err := b.sees.May(ctx, &part.Newest.Row)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if t.Count == 0 {
				newest[root.NID] = part.Newest.Row.NID
				wanted = append(wanted, part.Newest.Row.NID)
			}
			t.Count += part.Count
			t.Participated = t.Participated || part.Own
		}
		threads[root.NID] = t
	}
	rows, err := b.r.readable(ctx, b.ref.NID, wanted)
	if err != nil {
		return err
	}
	for _, root := range roots {
		if row := rows[newest[root.NID]]; row != nil {
			t := threads[root.NID]
			if t.Latest, err = b.sees.without(ctx, row); err != nil {
				return err
			}
			of(root).Thread = t
		}
	}
	return nil
}

// newestEdits finds the newest valid edit of each of some events among what the database found, of those that may be seen; sees
// is nil for whoever may see all.
func (r *Rooms) newestEdits(ctx context.Context, ref Ref, sees *Visibility, originals []*store.EventRow, found map[matrix.EventID][]store.Child) (map[store.EventNID]*store.EventRow, error) {
	edits := map[store.EventNID]*store.EventRow{}
	for try := range maxEdits { // one round, unless somebody's newest edits are invalid
		var wanted []store.EventNID
		for _, original := range originals {
			if list := found[original.Event.ID()]; edits[original.NID] == nil && len(list) > try {
				wanted = append(wanted, list[try].Row.NID)
			}
		}
		rows, err := r.readable(ctx, ref.NID, wanted)
		if err != nil || len(wanted) == 0 {
			return edits, err
		}
		for _, original := range originals {
			list := found[original.Event.ID()]
			if edits[original.NID] != nil || len(list) <= try {
				continue
			}
			edit := rows[list[try].Row.NID]
			if edit == nil || !validEdit(original, edit) {
				continue
			}
			ok := true
			if sees != nil {
				shown, err := sees.Shown(ctx, edit)
				if err != nil {
					return nil, err
				}
				ok = shown == edit
			}
			if ok {
				edits[original.NID] = edit
			}
		}
	}
	return edits, nil
}

// validEdit says whether an event is an edit of another that counts (client-server API, "Validity of replacement events"). Of
// what is encrypted only the reader can see whether it has new content.
func validEdit(original, edit *store.EventRow) bool {
	was, now := original.Event, edit.Event
	relType, target, ok := relation(now)
	if !ok || relType != "m.replace" || target != was.ID() || was.IsState() || was.Type() != now.Type() || was.Sender() != now.Sender() {
		return false
	}
	if original.Flags.Has(store.FlagRedacted) || edit.Flags.Has(store.FlagRedacted) {
		return false
	}
	if relType, _, ok := relation(was); ok && relType == "m.replace" {
		return false
	}
	content, ok := matrix.Get(now.Content(), "m.new_content")
	return now.Type() == "m.room.encrypted" || ok && len(content) > 0 && content[0] == '{'
}

// readable reads events of a room by number, leaving out those that cannot be read.
func (r *Rooms) readable(ctx context.Context, room store.RoomNID, nids []store.EventNID) (map[store.EventNID]*store.EventRow, error) {
	rows := make(map[store.EventNID]*store.EventRow, len(nids))
	var missing []store.EventNID
	for _, nid := range nids {
		if row, ok := r.cache.events.get(nid); ok && row.Room == room {
			rows[nid] = row
		} else {
			missing = append(missing, nid)
		}
	}
	if len(missing) == 0 {
		return rows, nil
	}
	since := r.cache.events.reading()
	var read []*store.EventRow
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		read = nil
		return tx.EventsByNID(room, missing, func(row *store.EventRow) { read = append(read, row) })
	})
	r.cache.events.fill(since, read...)
	for _, row := range read {
		rows[row.NID] = row
	}
	return rows, err
}
