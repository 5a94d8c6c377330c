package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of the work that one event can cause (threats F14).
const (
	maxRounds   = 8    // requests for missing events
	maxGathered = 200  // events fetched by them
	maxSingle   = 5    // events fetched one by one; more come as a whole state
	maxMissing  = 5000 // state events and their auth chain that we do not hold
	maxServers  = 3    // asked
	maxRequests = 20   // of all kinds
	fillTime    = 3 * time.Minute
)

var errStillMissing = errors.New("rooms: no server has what this event follows")

// errands are what may still be asked of other servers on behalf of one event, or of one look into the past: whatever
// those who answer make up, it ends.
type errands struct {
	requests   int
	states     int  // of the requests, how often the state at an event may be asked for
	unanswered bool // somebody who may know more could not be reached, or has not heard yet that we are in the room
	patient    bool // then wait for him, rather than take the state from the word of somebody else
}

// note looks at what became of a request.
func (e *errands) note(err error) {
	e.unanswered = e.unanswered || err != nil && (!refusedUs(err) || e.patient && shutsUsOut(err))
}

var errAskedEnough = errors.New("rooms: enough was asked about this event")

// spend takes leave for a request.
func (e *errands) spend() error {
	if e.requests == 0 {
		return errAskedEnough
	}
	e.requests--
	return nil
}

// fill finds what an event lacks at other servers and takes it, with what was found, to its place. What cannot be had is
// remembered: nobody is asked again before the end of a delay, nor on behalf of a room that is paused: a gap would be
// fetched, and its signatures checked, for each event behind those that gave way in its queue (threats F13).
func (r *Rooms) fill(ctx context.Context, ref Ref, from matrix.ServerName, ev *matrix.Event) error {
	if r.source == nil {
		return errNoFederation()
	}
	if wait := r.delays.wait(ev.ID(), from, r.now()); wait > 0 {
		return &putOffError{wait, errStillMissing}
	}
	if paused := r.budgets.pause(ref.NID); paused != nil {
		return paused
	}
	inTime, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	left := &errands{requests: maxRequests, states: 1, patient: r.delays.fails(ev.ID()) < patience}
	err := r.fillNow(inTime, ref, from, ev, left)
	var paused *pausedError
	if err == nil || ctx.Err() != nil || errors.As(err, &paused) {
		return err
	}
	first := firstAsk
	if left.unanswered {
		first = firstRetry
	}
	wait := r.delays.failed(ev.ID(), first, r.now())
	r.log.Info("gap not filled", "room", ref.ID, "event", ev.ID(), "again_in", wait, "err", err)
	return &putOffError{wait, err}
}

func (r *Rooms) fillNow(ctx context.Context, ref Ref, from matrix.ServerName, ev *matrix.Event, left *errands) error {
	servers, err := r.askable(ctx, ref, from)
	if err != nil {
		return err
	}
	found, err := r.gather(ctx, ref, servers, ev, left)
	if err != nil {
		return err
	}
	for _, e := range found {
		err = r.settleGathered(ctx, ref, servers, e, left)
		if err != nil && e.ID() != ev.ID() {
			r.log.Debug("fetched event not placed", "room", ref.ID, "event", e.ID(), "err", err)
		}
		var paused *pausedError
		if errors.As(err, &paused) || ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
	return err // of the last, which is the event itself: all others are behind it
}

// askable are the servers to ask about a room, at most maxServers: the one that brought something first, if it is in the
// room, then those that have been there longest.
func (r *Rooms) askable(ctx context.Context, ref Ref, first matrix.ServerName) ([]matrix.ServerName, error) {
	all, err := r.Servers(ctx, ref.NID)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, r.own.IsOurs)
	if at := slices.Index(all, first); at > 0 {
		all = slices.Insert(slices.Delete(all, at, at+1), 0, first)
	}
	if len(all) == 0 {
		return nil, errors.New("rooms: no other server is in the room")
	}
	return all[:min(len(all), maxServers)], nil
}

