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

// creation finds the room's create event in the answer and checks that it makes this room, in this version.
func (j *join) creation(ctx context.Context) (matrix.EventID, error) {
	list := make([]Admitted, len(j.answer.creations))
	for i, ev := range j.answer.creations {
		list[i] = Admitted{Ref: j.ref, ID: ev.ID(), Event: ev}
	}
	j.r.verify(ctx, list)
	var create *matrix.Event
	for _, a := range list {
		if a.Err != nil || !a.Event.StateKeyEquals("") {
			continue
		}
		if create != nil && create.ID() != a.ID {
			return "", errors.New("rooms: the state of a room has two creations")
		}
		create = a.Event
	}
	if create == nil {
		return "", errors.New("rooms: the state of a room lacks its creation")
	}
	if err := authrules.Check(create, authrules.Map{}); err != nil {
		return "", fmt.Errorf("rooms: the creation of a room: %w", err)
	}
	name, ok := matrix.GetString(create.Content(), "room_version")
	if !ok {
		name = "1" // rooms v1, m.room.create
	}
	if v, known := matrix.ParseRoomVersion(name); !known || v != j.ref.Version {
		return "", fmt.Errorf("rooms: a room of version %.20q was said to be of version %s", name, j.ref.Version)
	}
	return create.ID(), nil
}

// sifting is the state that grows out of an answer while its events are judged.
type sifting struct {
	j      *join
	create matrix.EventID
	found  bool // the creation is in the state

	filled        map[statetree.Key]struct{}
	members, rest []statetree.Entry
}

