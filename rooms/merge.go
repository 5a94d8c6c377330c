package rooms

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// After a split of the network servers can hold the same events and yet have different states: what one has accepted from
// its own users does not pass the present state of the others (soft failure), and they do not build on it. The next event
// of that server joins the ends of the room, and with it the states come together; in a room where nobody says anything
// that may take for ever. So a server that sees ends with different states for a while, and no event that joins them, makes
// one: without content, of a type that clients know not to show. The servers whose events the ends are take turns, so that
// they do not all do it at once.

// mergeType is the type of the events that join ends. Others use it for the same purpose, and clients hide it.
const mergeType = "org.matrix.dummy_event"

const (
	mergeCalm   = 2 * time.Second // in which the ends do not change
	mergeTurn   = 2 * time.Second // for each server that goes first
	mergePause  = 2 * time.Second // between two in one room, doubling with each of them
	mergeLast   = 10 * time.Minute
	mergeForget = time.Hour // without any: then a room begins anew
	maxForked   = 10_000    // rooms that are watched
)

// merges are the rooms with several ends.
type merges struct {
	mu     sync.Mutex
	on     bool
	rooms  map[store.RoomNID]*forked
	change chan struct{} // something is due earlier, perhaps

	calm, turn time.Duration // mergeCalm and mergeTurn, except in tests
}

// forked is a room with several ends.
type forked struct {
	ref    Ref
	ends   []store.EventNID // ascending; nil once they are one
	at     time.Time        // when to look; zero: nothing is to be done
	ranked bool             // it is our turn at that time

	merged time.Time // when an event of ours joined ends last,
	times  int       // and how often lately
}

func newMerges() *merges {
	return &merges{rooms: map[store.RoomNID]*forked{}, change: make(chan struct{}, 1), calm: mergeCalm, turn: mergeTurn}
}

// note sees which ends a room has now.
func (m *merges) note(ref Ref, extremities []extremity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.rooms[ref.NID]
	if !m.on || f == nil && (len(extremities) < 2 || len(m.rooms) >= maxForked) {
		return
	}
	ends := make([]store.EventNID, len(extremities))
	for i, x := range extremities {
		ends[i] = x.nid
	}
	slices.Sort(ends)
	if f == nil {
		f = &forked{ref: ref}
		m.rooms[ref.NID] = f
	}
	if slices.Equal(f.ends, ends) {
		return
	}
	f.ends, f.ranked, f.at = ends, false, time.Time{}
	if len(ends) > 1 {
		f.at = time.Now().Add(m.calm)
		select {
		case m.change <- struct{}{}:
		default:
		}
	}
}

// due takes out a room that is to be looked at, or says how long there is none.
func (m *merges) due(now time.Time) (f *forked, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wait = mergeForget
	for nid, other := range m.rooms {
		switch {
		case other.at.IsZero():
			if now.Sub(other.merged) > mergeForget {
				delete(m.rooms, nid)
			}
		case !other.at.After(now):
			other.at = time.Time{}
			copied := *other
			return &copied, 0
		default:
			wait = min(wait, other.at.Sub(now))
		}
	}
	return nil, wait
}

// later has a room looked at again, unless its ends have changed. change is called with m.mu held.
func (m *merges) later(f *forked, at time.Time, change func(*forked)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.rooms[f.ref.NID]; now != nil && slices.Equal(now.ends, f.ends) {
		now.at = at
		change(now)
	}
}

// RunMerges joins ends of rooms that nobody else joins. It ends with ctx.
func (r *Rooms) RunMerges(ctx context.Context) error {
	m := r.merges
	m.mu.Lock()
	m.on = true
	m.mu.Unlock()
	for {
		f, wait := m.due(time.Now())
		if f != nil {
			if err := r.merge(ctx, f); err != nil && ctx.Err() == nil {
				r.log.Warn("the ends of a room were not joined", "room", f.ref.ID, "err", err)
			}
			continue
		}
		look := time.NewTimer(wait)
		select {
		case <-look.C:
		case <-m.change:
			look.Stop()
		case <-ctx.Done():
			look.Stop()
			return ctx.Err()
		}
	}
}

// merge joins the ends of a room if their states differ and it is our turn.
func (r *Rooms) merge(ctx context.Context, f *forked) error {
	ctx, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	rows, err := r.eventsByNID(ctx, f.ref.NID, f.ends)
	if err != nil || len(rows) < 2 {
		return err
	}
	alike := func(row *store.EventRow) bool {
		return row.After != nil && rows[0].After != nil && *row.After == *rows[0].After
	}
	if !slices.ContainsFunc(rows, func(row *store.EventRow) bool { return !alike(row) }) {
		return nil // messages that crossed: nobody is in a hurry
	}
	now := time.Now()
	if !f.ranked {
		at := now.Add(time.Duration(r.rank(rows)) * r.merges.turn)
		if f.times > 0 && now.Sub(f.merged) < mergeForget {
			pause := f.merged.Add(min(mergePause<<min(f.times-1, 20), mergeLast))
			if pause.After(at) {
				at = pause
			}
		}
		r.merges.later(f, at, func(f *forked) { f.ranked = true })
		return nil
	}
	sender, ok, err := r.mayMerge(ctx, f.ref)
	if err != nil || !ok {
		return err
	}
	if _, err := r.send(ctx, SendRequest{Room: f.ref, Sender: sender, Type: mergeType, Content: []byte("{}")}); err != nil {
		return err
	}
	r.log.Debug("ends of a room were joined", "room", f.ref.ID, "ends", len(rows))
	r.merges.mu.Lock()
	defer r.merges.mu.Unlock()
	if f := r.merges.rooms[f.ref.NID]; f != nil {
		if now.Sub(f.merged) > mergeForget {
			f.times = 0
		}
		f.merged, f.times = now, f.times+1
	}
	return nil
}

// rank is how many servers go before us: those whose events ends are, by name. We are last if none is ours.
func (r *Rooms) rank(ends []*store.EventRow) int {
	var servers []matrix.ServerName
	for _, row := range ends {
		servers = append(servers, row.Event.Sender().Server())
	}
	slices.Sort(servers)
	servers = slices.Compact(servers)
	if at := slices.IndexFunc(servers, r.own.IsOurs); at >= 0 {
		return at
	}
	return len(servers)
}

// mayMerge finds the user of ours who may send to a room and has the most power there: what they do passes at other
// servers when anything does.
func (r *Rooms) mayMerge(ctx context.Context, ref Ref) (sender Sender, ok bool, err error) {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return sender, false, err
	}
	levels, err := r.levelsAt(ctx, ref, state)
	if err != nil {
		return sender, false, err
	}
	var users []matrix.UserID
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		users, err = tx.MembersOfServer(ref.NID, r.own.Name, store.Join)
		return err
	})
	if err != nil || len(users) == 0 {
		return sender, false, err
	}
	best := slices.MaxFunc(users, func(a, b matrix.UserID) int { return cmp.Compare(levels.UserLevel(a), levels.UserLevel(b)) })
	if levels.UserLevel(best) < levels.EventLevel(mergeType, false) {
		return sender, false, nil
	}
	user, err := r.User(ctx, best)
	return Sender{NID: user.NID, ID: best}, err == nil, err
}