// gather fetches what lies between the room's present and an event, in rounds, and returns it in order, the event last.
// What does not connect to anything held is left for backfill: it would come into the present as if it were new.
func (r *Rooms) gather(ctx context.Context, ref Ref, servers []matrix.ServerName, ev *matrix.Event, left *errands) ([]*matrix.Event, error) {
	found := map[matrix.EventID]*matrix.Event{ev.ID(): ev}
	have, err := r.endIDs(ctx, ref)
	if err != nil {
		return nil, err
	}
	at := 0
	for round := 0; round < maxRounds && at < len(servers) && len(found) <= maxGathered; round++ {
		want, err := r.unconnected(ctx, ref, found)
		if err != nil {
			return nil, err
		}
		if len(want) == 0 {
			break
		}
		if err := left.spend(); err != nil {
			break
		}
		limit := min(100, maxGathered+1-len(found))
		raws, err := r.source.MissingEvents(ctx, servers[at], ref.ID, have, want, limit)
		left.note(err)
		if err != nil {
			r.log.Debug("asking for missing events failed", "room", ref.ID, "server", servers[at], "err", err)
		}
		added, err := r.connect(ctx, ref, found, r.vet(ctx, ref, raws[:min(len(raws), limit)]))
		if err != nil {
			return nil, err
		}
		if added == 0 {
			at++ // it has nothing more to say
		}
	}
	return r.connected(ctx, ref, found, ev)
}

// connect adds events to those found that something found follows, and says how many: nobody is asked for others. The
// walk ends at events that are held: what is behind those is of another place in the timeline.
func (r *Rooms) connect(ctx context.Context, ref Ref, found map[matrix.EventID]*matrix.Event, events []*matrix.Event) (added int, err error) {
	byID := map[matrix.EventID]*matrix.Event{}
	ids := make([]matrix.EventID, len(events))
	for i, ev := range events {
		byID[ev.ID()], ids[i] = ev, ev.ID()
	}
	held, err := r.stated(ctx, ref, ids)
	if err != nil {
		return 0, err
	}
	var next []*matrix.Event
	for _, ev := range found {
		next = append(next, ev)
	}
	for len(next) > 0 {
		ev := next[len(next)-1]
		next = next[:len(next)-1]
		for _, id := range ev.PrevEvents() {
			if parent := byID[id]; parent != nil && found[id] == nil && !held[id] {
				found[id] = parent
				next = append(next, parent)
				added++
			}
		}
	}
	return added, nil
}

// stated are those of the events at which the state is known.
func (r *Rooms) stated(ctx context.Context, ref Ref, ids []matrix.EventID) (map[matrix.EventID]bool, error) {
	held := map[matrix.EventID]bool{}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.Stated(ref.NID, ids, func(id matrix.EventID) { held[id] = true })
	})
	return held, err
}

// endIDs are the room's ends.
func (r *Rooms) endIDs(ctx context.Context, ref Ref) ([]matrix.EventID, error) {
	h, err := r.loadHead(ctx, ref)
	if err != nil {
		return nil, err
	}
	ids := make([]matrix.EventID, len(h.extremities))
	for i, x := range h.extremities {
		ids[i] = x.id
	}
	return ids, nil
}

// outside are the parents of the events that are not among them.
func outside(found map[matrix.EventID]*matrix.Event) (parents []matrix.EventID) {
	for _, ev := range found {
		for _, id := range ev.PrevEvents() {
			if found[id] == nil {
				parents = append(parents, id)
			}
		}
	}
	return parents
}

// unconnected are those of the events, at most as many as an event has parents, that follow something neither found nor
// held with its state.
func (r *Rooms) unconnected(ctx context.Context, ref Ref, found map[matrix.EventID]*matrix.Event) ([]matrix.EventID, error) {
	held, err := r.stated(ctx, ref, outside(found))
	if err != nil {
		return nil, err
	}
	var want []matrix.EventID
	for _, ev := range found {
		open := func(id matrix.EventID) bool { return found[id] == nil && !held[id] }
		if slices.ContainsFunc(ev.PrevEvents(), open) && len(want) < maxExtremities {
			want = append(want, ev.ID())
		}
	}
	slices.Sort(want)
	return want, nil
}

