package rooms

import (
	"context"
	"fmt"

	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// Verified counts what a verification has looked at.
type Verified struct{ Rooms, Events, Nodes int }

// Sizes of what a verification holds in memory at a time: it streams, however large the database.
const (
	verifyRooms  = 500
	verifyEvents = 100
	verifyNodes  = 500
	verifyState  = 500
)

// Verify checks the invariants of rooms and reports what breaks them: of each room its newest event, its ends, its
// current state and who is in it, and its running numbers; with full also the text, hash and ID of every event, every
// state that an event names, and every node of the state trees. Nobody may write meanwhile.
func (r *Rooms) Verify(ctx context.Context, full bool, report func(store.Finding)) (Verified, error) {
	v := &verifier{r: r, report: report}
	if err := r.db.Verify(ctx, report); err != nil {
		return v.seen, err
	}
	if err := v.counters(ctx, 0); err != nil {
		return v.seen, err
	}
	if full {
		if err := v.events(ctx); err != nil {
			return v.seen, err
		}
	}
	var last store.RoomNID
	for {
		var page []store.RoomInfo
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			page = page[:0]
			return tx.RoomsAfter(last, verifyRooms, func(i store.RoomInfo) { page = append(page, i) })
		})
		if err != nil || len(page) == 0 {
			return v.seen, err
		}
		for _, info := range page {
			last = info.NID
			if err := v.room(ctx, Ref{NID: info.NID, ID: info.ID, Version: info.Version}, full); err != nil {
				return v.seen, err
			}
		}
	}
}

// verifier is one verification under way.
type verifier struct {
	r      *Rooms
	report func(store.Finding)
	seen   Verified
}

func (v *verifier) found(rule, format string, args ...any) {
	v.report(store.Finding{Rule: rule, Text: fmt.Sprintf(format, args...)})
}

func (v *verifier) counters(ctx context.Context, room store.RoomNID) error {
	return v.r.db.Read(ctx, func(tx *store.Tx) error { return tx.VerifyCounters(room, v.report) })
}

func (v *verifier) room(ctx context.Context, ref Ref, full bool) error {
	v.seen.Rooms++
	if err := v.counters(ctx, ref.NID); err != nil {
		return err
	}
	if full {
		if err := v.nodes(ctx, ref); err != nil {
			return err
		}
	}
	var head *store.EventRow
	var number store.EventNID
	err := v.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		if head, err = tx.Head(ref.NID); err == nil {
			number, err = tx.HeadNumber(ref.NID)
		}
		return err
	})
	switch {
	case err != nil || number == 0: // without events the room is known by an invitation alone
		return err
	case head == nil:
		v.found("heads", "the newest event of room %s cannot be read", ref.ID)
		return nil
	}
	if err := v.ends(ctx, ref, "room "+string(ref.ID), head.Extremities); err != nil {
		return err
	}
	if len(head.Extremities) > maxExtremities {
		v.found("heads", "room %s has %d ends", ref.ID, len(head.Extremities))
	}
	state := head.CurrentState()
	if err := v.tree(ctx, ref, state.Rest, func([]*store.EventRow) error { return nil }); err != nil {
		return err
	}
	return v.members(ctx, ref, state)
}

// ends checks a list of forward extremities: they are there and were not refused.
func (v *verifier) ends(ctx context.Context, ref Ref, of string, nids []store.EventNID) error {
	flags := map[store.EventNID]store.EventFlags{}
	err := v.r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.EventFlagsOf(ref.NID, nids, func(nid store.EventNID, f store.EventFlags, _ bool) { flags[nid] = f })
	})
	for _, nid := range nids {
		f, there := flags[nid]
		switch {
		case !there:
			v.found("heads", "an end of %s, event %d, is not there", of, nid)
		case f&(store.FlagRejected|store.FlagSoftFailed|store.FlagOutlier) != 0:
			v.found("heads", "an end of %s, event %d, was refused", of, nid)
		}
	}
	return err
}

