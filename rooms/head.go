package rooms

import (
	"context"
	"fmt"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// head is a room's present: what the newest row says, and the few state events that every new event is checked
// against. A head is immutable once it is shared; a draft works on its own copy.
type head struct {
	nid         store.EventNID // newest row with a position, 0 in an empty room
	extremities []extremity
	state       store.State // the current state, resolved over the extremities
	counts      store.Counts
	auth        map[authrules.StateKey]*store.EventRow // state that was looked up already; nil values: known absent
	audience    *audience                              // nil: not known
	joined      int                                    // how many people are in the room; 0: not known
}

// extremity is an event that nothing follows yet.
type extremity struct {
	nid   store.EventNID
	id    matrix.EventID
	depth int64
}

// maxExtremities is how many ends an event may join (spec: prev_events), and so how many are kept.
const maxExtremities = 20

// maxAuthCache bounds the state events kept at hand per room, nearly all of them members.
const maxAuthCache = 2048

// loadHead reads a room's present from its newest row.
func (r *Rooms) loadHead(ctx context.Context, ref Ref) (*head, error) {
	h := &head{auth: map[authrules.StateKey]*store.EventRow{}}
	var row *store.EventRow
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Head(ref.NID)
		return err
	})
	if err != nil || row == nil {
		return h, err
	}
	h.nid, h.state, h.counts = row.NID, row.CurrentState(), row.Counts
	ends := []*store.EventRow{row}
	if row.Extremities != nil {
		if ends, err = r.placedByNID(ctx, ref.NID, row.Extremities); err != nil {
			return nil, err
		}
	}
	for _, e := range ends {
		h.extremities = append(h.extremities, extremity{e.NID, e.Event.ID(), e.Event.Depth()})
	}
	return h, nil
}

// draft is a head in the making: the events of one group, prepared in order, each on top of the one before.
type draft struct {
	r    *Rooms
	ref  Ref
	head head
	out  store.Append
	rows map[store.EventNID]*store.EventRow // events of this group
	load nodeLoader

	held     map[matrix.EventID]*store.EventRow // what is held of events that are to enter; nil for one that is not
	redacted map[matrix.EventID]bool            // of these, those for which redactions are held
	heights  map[matrix.EventID]int64           // of what those that are state events rest on

	since uint64 // of the event cache
}

func (r *Rooms) newDraft(ref Ref, from *head) *draft {
	d := &draft{r: r, ref: ref, head: *from, rows: map[store.EventNID]*store.EventRow{}, since: r.cache.events.reading()}
	d.out = store.Append{Room: ref.NID, Head: from.nid}
	d.load = nodeLoader{r: r, room: ref.NID, fresh: map[statetree.Name][]byte{}}
	return d
}

// mark remembers where a unit begins, so that a refused one leaves no trace. Maps need no undoing: rows and nodes
// that nothing refers to are not written, and the auth cache is copied by setAuth.
type mark struct {
	head head
	out  store.Append
}

func (d *draft) mark() mark { return mark{d.head, d.out} }

// reset goes back to a mark. The lists have only grown since, so that those of the mark are their beginnings.
func (d *draft) reset(m mark) { d.head, d.out = m.head, m.out }

// lookup finds an event of the current state, nil if there is none.
func (d *draft) lookup(ctx context.Context, key authrules.StateKey) (*store.EventRow, error) {
	if row, known := d.head.auth[key]; known {
		return row, nil
	}
	row, err := d.r.stateEvent(ctx, d.ref.NID, d.head.state, key, &d.load, d.rows)
	if err != nil {
		return nil, err
	}
	d.setAuth(key, row, false)
	return row, nil
}

// setAuth remembers a state event. The map is shared by drafts until one of them changes what is in it: then it is
// copied, because a refused unit must leave the old one as it was.
func (d *draft) setAuth(key authrules.StateKey, row *store.EventRow, changed bool) {
	if changed || len(d.head.auth) >= maxAuthCache {
		fresh := make(map[authrules.StateKey]*store.EventRow, len(d.head.auth)+1)
		if len(d.head.auth) < maxAuthCache {
			for k, v := range d.head.auth {
				fresh[k] = v
			}
		}
		d.head.auth = fresh
	}
	d.head.auth[key] = row
}

// authState gathers the events of the current state that the rules look at for an event, as authrules.State.
func (d *draft) authState(ctx context.Context, keys []authrules.StateKey) (authrules.Map, []*store.EventRow, error) {
	state := make(authrules.Map, len(keys))
	rows := make([]*store.EventRow, 0, len(keys))
	for _, key := range keys {
		row, err := d.lookup(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		if row != nil {
			state[key] = row.Event
			rows = append(rows, row)
		}
	}
	create := authrules.StateKey{Type: "m.room.create"} // decides also where events do not name it (version 12)
	if _, has := state[create]; !has {
		row, err := d.lookup(ctx, create)
		if err != nil {
			return nil, nil, err
		}
		if row != nil {
			state[create] = row.Event
		}
	}
	return state, rows, nil
}

// parents are the events that a new event follows, and its depth.
func (d *draft) parents() (ids []matrix.EventID, depth int64) {
	ids = make([]matrix.EventID, 0, len(d.head.extremities))
	for _, e := range d.head.extremities {
		ids = append(ids, e.id)
		depth = max(depth, e.depth)
	}
	return ids, min(depth, d.ref.Version.MaxDepth()-1) + 1
}

// stateEvent looks one event up in a state. fresh holds events of a group that is not written yet.
func (r *Rooms) stateEvent(ctx context.Context, room store.RoomNID, s store.State, key authrules.StateKey,
	load *nodeLoader, fresh map[store.EventNID]*store.EventRow) (*store.EventRow, error) {
	root := s.Rest
	if key.Type == "m.room.member" {
		root = s.Members
	}
	if root == (statetree.Name{}) {
		return nil, nil
	}
	at := r.hasher.KeyOf(key.Type, key.Key)
	found, err := statetree.Get(ctx, root, []statetree.Key{at}, load)
	if err != nil {
		return nil, fmt.Errorf("looking up %s in the state of room %d: %w", key.Type, room, err)
	}
	nid := store.EventNID(found[at])
	if nid == 0 {
		return nil, nil
	}
	if row := fresh[nid]; row != nil {
		return row, nil
	}
	rows, err := r.eventsByNID(ctx, room, []store.EventNID{nid})
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// putState returns the state with some entries changed and keeps the new nodes for writing. Entries of members and of
// everything else go to their own trees.
func (d *draft) putState(ctx context.Context, s store.State, key authrules.StateKey, nid store.EventNID) (store.State, error) {
	root := &s.Rest
	if key.Type == "m.room.member" {
		root = &s.Members
	}
	change := []statetree.Entry{{Key: d.r.hasher.KeyOf(key.Type, key.Key), Event: int64(nid)}}
	name, nodes, err := statetree.Put(ctx, d.r.hasher, *root, change, &d.load)
	if err != nil {
		return s, fmt.Errorf("changing the state of room %d: %w", d.ref.NID, err)
	}
	*root = name
	for name, data := range nodes {
		d.load.fresh[name] = data
		d.out.Nodes = append(d.out.Nodes, store.Node{Name: name, Data: data})
	}
	return s, nil
}
