package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// events checks the text of every event and what its row refers to.
func (v *verifier) events(ctx context.Context) error {
	var last store.EventNID
	for {
		var page []*store.RawEvent
		err := v.r.db.Read(ctx, func(tx *store.Tx) error {
			page = page[:0]
			return tx.RawEvents(last, verifyEvents, func(e *store.RawEvent) { page = append(page, e) })
		})
		if err != nil || len(page) == 0 {
			return err
		}
		roots := map[store.RoomNID]map[statetree.Name]matrix.EventID{}
		rests := map[store.RoomNID][]raised{}
		for _, e := range page {
			last = e.NID
			v.seen.Events++
			ev, what := contradiction(e)
			if what != "" {
				v.found("texts", "event %s %s", e.ID, what)
			} else if e.Height != 0 {
				rests[e.Room.NID] = append(rests[e.Room.NID], raised{ev, e.Height})
			}
			v.roots(e, roots)
			if err := v.endsOf(ctx, e); err != nil {
				return err
			}
		}
		if err := v.missingRoots(ctx, roots); err != nil {
			return err
		}
		if err := v.heights(ctx, rests); err != nil {
			return err
		}
	}
}

// raised is an event with the height that its row gives it.
type raised struct {
	event  *matrix.Event
	height int64
}

// heights checks that events stand as high on their auth events as their rows say: state resolution relies on it.
func (v *verifier) heights(ctx context.Context, rests map[store.RoomNID][]raised) error {
	for room, list := range rests {
		var auth []matrix.EventID
		for _, e := range list {
			auth = append(auth, e.event.AuthEvents()...)
		}
		known := map[matrix.EventID]int64{}
		err := v.r.db.Read(ctx, func(tx *store.Tx) error {
			return tx.Heights(room, auth, func(id matrix.EventID, h int64) { known[id] = h })
		})
		if err != nil {
			return err
		}
		for _, e := range list {
			if want := store.HeightOn(e.event.AuthEvents(), func(id matrix.EventID) int64 { return known[id] }); want != e.height {
				v.found("heights", "event %s stands %d high, not %d", e.event.ID(), want, e.height)
			}
		}
	}
	return nil
}

// contradiction says how an event's text contradicts its row or itself, "" if it does not.
func contradiction(raw *store.RawEvent) (*matrix.Event, string) {
	ev, err := matrix.ParseEvent(raw.JSON, raw.Room.Version)
	switch {
	case err != nil:
		return ev, "has a text that is no event of its room's version"
	case string(ev.JSON()) != string(raw.JSON):
		return ev, "has a text that is not canonical"
	case ev.ID() != raw.ID:
		return ev, "has the text of another event"
	case ev.RoomID() != raw.Room.ID:
		return ev, "is in another room than its text says"
	case ev.Sender() != raw.Sender:
		return ev, "has another sender than its text says"
	case ev.OriginServerTS() != raw.TS || ev.Depth() != raw.Depth || ev.IsState() != raw.Flags.Has(store.FlagState):
		return ev, "has another time, depth or kind than its text says"
	case raw.Flags.Has(store.FlagRedacted) && !ev.IsRedacted():
		return ev, "was redacted and still has its content"
	case !ev.CheckContentHash() && !ev.IsRedacted():
		return ev, "has a content that does not fit its hash"
	}
	return ev, ""
}

// roots collects the trees that an event's states name, with the event for the report.
func (v *verifier) roots(e *store.RawEvent, into map[store.RoomNID]map[statetree.Name]matrix.EventID) {
	names := into[e.Room.NID]
	if names == nil {
		names = map[statetree.Name]matrix.EventID{}
		into[e.Room.NID] = names
	}
	for _, state := range e.States {
		if state == nil {
			continue
		}
		if len(state) != 32 {
			v.found("states", "event %s has a state that is none", e.ID)
			continue
		}
		for _, half := range [][]byte{state[:16], state[16:]} {
			if name := statetree.Name(half); name != (statetree.Name{}) {
				names[name] = e.ID
			}
		}
	}
}

func (v *verifier) missingRoots(ctx context.Context, roots map[store.RoomNID]map[statetree.Name]matrix.EventID) error {
	for room, names := range roots {
		list := make([]statetree.Name, 0, len(names))
		for name := range names {
			list = append(list, name)
		}
		var missing []statetree.Name
		err := v.r.db.Read(ctx, func(tx *store.Tx) (err error) {
			missing, err = tx.MissingNodes(room, list)
			return err
		})
		if err != nil {
			return err
		}
		for _, name := range missing {
			v.found("states", "event %s names a state that is not there", names[name])
		}
	}
	return nil
}

func (v *verifier) endsOf(ctx context.Context, e *store.RawEvent) error {
	nids, ok := e.Ends()
	if !ok {
		v.found("heads", "the ends at event %s are no list of events", e.ID)
		return nil
	}
	if len(nids) == 0 {
		return nil
	}
	return v.ends(ctx, Ref{NID: e.Room.NID}, "the room at event "+string(e.ID), nids)
}

// nodes checks every node of a room's state trees: its bytes, its children, the events of its entries.
func (v *verifier) nodes(ctx context.Context, ref Ref) error {
	last := []byte{}
	for {
		children := map[statetree.Name]bool{}
		events := map[store.EventNID]bool{}
		n := 0
		err := v.r.db.Read(ctx, func(tx *store.Tx) error {
			return tx.RawNodes(ref.NID, last, verifyNodes, func(name, data []byte) {
				n++
				last = name
				v.node(ref, name, data, children, events)
			})
		})
		if err != nil || n == 0 {
			return err
		}
		v.seen.Nodes += n
		if err := v.referred(ctx, ref, children, events); err != nil {
			return err
		}
	}
}

// node checks one node and notes what it refers to.
func (v *verifier) node(ref Ref, name, data []byte, children map[statetree.Name]bool, events map[store.EventNID]bool) {
	if len(name) != len(statetree.Name{}) {
		v.found("nodes", "room %s has a node with a name of %d bytes", ref.ID, len(name))
		return
	}
	names, entries, err := v.r.hasher.CheckNode(statetree.Name(name), data)
	if err != nil {
		v.found("nodes", "room %s: %v", ref.ID, err)
		return
	}
	for _, child := range names {
		children[child] = true
	}
	for _, e := range entries {
		events[store.EventNID(e.Event)] = true
	}
}

// referred checks that what some nodes of a room refer to is in that room.
func (v *verifier) referred(ctx context.Context, ref Ref, children map[statetree.Name]bool, events map[store.EventNID]bool) error {
	names := make([]statetree.Name, 0, len(children))
	for name := range children {
		names = append(names, name)
	}
	nids := make([]store.EventNID, 0, len(events))
	for nid := range events {
		nids = append(nids, nid)
	}
	var missing []statetree.Name
	err := v.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		if missing, err = tx.MissingNodes(ref.NID, names); err != nil {
			return err
		}
		return tx.EventFlagsOf(ref.NID, nids, func(nid store.EventNID, _ store.EventFlags, _ bool) { delete(events, nid) })
	})
	if err != nil {
		return err
	}
	for _, name := range missing {
		v.found("nodes", "room %s has no node %x, which another node names", ref.ID, name)
	}
	for nid := range events {
		v.found("nodes", "a state of room %s names event %d, which is not there", ref.ID, nid)
	}
	return nil
}
