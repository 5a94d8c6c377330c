package rooms

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/stateres"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// resolutions remembers what state resolution found, by room and set of input roots. States never change, so an
// answer holds for ever.
type resolutions struct {
	known *otter.Cache[string, store.State]
}

func newResolutions() *resolutions {
	return &resolutions{otter.Must(&otter.Options[string, store.State]{MaximumSize: 10_000})}
}

// resolutionKey names a set of states of a room, whatever their order. It sorts states and drops repetitions.
func resolutionKey(room store.RoomNID, states []store.State) (string, []store.State) {
	states = slices.Clone(states)
	slices.SortFunc(states, func(a, b store.State) int {
		if c := bytes.Compare(a.Members[:], b.Members[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.Rest[:], b.Rest[:])
	})
	states = slices.Compact(states)
	key := fmt.Appendf(nil, "%d", room)
	for _, s := range states {
		key = append(append(key, s.Members[:]...), s.Rest[:]...)
	}
	return string(key), states
}

// needResolution is what the door answers when an event meets states whose resolution is not known yet: the caller
// resolves them outside the room's queue and comes again (law 1).
type needResolution struct{ states []store.State }

func (*needResolution) Error() string { return "rooms: the state has to be resolved first" }

// currentOf is the state resolved over the room's ends, if that is known. row is an event that may be one of them, and
// after the state after it.
func (d *draft) currentOf(ctx context.Context, ends []extremity, row *store.EventRow, after store.State) (store.State, error) {
	nids := make([]store.EventNID, 0, len(ends))
	var states []store.State
	for _, x := range ends {
		switch fresh := d.rows[x.nid]; {
		case x.nid == row.NID:
			states = append(states, after)
		case fresh != nil:
			states = append(states, fresh.StateAfter())
		default:
			nids = append(nids, x.nid)
		}
	}
	rows, err := d.r.placedByNID(ctx, d.ref.NID, nids)
	if err != nil {
		return after, err
	}
	for _, e := range rows {
		states = append(states, e.StateAfter())
	}
	key, distinct := resolutionKey(d.ref.NID, states)
	if len(distinct) == 1 {
		return distinct[0], nil
	}
	if known, ok := d.r.memo.known.GetIfPresent(key); ok {
		return known, nil
	}
	return after, &needResolution{distinct}
}

// resolve finds the state that states of a room resolve to, stores its nodes and remembers it. It fails with *pausedError
// where the room has used up its time.
func (r *Rooms) resolve(ctx context.Context, ref Ref, states []store.State) (store.State, error) {
	key, states := resolutionKey(ref.NID, states)
	switch len(states) {
	case 0:
		return store.State{}, nil
	case 1:
		return states[0], nil
	}
	if known, ok := r.memo.known.GetIfPresent(key); ok {
		return known, nil
	}
	spent, err := r.budgets.begin(ctx, ref.NID)
	if err != nil {
		return store.State{}, err
	}
	defer spent.end()
	apart, err := r.tellApart(ctx, ref, states)
	if err == nil {
		err = spent.look()
	}
	if err != nil {
		return store.State{}, err
	}
	evidence := &evidence{ctx: ctx, r: r, ref: ref, rejected: map[matrix.EventID]bool{}, heights: map[matrix.EventID]int64{}, numbers: apart.numbers, load: spent.load}
	common := stateres.Common{
		Lookup: func(keys []stateres.StateKey) (map[stateres.StateKey]matrix.EventID, error) {
			return apart.lookup(ctx, keys)
		},
		InChain: func(wanted map[matrix.EventID]bool) error { return apart.inChain(ctx, wanted, evidence.height, spent) },
	}
	resolved, err := stateres.ResolveParts(ref.Version, apart.sets, common, evidence.get, evidence.isRejected, evidence.height, spent.step)
	if err != nil {
		return store.State{}, fmt.Errorf("resolving the state of room %s: %w", ref.ID, err)
	}
	result, err := r.storeState(ctx, ref, states[0], apart.sets[0], resolved, apart.numbers)
	if err == nil {
		r.memo.known.Set(key, result)
	}
	return result, err
}

// evidence gives state resolution the events of auth chains, of this room only. It notes the numbers of them all: an event
// that only auth chains have can become part of the state (it is in the auth difference).
type evidence struct {
	ctx      context.Context
	r        *Rooms
	ref      Ref
	rejected map[matrix.EventID]bool
	heights  map[matrix.EventID]int64
	numbers  map[matrix.EventID]store.EventNID
	load     func(bytes int) error
}

func (v *evidence) get(ids []matrix.EventID) (map[matrix.EventID]*matrix.Event, error) {
	found := make(map[matrix.EventID]*matrix.Event, len(ids))
	bytes := 0
	err := v.r.db.Read(v.ctx, func(tx *store.Tx) error {
		return tx.EventsByID(v.ref.NID, ids, func(row *store.EventRow) {
			if found[row.Event.ID()] == nil {
				bytes += row.Event.Size()
			}
			found[row.Event.ID()] = row.Event
			v.numbers[row.Event.ID()] = row.NID
			v.rejected[row.Event.ID()] = row.Flags.Has(store.FlagRejected)
			v.heights[row.Event.ID()] = row.Height
		})
	})
	if err == nil {
		err = v.load(bytes)
	}
	return found, err
}

func (v *evidence) height(id matrix.EventID) int64 { return v.heights[id] }

func (v *evidence) isRejected(id matrix.EventID) bool { return v.rejected[id] }

// storeState writes the nodes of a resolved state, built as changes to one of the states it came from.
func (r *Rooms) storeState(ctx context.Context, ref Ref, base store.State, from, to map[stateres.StateKey]matrix.EventID, numbers map[matrix.EventID]store.EventNID) (store.State, error) {
	var members, rest []statetree.Entry
	change := func(key stateres.StateKey, nid store.EventNID) {
		entry := statetree.Entry{Key: r.hasher.KeyOf(key.Type, key.Key), Event: int64(nid)}
		if key.Type == "m.room.member" {
			members = append(members, entry)
		} else {
			rest = append(rest, entry)
		}
	}
	for key, id := range to { // of places that all states fill alike, some may be named, filled as they are
		if from[key] != id {
			nid, ok := numbers[id]
			if !ok {
				return base, corrupt("state resolution in room %s chose %s, which is not held", ref.ID, id)
			}
			change(key, nid)
		}
	}
	for key := range from {
		if _, stays := to[key]; !stays {
			change(key, 0)
		}
	}
	return r.writeState(ctx, ref, base, members, rest)
}

// writeState applies changes to a state and stores the new nodes at once: they are immutable, so nodes that nothing
// will refer to do no harm.
func (r *Rooms) writeState(ctx context.Context, ref Ref, base store.State, members, rest []statetree.Entry) (store.State, error) {
	load := &nodeLoader{r: r, room: ref.NID, fresh: map[statetree.Name][]byte{}}
	var nodes []store.Node
	put := func(root *statetree.Name, changes []statetree.Entry) error {
		if len(changes) == 0 {
			return nil
		}
		name, made, err := statetree.Put(ctx, r.hasher, *root, changes, load)
		if err != nil {
			return err
		}
		*root = name
		for name, data := range made {
			nodes = append(nodes, store.Node{Name: name, Data: data})
		}
		return nil
	}
	if err := errors.Join(put(&base.Members, members), put(&base.Rest, rest)); err != nil {
		return base, fmt.Errorf("building a state of room %s: %w", ref.ID, err)
	}
	err := r.db.Write(ctx, func(tx *store.Tx) error { return tx.InsertNodes(ref.NID, nodes) })
	return base, err
}

// stateWith is a state with one event in its place, stored.
func (r *Rooms) stateWith(ctx context.Context, ref Ref, before store.State, ev *matrix.Event, nid store.EventNID) (store.State, error) {
	key, _ := ev.StateKey()
	change := []statetree.Entry{{Key: r.hasher.KeyOf(ev.Type(), key), Event: int64(nid)}}
	if ev.Type() == "m.room.member" {
		return r.writeState(ctx, ref, before, change, nil)
	}
	return r.writeState(ctx, ref, before, nil, change)
}

// stateDiffers brings the checks' memory and the projection of members up to date when the current state changed by
// more than one event, as it does when ends of the room are joined or fork.
func (d *draft) stateDiffers(ctx context.Context, row *store.EventRow, was store.State, index int) error {
	d.head.auth = map[authrules.StateKey]*store.EventRow{}
	now := d.head.state
	if was.Members == now.Members {
		return nil
	}
	changes, err := statetree.Diff(ctx, was.Members, now.Members, &d.load)
	if err != nil {
		return fmt.Errorf("comparing the members of room %s: %w", d.ref.ID, err)
	}
	members := make([]*store.EventRow, len(changes))
	nids := make([]store.EventNID, 0, len(changes))
	var places []int
	for i, c := range changes {
		nid := store.EventNID(cmp.Or(c.B, c.A))
		if members[i] = d.rows[nid]; members[i] == nil {
			nids, places = append(nids, nid), append(places, i)
		}
	}
	rows, err := d.r.eventsByNID(ctx, d.ref.NID, nids)
	if err != nil {
		return err
	}
	for i, at := range places {
		members[at] = rows[i]
	}
	return d.changeMembers(ctx, changes, members, index)
}

// maxOutside bounds the users of ours whose invitations are looked at when we come into a room.
const maxOutside = 100_000

// endOutside ends, in a room that we come into, the invitations and knocks of our other users that its state does not know:
// they were only said from outside, and inside nobody could decline them. Those that are on their way here come again.
func (d *draft) endOutside(ctx context.Context, index int) error {
	pending := map[statetree.Key]store.MemberChange{}
	err := d.r.db.Read(ctx, func(tx *store.Tx) error {
		clear(pending)
		return tx.MembersFrom(d.ref.NID, d.r.own.Name, maxOutside, func(id matrix.UserID, m store.MemberRow) {
			if m.Membership == store.Invite || m.Membership == store.Knock {
				pending[d.r.hasher.KeyOf("m.room.member", string(id))] = store.MemberChange{
					Member: store.User{NID: m.Member, Server: m.Server}, Event: m.Event, At: index,
				}
			}
		})
	})
	if err != nil || len(pending) == 0 {
		return err
	}
	known, err := statetree.Get(ctx, d.head.state.Members, slices.Collect(maps.Keys(pending)), &d.load)
	if err != nil {
		return fmt.Errorf("looking up the members of room %s: %w", d.ref.ID, err)
	}
	for key, change := range pending {
		gone := func(c store.MemberChange) bool { return c.Member.NID == change.Member.NID }
		if known[key] == 0 && !slices.ContainsFunc(d.out.Members, gone) {
			d.out.Members = append(d.out.Members, change)
		}
	}
	return nil
}

// changeMembers brings changed places of the state to the projection of members. members are the events that fill them
// now, or filled those that are empty now.
func (d *draft) changeMembers(ctx context.Context, changes []statetree.Change, members []*store.EventRow, index int) error {
	ids := make([]matrix.UserID, len(members))
	for i, row := range members {
		key, _ := row.Event.StateKey()
		ids[i] = matrix.UserID(key)
	}
	users, err := d.r.Users(ctx, ids)
	if err != nil {
		return err
	}
	for i, c := range changes {
		change := store.MemberChange{Member: users[ids[i]], Event: members[i].NID, At: index}
		if c.B != 0 {
			change.Membership = store.MembershipOf(members[i].Event.Membership())
		}
		d.out.Members = append(d.out.Members, change)
	}
	return nil
}
