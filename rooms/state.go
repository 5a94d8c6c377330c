package rooms

import (
	"context"
	"errors"
	"fmt"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// damage is an error of the database's content, which only `conclave verify` and an administrator can act on.
type damage struct{ error }

func (d damage) Unwrap() error { return d.error }

func corrupt(format string, args ...any) error {
	return damage{fmt.Errorf("rooms: the database contradicts itself: "+format, args...)}
}

// damaged says whether an error will be the same when the same is tried again.
func damaged(err error) bool {
	var d damage
	return errors.As(err, &d) || errors.Is(err, statetree.ErrMissing) || errors.Is(err, statetree.ErrCorrupt)
}

// CurrentState is the state of a room now.
func (r *Rooms) CurrentState(ctx context.Context, room store.RoomNID) (store.State, error) {
	var state store.State
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		head, err := tx.Head(room)
		if head != nil {
			state = head.CurrentState()
		}
		return err
	})
	return state, err
}

// StateEvent finds one event of a state by type and state key; nil if there is none.
func (r *Rooms) StateEvent(ctx context.Context, room store.RoomNID, s store.State, typ, key string) (*store.EventRow, error) {
	return r.stateEvent(ctx, room, s, authrules.StateKey{Type: typ, Key: key}, &nodeLoader{r: r, room: room}, nil)
}

// StateEvents finds several events of a state at once; absent ones are left out.
func (r *Rooms) StateEvents(ctx context.Context, room store.RoomNID, s store.State, keys []authrules.StateKey) (map[authrules.StateKey]*store.EventRow, error) {
	var members, rest []statetree.Key
	for _, k := range keys {
		if at := r.hasher.KeyOf(k.Type, k.Key); k.Type == "m.room.member" {
			members = append(members, at)
		} else {
			rest = append(rest, at)
		}
	}
	var nids []store.EventNID
	load := &nodeLoader{r: r, room: room}
	for _, part := range []struct {
		root statetree.Name
		keys []statetree.Key
	}{{s.Members, members}, {s.Rest, rest}} {
		if len(part.keys) == 0 || part.root == (statetree.Name{}) {
			continue
		}
		found, err := statetree.Get(ctx, part.root, part.keys, load)
		if err != nil {
			return nil, fmt.Errorf("looking up the state of room %d: %w", room, err)
		}
		for _, nid := range found {
			nids = append(nids, store.EventNID(nid))
		}
	}
	rows, err := r.eventsByNID(ctx, room, nids)
	if err != nil {
		return nil, err
	}
	found := make(map[authrules.StateKey]*store.EventRow, len(rows))
	for _, row := range rows {
		key, _ := row.Event.StateKey()
		found[authrules.StateKey{Type: row.Event.Type(), Key: key}] = row
	}
	return found, nil
}

// stateRows reads all events of a state.
func (r *Rooms) stateRows(ctx context.Context, room store.RoomNID, s store.State) ([]*store.EventRow, error) {
	rest, err := r.treeRows(ctx, room, s.Rest)
	if err != nil {
		return nil, err
	}
	members, err := r.treeRows(ctx, room, s.Members)
	return append(rest, members...), err
}

// treeRows reads all events of one tree of a state.
func (r *Rooms) treeRows(ctx context.Context, room store.RoomNID, root statetree.Name) ([]*store.EventRow, error) {
	if root == (statetree.Name{}) {
		return nil, nil
	}
	var nids []store.EventNID
	err := statetree.All(ctx, root, &nodeLoader{r: r, room: room}, func(e statetree.Entry) error {
		nids = append(nids, store.EventNID(e.Event))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the state of room %d: %w", room, err)
	}
	return r.eventsByNID(ctx, room, nids)
}

// AllState reads all events of a state: members too if withMembers is set.
func (r *Rooms) AllState(ctx context.Context, room store.RoomNID, s store.State, withMembers bool) ([]*store.EventRow, error) {
	if withMembers {
		return r.stateRows(ctx, room, s)
	}
	return r.treeRows(ctx, room, s.Rest)
}

// Members reads the member events of a state.
func (r *Rooms) Members(ctx context.Context, room store.RoomNID, s store.State) ([]*store.EventRow, error) {
	return r.treeRows(ctx, room, s.Members)
}

// StateChange is an entry in which two states differ: the event of each, nil where a state has none.
type StateChange struct {
	From, To *store.EventRow
}

// StateDelta finds where two states of a room differ. It costs in proportion to the difference.
func (r *Rooms) StateDelta(ctx context.Context, room store.RoomNID, from, to store.State) ([]StateChange, error) {
	var nids []store.EventNID
	var changes []statetree.Change
	load := &nodeLoader{r: r, room: room}
	for _, pair := range [][2]statetree.Name{{from.Rest, to.Rest}, {from.Members, to.Members}} {
		diff, err := statetree.Diff(ctx, pair[0], pair[1], load)
		if err != nil {
			return nil, fmt.Errorf("comparing states of room %d: %w", room, err)
		}
		changes = append(changes, diff...)
	}
	for _, c := range changes {
		for _, nid := range []int64{c.A, c.B} {
			if nid != 0 {
				nids = append(nids, store.EventNID(nid))
			}
		}
	}
	rows, err := r.eventsByNID(ctx, room, nids)
	if err != nil {
		return nil, err
	}
	at := 0
	next := func(nid int64) (row *store.EventRow) {
		if nid != 0 {
			row = rows[at]
			at++
		}
		return row
	}
	out := make([]StateChange, len(changes))
	for i, c := range changes {
		out[i].From = next(c.A)
		out[i].To = next(c.B)
	}
	return out, nil
}

// EventInRoom finds an event by its ID inside a room that the caller was authorised for; an event of another room is
// as absent as one that does not exist (M_NOT_FOUND).
func (r *Rooms) EventInRoom(ctx context.Context, room store.RoomNID, id matrix.EventID) (*store.EventRow, error) {
	var row *store.EventRow
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.EventInRoom(room, id)
		return err
	})
	if err == nil && row == nil {
		err = matrix.NotFound("There is no such event in this room.")
	}
	return row, err
}