// connected are those of the events, in order, all of whose ancestors lead to held ones, and the event itself.
func (r *Rooms) connected(ctx context.Context, ref Ref, found map[matrix.EventID]*matrix.Event, ev *matrix.Event) ([]*matrix.Event, error) {
	good, err := r.stated(ctx, ref, outside(found))
	if err != nil {
		return nil, err
	}
	all := make([]*matrix.Event, 0, len(found))
	for _, e := range found {
		all = append(all, e)
	}
	var out []*matrix.Event
	for _, e := range inOrder(all, behind) {
		lost := slices.ContainsFunc(e.PrevEvents(), func(id matrix.EventID) bool { return !good[id] })
		if e != ev && !lost {
			good[e.ID()] = true
			out = append(out, e)
		}
	}
	return append(out, ev), nil
}

// settleGathered is settle for an event of a gap: what it still lacks is asked for, as evidence.
func (r *Rooms) settleGathered(ctx context.Context, ref Ref, servers []matrix.ServerName, ev *matrix.Event, left *errands) error {
	a := &arrival{event: ev}
	err := r.settle(ctx, ref, a)
	var lacks *lacking
	if !errors.As(err, &lacks) {
		return err
	}
	if a, err = r.supply(ctx, ref, servers, ev, lacks, left); err != nil {
		return err
	}
	return r.settle(ctx, ref, a)
}