// sift judges all events of the answer, each after those that it rests on, a few hundred at a time: while one part is
// judged and stored, the signatures of the next are checked. What is left of the state comes back, stored.
func (j *join) sift(ctx context.Context, create matrix.EventID) (store.State, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &sifting{j: j, create: create, filled: map[statetree.Key]struct{}{}}
	type part struct {
		events []*matrix.Event
		err    error
	}
	parts := make(chan part, 1)
	go func() {
		defer close(parts)
		for left := j.answer.order(create); len(left) > 0; {
			n := min(len(left), evidenceChunk)
			events, err := j.verified(ctx, left[:n])
			left = left[n:]
			select {
			case parts <- part{events, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parts {
		err := p.err
		if err == nil {
			err = s.judge(ctx, p.events)
		}
		if err != nil {
			return store.State{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return store.State{}, err
	}
	if !s.found {
		return store.State{}, errors.New("rooms: another server's state lacks the room's creation")
	}
	return j.r.writeState(ctx, j.ref, store.State{}, s.members, s.rest)
}

// verified reads staged events and leaves out those whose signatures are wrong.
func (j *join) verified(ctx context.Context, places []int64) (events []*matrix.Event, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = j.r.panicked("checking the answer to a join", j.ref, v)
		}
	}()
	var rows []store.JoinEvent
	err = j.r.db.Read(ctx, func(tx *store.Tx) error {
		rows = rows[:0]
		return tx.JoinEventsAt(j.answer.stage, places, func(row store.JoinEvent) { rows = append(rows, row) })
	})
	if err != nil {
		return nil, err
	}
	list := make([]Admitted, 0, len(rows))
	for _, row := range rows {
		ev, err := matrix.TrustedEvent(row.JSON, row.ID, j.ref.Version)
		if err != nil {
			return nil, corrupt("staged event %s: %v", row.ID, err)
		}
		list = append(list, Admitted{Ref: j.ref, ID: row.ID, Event: ev})
	}
	j.r.verify(ctx, list)
	for _, a := range list {
		if a.Err == nil {
			events = append(events, a.Event)
		}
	}
	return events, ctx.Err()
}

// judge judges some events, all of whose auth events were judged before or are among them, and puts those that are
// good and named in the state into their places there.
func (s *sifting) judge(ctx context.Context, events []*matrix.Event) error {
	r := s.j.r
	w, err := r.weigh(ctx, s.j.ref, s.create, events)
	if err != nil {
		return err
	}
	for _, ev := range events {
		if w.good[ev.ID()] == nil || !s.j.answer.inState(ev.ID()) {
			continue
		}
		key, _ := ev.StateKey()
		at := r.hasher.KeyOf(ev.Type(), key)
		if _, twice := s.filled[at]; twice {
			return errors.New("rooms: another server's state has two events in one place")
		}
		s.filled[at] = struct{}{}
		s.found = s.found || ev.ID() == s.create
		entry := statetree.Entry{Key: at, Event: int64(w.nids[ev.ID()])}
		if ev.Type() == "m.room.member" {
			s.members = append(s.members, entry)
		} else {
			s.rest = append(s.rest, entry)
		}
	}
	return nil
}

// allowed checks that the join may be: by its own auth events and by the state that it was answered with.
func (j *join) allowed(ctx context.Context, state store.State) error {
	rejected := map[matrix.EventID]bool{}
	auth := make([]*matrix.Event, 0, len(j.event.AuthEvents()))
	err := j.r.db.Read(ctx, func(tx *store.Tx) error {
		auth = auth[:0]
		return tx.EventsByID(j.ref.NID, j.event.AuthEvents(), func(row *store.EventRow) {
			auth = append(auth, row.Event)
			rejected[row.Event.ID()] = row.Flags.Has(store.FlagRejected)
		})
	})
	if err != nil {
		return err
	}
	for _, id := range j.event.AuthEvents() {
		if _, held := rejected[id]; !held {
			return errors.New("rooms: the join rests on something that is not in the answer")
		}
	}
	if err := authrules.CheckAuthEvents(j.event, auth, func(id matrix.EventID) bool { return rejected[id] }); err != nil {
		return refusal(err)
	}
	refused, err := j.r.refusedBy(ctx, j.ref, state, j.event)
	if err != nil {
		return err
	}
	return refusal(refused)
}

// showChunk is how many memberships are written in one transaction.
const showChunk = 1000

// show brings the projection of members up to the state that the room is about to have, in short transactions, so that
// the last step need not. Users of ours are left to that step: where they are is seen at once. It returns the members
// that the projection shows.
func (j *join) show(ctx context.Context, state store.State) (statetree.Name, error) {
	r := j.r
	was, err := r.CurrentState(ctx, j.ref.NID)
	if err != nil {
		return statetree.Name{}, err
	}
	changes, err := statetree.Diff(ctx, was.Members, state.Members, &nodeLoader{r: r, room: j.ref.NID})
	if err != nil {
		return statetree.Name{}, fmt.Errorf("comparing the members of room %s: %w", j.ref.ID, err)
	}
	kept := make([]statetree.Entry, 0, len(changes))
	for left := changes; len(left) > 0; {
		n := min(len(left), showChunk)
		members, shown, err := j.memberChanges(ctx, left[:n])
		if err != nil {
			return statetree.Name{}, err
		}
		left, kept = left[n:], append(kept, shown...)
		if err := r.db.Write(ctx, func(tx *store.Tx) error { return tx.ShowMembers(j.ref.NID, members) }); err != nil {
			return statetree.Name{}, fmt.Errorf("showing the members of room %s: %w", j.ref.ID, err)
		}
	}
	shown, err := r.writeState(ctx, j.ref, store.State{Members: was.Members}, kept, nil)
	return shown.Members, err
}

// memberChanges are changes of the state as changes of the projection, without users of ours.
func (j *join) memberChanges(ctx context.Context, changes []statetree.Change) ([]store.MemberChange, []statetree.Entry, error) {
	nids := make([]store.EventNID, len(changes))
	for i, c := range changes {
		if nids[i] = store.EventNID(c.B); c.B == 0 {
			nids[i] = store.EventNID(c.A)
		}
	}
	var rows []*store.EventRow
	err := j.r.db.Read(ctx, func(tx *store.Tx) error { // past the cache, which has better use for its memory
		rows = rows[:0]
		return tx.EventsByNID(j.ref.NID, nids, func(row *store.EventRow) { rows = append(rows, row) })
	})
	if err != nil {
		return nil, nil, err
	}
	byNID := make(map[store.EventNID]*store.EventRow, len(rows))
	ids := make([]matrix.UserID, len(rows))
	for i, row := range rows {
		byNID[row.NID] = row
		key, _ := row.Event.StateKey()
		ids[i] = matrix.UserID(key)
	}
	users, err := j.r.Users(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	var out []store.MemberChange
	var kept []statetree.Entry
	for i, c := range changes {
		row := byNID[nids[i]]
		if row == nil {
			return nil, nil, corrupt("a state of room %s names event %d, which is not held", j.ref.ID, nids[i])
		}
		key, _ := row.Event.StateKey()
		id := matrix.UserID(key)
		if j.r.own.IsOurs(id.Server()) {
			continue
		}
		change := store.MemberChange{Member: users[id], Event: row.NID}
		if c.B != 0 {
			change.Membership = store.MembershipOf(row.Event.Membership())
		}
		out, kept = append(out, change), append(kept, statetree.Entry{Key: c.Key, Event: c.B})
	}
	return out, kept, nil
}