// tree reads a whole tree of a room's current state and checks each entry against the event that it names. What is
// sound is handed on, some events at a time.
func (v *verifier) tree(ctx context.Context, ref Ref, root statetree.Name, each func([]*store.EventRow) error) error {
	if root == (statetree.Name{}) {
		return nil
	}
	var part []statetree.Entry
	flush := func() error {
		rows, err := v.entries(ctx, ref, part)
		part = part[:0]
		if err != nil {
			return err
		}
		return each(rows)
	}
	var failed error
	err := statetree.All(ctx, root, rawNodes{v.r.db, ref.NID}, func(e statetree.Entry) error {
		if part = append(part, e); len(part) == verifyState {
			failed = flush()
		}
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		v.found("states", "the current state of room %s is broken: %v", ref.ID, err)
	}
	return flush()
}

// entries checks entries of a state and returns their events.
func (v *verifier) entries(ctx context.Context, ref Ref, part []statetree.Entry) ([]*store.EventRow, error) {
	nids := make([]store.EventNID, len(part))
	for i, e := range part {
		nids[i] = store.EventNID(e.Event)
	}
	there := make(map[store.EventNID]*store.EventRow, len(part))
	err := v.r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.EventsByNID(ref.NID, nids, func(row *store.EventRow) { there[row.NID] = row })
	})
	if err != nil {
		return nil, err
	}
	rows := make([]*store.EventRow, 0, len(part))
	for i, e := range part {
		row := there[nids[i]]
		if row == nil {
			v.found("states", "the current state of room %s names event %d, which is not there or cannot be read", ref.ID, e.Event)
			continue
		}
		key, ok := row.Event.StateKey()
		if !ok || v.r.hasher.KeyOf(row.Event.Type(), key) != e.Key {
			v.found("states", "the current state of room %s has event %s in a place that is not its own", ref.ID, row.Event.ID())
			continue
		}
		if row.Flags.Has(store.FlagRejected) {
			v.found("states", "the current state of room %s has event %s, which was rejected", ref.ID, row.Event.ID())
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// rawNodes loads nodes past the caches.
type rawNodes struct {
	db   *store.DB
	room store.RoomNID
}

// Nodes implements statetree.Loader.
func (l rawNodes) Nodes(ctx context.Context, names []statetree.Name) (map[statetree.Name][]byte, error) {
	found := make(map[statetree.Name][]byte, len(names))
	err := l.db.Read(ctx, func(tx *store.Tx) error {
		return tx.StateNodes(l.room, names, func(name statetree.Name, data []byte) { found[name] = data })
	})
	return found, err
}

// members compares the projection of members with the members of the current state, where a user of ours is in the
// room by that state: elsewhere the projection knows more, such as an invitation, than the last state that we have.
func (v *verifier) members(ctx context.Context, ref Ref, state store.State) error {
	counted := map[store.Membership]int{}
	resident := false
	err := v.tree(ctx, ref, state.Members, func(rows []*store.EventRow) error {
		for _, row := range rows {
			m := store.MembershipOf(row.Event.Membership())
			counted[m]++
			key, _ := row.Event.StateKey()
			resident = resident || m == store.Join && v.r.own.IsOurs(matrix.UserID(key).Server())
		}
		return nil
	})
	if err != nil || !resident {
		return err
	}
	// Broken entries were reported above.
	quiet := &verifier{r: v.r, report: func(store.Finding) {}}
	err = quiet.tree(ctx, ref, state.Members, func(rows []*store.EventRow) error { return v.compareMembers(ctx, ref, rows) })
	if err != nil {
		return err
	}
	var projected map[store.Membership]int
	err = v.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		projected, err = tx.MemberCounts(ref.NID)
		return err
	})
	for _, m := range []store.Membership{store.Join, store.Invite, store.Ban, store.Knock} {
		if projected[m] != counted[m] {
			v.found("memberships", "room %s has %d users with membership %s in its state and %d in the table", ref.ID, counted[m], m, projected[m])
		}
	}
	return err
}

func (v *verifier) compareMembers(ctx context.Context, ref Ref, rows []*store.EventRow) error {
	ids := make([]matrix.UserID, len(rows))
	for i, row := range rows {
		key, _ := row.Event.StateKey()
		ids[i] = matrix.UserID(key)
	}
	there := make(map[matrix.UserID]store.MemberRow, len(rows))
	err := v.r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.MembershipsByID(ref.NID, ids, func(id matrix.UserID, m store.MemberRow) { there[id] = m })
	})
	for i, row := range rows {
		m, ok := there[ids[i]]
		if want := store.MembershipOf(row.Event.Membership()); !ok || m.Membership != want || m.Event != row.NID {
			v.found("memberships", "the membership of %s in room %s is not what the state says", ids[i], ref.ID)
		}
	}
	return err
}
