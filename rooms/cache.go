package rooms

import (
	"context"
	"sync"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// caches hold what never changes once written, bounded by bytes: events by number, tree nodes by name, room numbers.
type caches struct {
	refs   *otter.Cache[matrix.RoomID, Ref]
	byNID  *otter.Cache[store.RoomNID, Ref]
	users  *otter.Cache[matrix.UserID, store.User]
	events *eventCache
	nodes  *otter.Cache[nodeKey, []byte]
	acls   *otter.Cache[store.EventNID, *accessList]
}

type nodeKey struct {
	room store.RoomNID
	name statetree.Name
}

func newCaches() *caches {
	return &caches{
		refs:   otter.Must(&otter.Options[matrix.RoomID, Ref]{MaximumSize: 20_000}),
		byNID:  otter.Must(&otter.Options[store.RoomNID, Ref]{MaximumSize: 20_000}),
		acls:   otter.Must(&otter.Options[store.EventNID, *accessList]{MaximumSize: 1000}),
		users:  otter.Must(&otter.Options[matrix.UserID, store.User]{MaximumSize: 50_000}),
		events: newEventCache(),
		nodes: otter.Must(&otter.Options[nodeKey, []byte]{
			MaximumWeight: 24 << 20,
			Weigher:       func(_ nodeKey, data []byte) uint32 { return uint32(len(data)) + 120 },
		}),
	}
}

// eventCache holds events by number. Their rows change in two ways: a redaction takes the text away, and what was held as
// evidence finds its place. Whoever read a row before such a change was committed must not bring it in afterwards, where
// it would stay: so every reader says since when it has been reading, and comes too late if anything changed meanwhile.
type eventCache struct {
	rows *otter.Cache[store.EventNID, *store.EventRow]

	mu      sync.RWMutex
	changes uint64 // how often rows have changed; guarded by mu
}

func newEventCache() *eventCache {
	return &eventCache{rows: otter.Must(&otter.Options[store.EventNID, *store.EventRow]{
		MaximumWeight: 48 << 20,
		Weigher: func(_ store.EventNID, e *store.EventRow) uint32 {
			return uint32(e.Event.Size()) + 700 // row, header and map entry, measured
		},
	})}
}

func (c *eventCache) get(nid store.EventNID) (*store.EventRow, bool) { return c.rows.GetIfPresent(nid) }

// reading is to be asked before rows are read or written that fill is to be given.
func (c *eventCache) reading() (since uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changes
}

// fill brings rows in, unless some row has changed since they began to be read.
func (c *eventCache) fill(since uint64, rows ...*store.EventRow) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.changes != since {
		return
	}
	for _, row := range rows {
		c.rows.Set(row.NID, row)
	}
}

// changed drops rows that a transaction has changed, once it is committed.
func (c *eventCache) changed(nids ...store.EventNID) {
	if len(nids) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	for _, nid := range nids {
		c.rows.Invalidate(nid)
	}
}

// Redacted says that events were redacted, by this node or another: what is remembered of them is read again.
func (r *Rooms) Redacted(nids ...store.EventNID) { r.cache.events.changed(nids...) }

// nodeLoader reads tree nodes of one room: fresh ones first, then the cache, then the database.
type nodeLoader struct {
	r     *Rooms
	room  store.RoomNID
	fresh map[statetree.Name][]byte // made by a group that is not written yet; may be nil
}

// Nodes implements statetree.Loader.
func (l *nodeLoader) Nodes(ctx context.Context, names []statetree.Name) (map[statetree.Name][]byte, error) {
	found := make(map[statetree.Name][]byte, len(names))
	var missing []statetree.Name
	for _, name := range names {
		if data, ok := l.fresh[name]; ok {
			found[name] = data
		} else if data, ok := l.r.cache.nodes.GetIfPresent(nodeKey{l.room, name}); ok {
			found[name] = data
		} else {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	err := l.r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.StateNodes(l.room, missing, func(name statetree.Name, data []byte) {
			found[name] = data
			l.r.cache.nodes.Set(nodeKey{l.room, name}, data)
		})
	})
	return found, err
}

// eventsByNID reads events of one room by number, in the order asked, leaving out none: a missing one is an error of
// the database. It is for numbers that came out of that room's own state.
func (r *Rooms) eventsByNID(ctx context.Context, room store.RoomNID, nids []store.EventNID) ([]*store.EventRow, error) {
	rows := make([]*store.EventRow, len(nids))
	var missing []store.EventNID
	for i, nid := range nids {
		if row, ok := r.cache.events.get(nid); ok && row.Room == room {
			rows[i] = row
		} else {
			missing = append(missing, nid)
		}
	}
	if len(missing) == 0 {
		return rows, nil
	}
	since := r.cache.events.reading()
	read := make(map[store.EventNID]*store.EventRow, len(missing))
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		clear(read)
		return tx.EventsByNID(room, missing, func(row *store.EventRow) { read[row.NID] = row })
	})
	if err != nil {
		return nil, err
	}
	for i, nid := range nids {
		if rows[i] != nil {
			continue
		}
		row := read[nid]
		if row == nil {
			return nil, corrupt("event %d of room %d is not there", nid, room)
		}
		r.cache.events.fill(since, row)
		rows[i] = row
	}
	return rows, nil
}

// placedByNID is eventsByNID for events whose own states matter. What was an outlier when this node read it may have
// been given its place since, by another.
func (r *Rooms) placedByNID(ctx context.Context, room store.RoomNID, nids []store.EventNID) ([]*store.EventRow, error) {
	rows, err := r.eventsByNID(ctx, room, nids)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		if row.After != nil {
			continue
		}
		r.cache.events.changed(row.NID)
		again, err := r.eventsByNID(ctx, room, []store.EventNID{row.NID})
		if err != nil {
			return nil, err
		}
		if again[0].After == nil {
			return nil, corrupt("event %d of room %d has no state", row.NID, room)
		}
		rows[i] = again[0]
	}
	return rows, nil
}

// accessList is a room's access list with what it said about servers before: however long it is, what a room's
// moderators write there costs each server one look (threats F20).
type accessList struct {
	acl *matrix.ServerACL

	mu    sync.Mutex
	known map[matrix.ServerName]bool
}

// maxVerdicts bounds what one access list remembers; then it begins anew.
const maxVerdicts = 1000

// Allowed reports whether a server may take part.
func (l *accessList) Allowed(server matrix.ServerName) bool {
	l.mu.Lock()
	allowed, ok := l.known[server]
	l.mu.Unlock()
	if ok {
		return allowed
	}
	allowed = l.acl.Allowed(server)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= maxVerdicts {
		l.known = map[matrix.ServerName]bool{}
	}
	l.known[server] = allowed
	return allowed
}

// acl is the access list that an event of type m.room.server_acl holds, read once.
func (r *Rooms) acl(row *store.EventRow) *accessList {
	acl, ok := r.cache.acls.GetIfPresent(row.NID)
	if !ok || row.Flags.Has(store.FlagRedacted) {
		acl = &accessList{acl: matrix.ParseServerACL(row.Event.Content())}
		r.cache.acls.Set(row.NID, acl)
	}
	return acl
}
