package rooms

import (
	"context"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// What other servers may read of a room: events, state, auth chains, history. Whoever asks must have or have had a user
// in the room; an event is looked up inside it; what the server's users could not see is served redacted (threats F15).

// Bounds of the work that one question may cause, in rows read (threats F14).
const (
	maxServed     = 100     // events of one answer of backfill or getMissingEvents
	maxWalked     = 1000    // rows read for it
	maxAuthServed = 20_000  // events of one auth chain
	maxChain      = 300_000 // events of the auth chain of a whole state
	stateChunk    = 500     // events held at a time while a state is written out
)

// Serving is a room opened for the questions of one server.
type Serving struct {
	r    *Rooms
	ref  Ref
	sees *Visibility
}

// Serve opens a room for a server that is or was in it and that its access list admits.
func (r *Rooms) Serve(ctx context.Context, origin matrix.ServerName, room matrix.RoomID) (*Serving, error) {
	ref, err := r.Lookup(ctx, room)
	if err != nil {
		return nil, err
	}
	return r.serve(ctx, origin, ref)
}

func (r *Rooms) serve(ctx context.Context, origin matrix.ServerName, ref Ref) (*Serving, error) {
	if err := r.requireAllowed(ctx, ref, origin); err != nil {
		return nil, err
	}
	sees, err := r.VisibleToServer(ctx, ref, origin)
	if err != nil {
		return nil, err
	}
	return &Serving{r, ref, sees}, nil
}

// ServeEvent finds one event for a server, by an ID that comes without a room: the right to the room is checked before
// anything of the event is shown.
func (r *Rooms) ServeEvent(ctx context.Context, origin matrix.ServerName, id matrix.EventID) (*matrix.Event, error) {
	var room store.RoomNID
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		room, err = tx.RoomOfEvent(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if room == 0 {
		return nil, matrix.NotFound("There is no event %s here.", id)
	}
	ref, err := r.LookupNID(ctx, room)
	if err != nil {
		return nil, err
	}
	s, err := r.serve(ctx, origin, ref)
	if err != nil {
		return nil, err
	}
	row, err := r.EventInRoom(ctx, ref.NID, id)
	if err != nil {
		return nil, err
	}
	if row.Flags&(store.FlagRejected|store.FlagOutlier) != 0 && !(s.sees.Joined() && row.Event.IsState() && !row.Flags.Has(store.FlagRejected)) {
		return nil, matrix.NotFound("There is no event %s here.", id)
	}
	return s.shown(ctx, row)
}

// shown is an event as the server may have it: whole or redacted. State that is held as evidence only is part of auth
// chains, which every server of the room may read.
func (s *Serving) shown(ctx context.Context, row *store.EventRow) (*matrix.Event, error) {
	if row.Flags.Has(store.FlagOutlier) && row.Event.IsState() && s.sees.Joined() {
		return row.Event, nil
	}
	shown, err := s.sees.Shown(ctx, row)
	if err != nil {
		return nil, err
	}
	if shown != nil {
		return shown.Event, nil
	}
	return row.Event.Redacted()
}

// stateAt finds the state before an event that the server may ask about. A server that has left the room may ask about
// what it could see.
func (s *Serving) stateAt(ctx context.Context, id matrix.EventID) (*store.EventRow, store.State, error) {
	row, err := s.r.EventInRoom(ctx, s.ref.NID, id)
	if err != nil {
		return nil, store.State{}, err
	}
	if row.After == nil || row.Flags&(store.FlagRejected|store.FlagOutlier) != 0 {
		return nil, store.State{}, matrix.NotFound("The state at that event is not known here.")
	}
	if !s.sees.Joined() {
		ok, err := s.sees.May(ctx, row)
		if err != nil {
			return nil, store.State{}, err
		}
		if !ok {
			return nil, store.State{}, matrix.Forbidden("Your server is not in the room.")
		}
	}
	return row, row.StateBefore(), nil
}

// StateIDs are the events of the state before an event, and of their auth chain.
func (s *Serving) StateIDs(ctx context.Context, id matrix.EventID) (state, chain []matrix.EventID, err error) {
	err = s.State(ctx, id, func(ev *matrix.Event) error {
		state = append(state, ev.ID())
		return nil
	}, func(ev *matrix.Event) error {
		chain = append(chain, ev.ID())
		return nil
	})
	return state, chain, err
}

// State hands out the events of the state before an event, then those of its auth chain.
func (s *Serving) State(ctx context.Context, id matrix.EventID, state, chain func(*matrix.Event) error) error {
	_, before, err := s.stateAt(ctx, id)
	if err != nil {
		return err
	}
	var roots []matrix.EventID
	err = s.r.eachState(ctx, s.ref, before, true, func(row *store.EventRow) error {
		roots = append(roots, row.Event.AuthEvents()...)
		return state(row.Event)
	})
	if err != nil {
		return err
	}
	return s.r.eachOfChain(ctx, s.ref, roots, nil, maxChain, chain)
}

// AuthChain hands out the auth chain of an event.
func (s *Serving) AuthChain(ctx context.Context, id matrix.EventID, each func(*matrix.Event) error) error {
	row, err := s.r.EventInRoom(ctx, s.ref.NID, id)
	if err != nil {
		return err
	}
	if !s.sees.Joined() {
		return matrix.Forbidden("Your server is not in the room.")
	}
	return s.r.eachOfChain(ctx, s.ref, row.Event.AuthEvents(), nil, maxAuthServed, each)
}

// Backfill are the given events and what precedes them, nearest first, at most limit.
func (s *Serving) Backfill(ctx context.Context, from []matrix.EventID, limit int) ([]*matrix.Event, error) {
	rows, err := s.walk(ctx, from, walkLimits{events: min(limit, maxServed)})
	if err != nil {
		return nil, err
	}
	return s.shownAll(ctx, rows)
}

// Missing are the events that precede the latest ones, without those that are had already and what precedes them only,
// oldest first.
func (s *Serving) Missing(ctx context.Context, had, latest []matrix.EventID, limit int, minDepth int64) ([]*matrix.Event, error) {
	rows, err := s.walk(ctx, latest, walkLimits{events: min(limit, maxServed), had: had, beyond: true, minDepth: minDepth})
	if err != nil {
		return nil, err
	}
	slices.Reverse(rows)
	return s.shownAll(ctx, rows)
}

func (s *Serving) shownAll(ctx context.Context, rows []*store.EventRow) ([]*matrix.Event, error) {
	events := make([]*matrix.Event, 0, len(rows))
	for _, row := range rows {
		ev, err := s.shown(ctx, row)
		if err != nil {
			return nil, err
		}
		events = append(events, ev)
	}
	return events, nil
}

// walkLimits say where a walk over prev_events ends.
type walkLimits struct {
	events   int
	had      []matrix.EventID // neither these nor, by way of them, what precedes them
	beyond   bool             // the events to start from are had too
	minDepth int64
}

// walk goes back from some events of the room, breadth first.
func (s *Serving) walk(ctx context.Context, from []matrix.EventID, limits walkLimits) ([]*store.EventRow, error) {
	seen := map[matrix.EventID]bool{}
	for _, id := range limits.had {
		seen[id] = true
	}
	start := map[matrix.EventID]bool{}
	next := make([]matrix.EventID, 0, len(from))
	for _, id := range from {
		if !seen[id] {
			seen[id], start[id] = true, true
			next = append(next, id)
		}
	}
	var out []*store.EventRow
	for read := 0; len(next) > 0 && read < maxWalked; {
		level := next[:min(len(next), maxWalked-read)]
		read += len(level)
		found, err := s.r.eventsByID(ctx, s.ref, level)
		if err != nil {
			return nil, err
		}
		next = nil
		for _, id := range level {
			row := found[id]
			if row == nil || row.After == nil || row.Flags&(store.FlagRejected|store.FlagOutlier) != 0 {
				continue
			}
			if !(limits.beyond && start[id]) {
				if row.Event.Depth() < limits.minDepth {
					continue
				}
				if out = append(out, row); len(out) >= limits.events {
					return out, nil
				}
			}
			for _, prev := range row.Event.PrevEvents() {
				if !seen[prev] {
					seen[prev] = true
					next = append(next, prev)
				}
			}
		}
	}
	return out, nil
}

// eachState reads the events of a state in pieces, those of members last.
func (r *Rooms) eachState(ctx context.Context, ref Ref, state store.State, withMembers bool, each func(*store.EventRow) error) error {
	roots := []statetree.Name{state.Rest}
	if withMembers {
		roots = append(roots, state.Members)
	}
	for _, root := range roots {
		if root == (statetree.Name{}) {
			continue
		}
		var nids []store.EventNID
		err := statetree.All(ctx, root, &nodeLoader{r: r, room: ref.NID}, func(e statetree.Entry) error {
			nids = append(nids, store.EventNID(e.Event))
			return nil
		})
		if err != nil {
			return corrupt("a state of room %s cannot be read: %w", ref.ID, err)
		}
		for part := range slices.Chunk(nids, stateChunk) {
			rows, err := r.eventsByNID(ctx, ref.NID, part)
			if err != nil {
				return err
			}
			for _, row := range rows {
				if err := each(row); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// eachOfChain reads the events of an auth chain, each once: roots, what allows them, and so on. Those in without are
// passed over, but not what allows them.
func (r *Rooms) eachOfChain(ctx context.Context, ref Ref, roots []matrix.EventID, without map[matrix.EventID]bool, limit int, each func(*matrix.Event) error) error {
	seen := map[matrix.EventID]bool{}
	var next []matrix.EventID
	add := func(ids []matrix.EventID) {
		for _, id := range ids {
			if !seen[id] {
				seen[id] = true
				next = append(next, id)
			}
		}
	}
	add(roots)
	if ref.Version.RoomIDIsCreateHash() { // which no event names, and which allows all
		add([]matrix.EventID{matrix.EventID("$" + ref.ID[1:])})
	}
	for len(next) > 0 {
		if len(seen) > limit {
			return matrix.Errorf(400, "M_TOO_LARGE", "The auth chain is too long to be served.")
		}
		level := next
		next = nil
		for part := range slices.Chunk(level, stateChunk) {
			found, err := r.eventsByID(ctx, ref, part)
			if err != nil {
				return err
			}
			for _, id := range part {
				row := found[id]
				if row == nil {
					continue
				}
				add(row.Event.AuthEvents())
				if without[id] {
					continue
				}
				if err := each(row.Event); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Welcome hands out what a server gets whose user's join was accepted: the state before the join, and the auth chains of
// the join and of that state. With omitMembers most member events are left out, and from the chain what stands in the
// state (server-server API, sendJoinV2).
func (r *Rooms) Welcome(ctx context.Context, a *Accepted, omitMembers bool, state, chain func(*matrix.Event) error) error {
	roots := slices.Clone(a.Event.AuthEvents())
	told := map[matrix.EventID]bool{}
	one := func(row *store.EventRow) error {
		roots = append(roots, row.Event.AuthEvents()...)
		if omitMembers {
			told[row.Event.ID()] = true
		}
		return state(row.Event)
	}
	if err := r.eachState(ctx, a.Ref, a.State, !omitMembers, one); err != nil {
		return err
	}
	if omitMembers {
		heroes, err := r.heroesOf(ctx, a)
		if err != nil {
			return err
		}
		for _, row := range heroes {
			if err := one(row); err != nil {
				return err
			}
		}
	}
	return r.eachOfChain(ctx, a.Ref, roots, told, maxChain, chain)
}

// ServersBefore are the servers that were in a room before a join through us: without the joiner's, unless the joiner or
// others of that server were there already.
func (r *Rooms) ServersBefore(ctx context.Context, a *Accepted) ([]matrix.ServerName, error) {
	joiner := a.Event.Sender()
	before, err := r.StateEvent(ctx, a.Ref.NID, a.State, "m.room.member", string(joiner))
	if err != nil {
		return nil, err
	}
	var names []matrix.ServerName
	alone := false
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		if names, err = tx.ServersIn(a.Ref.NID); err == nil {
			alone, err = tx.AloneIn(a.Ref.NID, joiner)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if alone && (before == nil || before.Event.Membership() != "join") {
		names = slices.DeleteFunc(names, func(name matrix.ServerName) bool { return name == joiner.Server() })
	}
	return names, nil
}

// heroesOf are the member events that stand for the name of a room that has none.
func (r *Rooms) heroesOf(ctx context.Context, a *Accepted) ([]*store.EventRow, error) {
	for _, typ := range []string{"m.room.name", "m.room.canonical_alias"} {
		if row, err := r.StateEvent(ctx, a.Ref.NID, a.State, typ, ""); err != nil || row != nil {
			return nil, err
		}
	}
	joiner, err := r.User(ctx, a.Event.Sender())
	if err != nil {
		return nil, err
	}
	const named = 5 // heroes of a summary
	var heroes []matrix.UserID
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		heroes, err = tx.Heroes(a.Ref.NID, joiner.NID, named)
		return err
	})
	if err != nil {
		return nil, err
	}
	keys := make([]authrules.StateKey, 0, len(heroes))
	for _, id := range heroes {
		keys = append(keys, authrules.StateKey{Type: "m.room.member", Key: string(id)})
	}
	return r.StateEventList(ctx, a.Ref.NID, a.State, keys)
}
