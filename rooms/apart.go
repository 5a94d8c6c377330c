package rooms

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/stateres"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// apart are states of a room, told apart by the trees that they are: what they have in common is not read.
type apart struct {
	r       *Rooms
	ref     Ref
	base    store.State // one of them
	places  map[statetree.Key]bool
	sets    []map[stateres.StateKey]matrix.EventID // of each, the places in which not all are alike
	numbers map[matrix.EventID]store.EventNID
}

// tellApart finds the places in which states differ, and what each of them has there.
func (r *Rooms) tellApart(ctx context.Context, ref Ref, states []store.State) (*apart, error) {
	a := &apart{
		r: r, ref: ref, base: states[0], places: map[statetree.Key]bool{}, numbers: map[matrix.EventID]store.EventNID{},
		sets: make([]map[stateres.StateKey]matrix.EventID, len(states)),
	}
	load := &nodeLoader{r: r, room: ref.NID}
	filled := make([]map[statetree.Key]int64, len(states)) // where each differs from the first
	first := map[statetree.Key]int64{}
	for i, s := range states {
		filled[i] = map[statetree.Key]int64{}
		for _, pair := range [][2]statetree.Name{{a.base.Members, s.Members}, {a.base.Rest, s.Rest}} {
			changes, err := statetree.Diff(ctx, pair[0], pair[1], load)
			if err != nil {
				return nil, fmt.Errorf("comparing states of room %s: %w", ref.ID, err)
			}
			for _, c := range changes {
				a.places[c.Key], first[c.Key], filled[i][c.Key] = true, c.A, c.B
			}
		}
	}
	nids := map[store.EventNID]bool{}
	for i := range states {
		for key := range a.places {
			if _, differs := filled[i][key]; !differs {
				filled[i][key] = first[key]
			}
			nids[store.EventNID(filled[i][key])] = true
		}
	}
	delete(nids, 0)
	return a, a.name(ctx, filled, nids)
}

// name makes sets of events of what is filled by number.
func (a *apart) name(ctx context.Context, filled []map[statetree.Key]int64, nids map[store.EventNID]bool) error {
	list := make([]store.EventNID, 0, len(nids))
	for nid := range nids {
		list = append(list, nid)
	}
	rows, err := a.r.eventsByNID(ctx, a.ref.NID, list)
	if err != nil {
		return err
	}
	byNID := make(map[store.EventNID]*store.EventRow, len(rows))
	for _, row := range rows {
		byNID[row.NID] = row
	}
	for i, places := range filled {
		a.sets[i] = make(map[stateres.StateKey]matrix.EventID, len(places))
		for _, nid := range places {
			if row := byNID[store.EventNID(nid)]; row != nil {
				key, _ := row.Event.StateKey()
				a.sets[i][stateres.StateKey{Type: row.Event.Type(), Key: key}] = row.Event.ID()
				a.numbers[row.Event.ID()] = row.NID
			}
		}
	}
	return nil
}

// lookup finds what all states have in some places.
func (a *apart) lookup(ctx context.Context, keys []authrules.StateKey) (map[stateres.StateKey]matrix.EventID, error) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k authrules.StateKey) bool { return a.places[a.r.hasher.KeyOf(k.Type, k.Key)] })
	rows, err := a.r.StateEvents(ctx, a.ref.NID, a.base, keys)
	if err != nil {
		return nil, err
	}
	found := make(map[stateres.StateKey]matrix.EventID, len(rows))
	for key, row := range rows {
		found[key] = row.Event.ID()
		a.numbers[row.Event.ID()] = row.NID
	}
	return found, nil
}

var errAllFound = errors.New("nothing is left to look for")

// chainChunk is how many events are asked for their auth events at a time.
const chainChunk = 2000

// inChain removes from wanted what is in the auth chain of what all states have. It reads the auth events of the common
// events and nothing else of them, until nothing is left to look for or can be found further down.
func (a *apart) inChain(ctx context.Context, wanted map[matrix.EventID]bool, height stateres.Height, spent *spending) error {
	low := lowest(wanted, height)
	seen := map[matrix.EventID]bool{}
	var next []matrix.EventID
	bytes := 0
	note := func(id matrix.EventID) {
		if !seen[id] {
			id = matrix.EventID(strings.Clone(string(id)))
			seen[id] = true
			delete(wanted, id)
			next = append(next, id)
			bytes += len(id) + 60
		}
	}
	look := func(read func(tx *store.Tx) error) error {
		if err := a.r.db.Read(ctx, read); err != nil {
			return err
		}
		if len(wanted) == 0 {
			return errAllFound
		}
		err := spent.load(bytes)
		bytes = 0
		return err
	}
	err := a.commonNumbers(ctx, func(part []store.EventNID) error {
		return look(func(tx *store.Tx) error { return tx.AuthOf(a.ref.NID, part, low, note) })
	})
	for err == nil && len(next) > 0 {
		level := next
		next = nil
		for part := range slices.Chunk(level, chainChunk) {
			if err = look(func(tx *store.Tx) error { return tx.AuthOfIDs(a.ref.NID, part, low, note) }); err != nil {
				break
			}
		}
	}
	if errors.Is(err, errAllFound) {
		return nil
	}
	return err
}

// lowest is the least height of some events, 0 if that of any is not known.
func lowest(ids map[matrix.EventID]bool, height stateres.Height) int64 {
	low := int64(math.MaxInt64)
	for id := range ids {
		low = min(low, height(id))
	}
	return low
}

// commonNumbers hands out the numbers of the events that all states have, a few at a time.
func (a *apart) commonNumbers(ctx context.Context, each func([]store.EventNID) error) error {
	load := &nodeLoader{r: a.r, room: a.ref.NID}
	var part []store.EventNID
	for _, root := range []statetree.Name{a.base.Rest, a.base.Members} {
		err := statetree.All(ctx, root, load, func(e statetree.Entry) error {
			if a.places[e.Key] {
				return nil
			}
			if part = append(part, store.EventNID(e.Event)); len(part) < chainChunk {
				return nil
			}
			err := each(part)
			part = part[:0]
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(part) == 0 {
		return nil
	}
	return each(part)
}