// supply asks for what an event lacks: its auth events, and the state before it where parents are not to be had.
func (r *Rooms) supply(ctx context.Context, ref Ref, servers []matrix.ServerName, ev *matrix.Event, lacks *lacking, left *errands) (*arrival, error) {
	a := &arrival{event: ev}
	if len(lacks.parents) > 0 {
		// A server that tells the state at an event may itself lack what is missing: while the ones that may have it
		// cannot be reached, as when the network is split, to believe it would let the servers' states drift apart.
		if left.states == 0 || left.unanswered && left.patient {
			return nil, errStillMissing
		}
		left.states--
	}
	err := errStillMissing
	for _, server := range servers {
		err = nil
		if len(lacks.auth) > 0 {
			err = r.fetchAuth(ctx, ref, server, ev.ID(), lacks.auth, left)
		}
		if err == nil && len(lacks.parents) > 0 {
			var before store.State
			before, err = r.stateAt(ctx, ref, server, ev.ID(), left)
			a.before, a.missing = &before, lacks.parents
		}
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return a, err
}

// fetchAuth fetches what an event lacks of its auth events: a few by themselves first, because whole auth chains are as
// long as rooms are old; where that is not enough, its auth chain.
func (r *Rooms) fetchAuth(ctx context.Context, ref Ref, server matrix.ServerName, id matrix.EventID, lacks []matrix.EventID, left *errands) error {
	create, err := r.createOf(ctx, ref)
	if err != nil {
		return err
	}
	if len(lacks) <= maxSingle {
		raws, err := r.fetchSingly(ctx, server, lacks, left)
		if err != nil && !refusedUs(err) {
			return err
		}
		if all, err := r.takeAuth(ctx, ref, create, raws, lacks); all || err != nil {
			return err
		}
	}
	if err := left.spend(); err != nil {
		return err
	}
	raws, err := r.source.EventAuth(ctx, server, ref.ID, id)
	left.note(err)
	if err != nil {
		return err
	}
	if len(raws) > maxMissing {
		return fmt.Errorf("rooms: %s answers with an auth chain of %d events", server, len(raws))
	}
	_, err = r.takeAuth(ctx, ref, create, raws, lacks)
	return err
}

// takeAuth takes in evidence and says whether all of the events that are lacking are held now.
func (r *Rooms) takeAuth(ctx context.Context, ref Ref, create matrix.EventID, raws []json.RawMessage, lacks []matrix.EventID) (all bool, err error) {
	events, err := r.vetNew(ctx, ref, raws)
	if err != nil {
		return false, err
	}
	w, err := r.weigh(ctx, ref, create, events)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(lacks, func(id matrix.EventID) bool { return w.nids[id] == 0 }), nil
}

// fetchSingly fetches events one by one.
func (r *Rooms) fetchSingly(ctx context.Context, server matrix.ServerName, ids []matrix.EventID, left *errands) (raws []json.RawMessage, err error) {
	for _, id := range ids {
		if err := left.spend(); err != nil {
			return nil, err
		}
		raw, err := r.source.Event(ctx, server, id)
		left.note(err)
		if err != nil {
			return nil, err
		}
		raws = append(raws, raw)
	}
	return raws, nil
}

// stateAt asks a server for the state before an event, fetches what we do not hold of it and builds it.
func (r *Rooms) stateAt(ctx context.Context, ref Ref, server matrix.ServerName, at matrix.EventID, left *errands) (store.State, error) {
	var none store.State
	if err := left.spend(); err != nil {
		return none, err
	}
	state, auth, err := r.source.StateIDs(ctx, server, ref.ID, at)
	left.note(err)
	if err != nil {
		return none, err
	}
	lacking := map[matrix.EventID]bool{}
	for _, id := range append(state[:len(state):len(state)], auth...) {
		lacking[id] = true
	}
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		ids := make([]matrix.EventID, 0, len(lacking))
		for id := range lacking {
			ids = append(ids, id)
		}
		return tx.Known(ref.NID, ids, func(id matrix.EventID, _ store.EventNID, _ store.EventFlags, _ bool) { delete(lacking, id) })
	})
	if err != nil {
		return none, err
	}
	if len(lacking) > maxMissing {
		return none, fmt.Errorf("rooms: the state at %s has %d events that are not held", server, len(lacking))
	}
	events, err := r.fetchEvidence(ctx, ref, server, at, lacking, left)
	if err != nil {
		return none, err
	}
	create, err := r.createOf(ctx, ref)
	if err != nil {
		return none, err
	}
	held, err := r.heldByID(ctx, ref, state)
	if err != nil {
		return none, err
	}
	w, err := r.weigh(ctx, ref, create, append(events, held...))
	if err != nil {
		return none, err
	}
	return w.state(ctx, state)
}

// heldByID reads those of the events that we hold.
func (r *Rooms) heldByID(ctx context.Context, ref Ref, ids []matrix.EventID) (events []*matrix.Event, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		events = nil
		return tx.EventsByID(ref.NID, ids, func(row *store.EventRow) { events = append(events, row.Event) })
	})
	return events, err
}

// fetchEvidence fetches events of a state: a few one by one, many with the whole of it.
func (r *Rooms) fetchEvidence(ctx context.Context, ref Ref, server matrix.ServerName, at matrix.EventID, ids map[matrix.EventID]bool, left *errands) ([]*matrix.Event, error) {
	if len(ids) <= maxSingle {
		raws, err := r.fetchSingly(ctx, server, slices.Collect(maps.Keys(ids)), left)
		return r.vet(ctx, ref, raws), err
	}
	var raws []json.RawMessage
	var events []*matrix.Event
	flush := func() {
		events = append(events, r.vet(ctx, ref, raws)...)
		raws = raws[:0]
	}
	if err := left.spend(); err != nil {
		return nil, err
	}
	wanted := len(ids)
	err := r.source.State(ctx, server, ref.ID, at, func(raw json.RawMessage) error {
		a := Admitted{Ref: ref}
		if a.parse(raw); a.Err != nil || !ids[a.ID] || wanted == 0 {
			return nil
		}
		wanted--
		if raws = append(raws, raw); len(raws) == evidenceChunk {
			flush()
		}
		return ctx.Err()
	})
	left.note(err)
	flush()
	return events, err
}
