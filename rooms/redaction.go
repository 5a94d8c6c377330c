package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// A redaction takes effect once it and its target are both here, if its sender may redact that. From room version 3 it
// is held back from clients until then, and for good if its sender may not (rooms/v3, "Handling redactions"). To servers
// it is an event like others: it has its place in the graph. In versions 1 and 2 the auth rules let no other in.

// maxReleased bounds how many redactions of one event clients get to see that were held back.
const maxReleased = 20

// holdsBack says whether a redaction is held back while it has no effect. State is shown as state anyway.
func holdsBack(ev *matrix.Event) bool {
	return ev.Type() == "m.room.redaction" && !ev.IsState() && !ev.Version().RedactionAuthRule()
}

// mayRedact refuses a redaction of ours whose target we hold and whose sender may not redact it: the sender may
// remove own events, and others' with the room's power to redact. (The rules of versions 1 and 2 say so themselves.)
func (d *draft) mayRedact(ctx context.Context, ev *matrix.Event) error {
	target, ok := ev.Redacts()
	if !ok {
		return matrix.MissingParam("A redaction names the event that it redacts.")
	}
	row, err := d.known(ctx, target)
	if err != nil || row == nil || row.Event.Sender() == ev.Sender() {
		return err
	}
	levels, err := d.levels(ctx)
	if err == nil && levels.UserLevel(ev.Sender()) < levels.Redact {
		err = matrix.Forbidden("You may only remove your own messages in this room.")
	}
	return err
}

// redactionCounts says whether somebody's redaction takes effect on a valid event of the same room: their server is its
// sender's, or they have the power. Whoever had it when the redaction came has it still, should the target come later. Of
// a redaction that is history the power where it stands counts, but only for what is history too: a moderator of old times,
// and who tells us of those times, could otherwise remove what was said since.
func redactionCounts(levels *authrules.Levels, by matrix.UserID, power store.RedactPower, target *store.EventRow) bool {
	if target.Flags.Has(store.FlagRejected) || target.Event.Type() == "m.room.create" {
		return false // a creation's redaction would keep everything anyway, and nothing may touch a room's root
	}
	return by.Server() == target.Event.Sender().Server() || power == store.PowerNow || power == store.PowerThen && !target.Live() ||
		levels.UserLevel(by) >= levels.Redact
}

// redact lets a redaction take effect on its target, or wait for it.
func (d *draft) redact(ctx context.Context, e *entry, row *store.EventRow) error {
	if row.Event.Type() != "m.room.redaction" {
		return nil
	}
	whole := row.Event // one that is redacted itself says in some versions no more what it redacts
	if e.incoming != nil {
		whole = e.incoming.event
	}
	red, err := d.redaction(ctx, whole, row.NID)
	if err != nil {
		return err
	}
	if red.TargetNID == 0 && holdsBack(row.Event) {
		row.Flags |= store.FlagHeld
	}
	if red.Target != "" {
		d.out.Redactions = append(d.out.Redactions, red)
	}
	return nil
}

// redaction says what a redaction does: without a target nothing, without its number nothing yet.
func (d *draft) redaction(ctx context.Context, ev *matrix.Event, nid store.EventNID) (store.Redaction, error) {
	id, ok := ev.Redacts()
	if !ok {
		return store.Redaction{}, nil
	}
	target, err := d.known(ctx, id)
	if err != nil {
		return store.Redaction{}, err
	}
	levels, err := d.levels(ctx)
	if err != nil {
		return store.Redaction{}, err
	}
	power := powerOf(&levels, ev.Sender(), store.PowerNow)
	switch {
	case target == nil:
		return store.Redaction{Target: id, By: nid, Power: power}, nil
	case !redactionCounts(&levels, ev.Sender(), power, target):
		return store.Redaction{}, nil
	}
	return redactionBy(nid, power, target)
}

// powerOf is what is to be remembered of the power of whoever redacts: enough if they have it.
func powerOf(levels *authrules.Levels, by matrix.UserID, enough store.RedactPower) store.RedactPower {
	if levels.UserLevel(by) >= levels.Redact {
		return enough
	}
	return store.PowerUnknown
}

func redactionBy(nid store.EventNID, power store.RedactPower, target *store.EventRow) (store.Redaction, error) {
	ev, err := target.Event.Redacted()
	if err != nil {
		return store.Redaction{}, err
	}
	return store.Redaction{Target: ev.ID(), TargetNID: target.NID, By: nid, Power: power, JSON: ev.JSON()}, nil
}

// stayRedacted keeps an event redacted that comes again, whole, after it was.
func stayRedacted(row, held *store.EventRow) (err error) {
	if held.Flags.Has(store.FlagRedacted) {
		row.Event, err = row.Event.Redacted()
		row.Flags |= store.FlagRedacted
	}
	return err
}

// redactedBefore lets redactions take effect that came before their target, and those that were held back be seen. With
// present the event is about to come into the room's present: then they move to just before it, so that clients that have
// read past their places still get them.
func (d *draft) redactedBefore(ctx context.Context, row *store.EventRow, present bool) error {
	waiting, err := d.waiting(ctx, row.Event.ID())
	if err != nil || len(waiting) == 0 {
		return err
	}
	levels, err := d.levels(ctx)
	if err != nil {
		return err
	}
	by, released := thatCount(&levels, waiting, row)
	if by == 0 {
		return nil
	}
	if row.Event, err = row.Event.Redacted(); err != nil {
		return err
	}
	row.Flags |= store.FlagRedacted
	var moves []store.EventNID
	for _, w := range released {
		switch {
		case d.rows[w.NID] != nil:
			d.showOwn(w.NID)
		case present && !w.Fixed:
			moves = append(moves, w.NID)
		default:
			d.out.Released = append(d.out.Released, w.NID)
		}
	}
	return d.move(ctx, moves)
}

// waiting are the redactions that came before an event: in this group, or earlier.
func (d *draft) waiting(ctx context.Context, id matrix.EventID) (list []store.Redactor, err error) {
	for _, red := range d.out.Redactions {
		if by := d.rows[red.By]; red.Target == id && red.TargetNID == 0 && by != nil {
			list = append(list, store.Redactor{NID: red.By, Sender: by.Event.Sender(), Power: red.Power, Held: by.Flags.Has(store.FlagHeld)})
		}
	}
	if !d.redacted[id] {
		return list, nil
	}
	var held []store.Redactor
	err = d.r.db.Read(ctx, func(tx *store.Tx) error {
		held = nil
		return tx.Redactors(d.ref.NID, id, func(w store.Redactor) { held = append(held, w) })
	})
	return append(held, list...), err
}

// thatCount finds the first redaction of an event that takes effect, 0 for none, and those to be seen with it.
func thatCount(levels *authrules.Levels, waiting []store.Redactor, target *store.EventRow) (by store.EventNID, released []store.Redactor) {
	for _, w := range waiting {
		if len(released) == maxReleased {
			break
		}
		if !redactionCounts(levels, w.Sender, w.Power, target) {
			continue
		}
		if by == 0 {
			by = w.NID
		}
		if w.Held {
			released = append(released, w)
		}
	}
	return by, released
}

// showOwn shows a redaction of this group. Its row may belong to an earlier mark, to which the draft may go back.
func (d *draft) showOwn(nid store.EventNID) {
	d.out.Events = append([]*store.EventRow(nil), d.out.Events...)
	for i, row := range d.out.Events {
		if row.NID == nid {
			shown := *row
			shown.Flags &^= store.FlagHeld
			d.out.Events[i], d.rows[nid] = &shown, &shown
		}
	}
}

// move gives redactions of the room's present new places at its end. They keep what states and ends they have in the
// graph: what the room is does not change by that.
func (d *draft) move(ctx context.Context, nids []store.EventNID) error {
	rows := map[store.EventNID]*store.EventRow{}
	err := d.r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.EventsByNID(d.ref.NID, nids, func(row *store.EventRow) { rows[row.NID] = row })
	})
	if err != nil {
		return err
	}
	for _, nid := range nids {
		was := rows[nid]
		if was == nil {
			continue // it cannot be read, which was reported
		}
		row := &store.EventRow{
			NID: nid, Room: was.Room, Sender: was.Sender, Flags: was.Flags &^ store.FlagHeld, Before: was.Before, After: was.After,
			Height: was.Height, Thread: was.Thread, Event: was.Event,
		}
		d.stay(row, row.StateAfter())
		d.out.Replaced = append(d.out.Replaced, nid)
		d.out.Events = append(d.out.Events, row)
		d.rows[nid], d.head.nid = row, nid
		if err := d.count(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// meeting lets redactions and targets find one another that do not come through the door: history and evidence.
type meeting struct {
	r      *Rooms
	ref    Ref
	levels authrules.Levels                     // now
	power  map[store.EventNID]store.RedactPower // of the redactions of history that is about to be written

	redactions     []store.Redaction
	held, released []store.EventNID
}

func (r *Rooms) meeting(ctx context.Context, ref Ref) (*meeting, error) {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return nil, err
	}
	levels, err := r.levelsAt(ctx, ref, state)
	return &meeting{r: r, ref: ref, levels: levels, power: map[store.EventNID]store.RedactPower{}}, err
}

// weighPast finds out what power whoever redacts in a piece of history had there.
func (m *meeting) weighPast(ctx context.Context, rows []*store.EventRow) error {
	for _, row := range rows {
		if row.Event.Type() != "m.room.redaction" {
			continue
		}
		levels, err := m.r.levelsAt(ctx, m.ref, row.StateBefore())
		if err != nil {
			return err
		}
		m.power[row.NID] = powerOf(&levels, row.Event.Sender(), store.PowerThen)
	}
	return nil
}

// begin forgets what an earlier try of the transaction found.
func (m *meeting) begin() { m.redactions, m.held, m.released = nil, nil, nil }

// target lets redactions take effect that came before an event.
func (m *meeting) target(tx *store.Tx, row *store.EventRow) error {
	var waiting []store.Redactor
	err := tx.Redactors(m.ref.NID, row.Event.ID(), func(w store.Redactor) { waiting = append(waiting, w) })
	if err != nil {
		return err
	}
	by, released := thatCount(&m.levels, waiting, row)
	if by == 0 {
		return nil
	}
	red, err := redactionBy(by, store.PowerUnknown, row) // which is noted already
	m.redactions = append(m.redactions, red)
	for _, w := range released {
		m.released = append(m.released, w.NID)
	}
	return err
}

// redaction lets an event, if it is a redaction, take effect or wait.
func (m *meeting) redaction(tx *store.Tx, row *store.EventRow) error {
	if row.Event.Type() != "m.room.redaction" {
		return nil
	}
	power := m.power[row.NID]
	red := store.Redaction{By: row.NID, Power: power}
	var target *store.EventRow
	id, ok := row.Event.Redacts()
	if ok {
		var err error
		if target, err = tx.EventInRoom(m.ref.NID, id); err != nil {
			return err
		}
	}
	switch {
	case target != nil && redactionCounts(&m.levels, row.Event.Sender(), power, target):
		var err error
		if red, err = redactionBy(row.NID, power, target); err != nil {
			return err
		}
	case ok && target == nil:
		red.Target = id
	}
	if red.TargetNID == 0 && holdsBack(row.Event) {
		m.held = append(m.held, row.NID)
	}
	if red.Target != "" {
		m.redactions = append(m.redactions, red)
	}
	return nil
}

func (m *meeting) write(tx *store.Tx) error {
	if err := tx.HoldBack(m.ref.NID, m.held); err != nil {
		return err
	}
	if err := tx.Release(m.ref.NID, m.released); err != nil {
		return err
	}
	tx.AfterCommit(func() { m.r.cache.events.changed(changedRows(m.released, m.redactions)...) })
	return tx.Redact(m.ref.NID, m.redactions)
}

// meetWaiting is meet for the redactions of a group that is written: their targets may have become history meanwhile.
func (r *Rooms) meetWaiting(ctx context.Context, ref Ref, written []store.Redaction) {
	var targets []matrix.EventID
	for _, red := range written {
		if red.TargetNID == 0 {
			targets = append(targets, red.Target)
		}
	}
	if len(targets) == 0 {
		return
	}
	if err := r.meet(ctx, ref, targets); err != nil {
		r.log.Error("redactions did not find their targets", "room", ref.ID, "err", err)
	}
}

// meet lets the redactions of events take effect that are both held by now. Whoever writes one of the two outside of the
// door, or through it without having seen the other, asks for it afterwards: the second of them finds both.
func (r *Rooms) meet(ctx context.Context, ref Ref, targets []matrix.EventID) error {
	var unmet []matrix.EventID
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		unmet = nil
		return tx.Unmet(ref.NID, targets, func(id matrix.EventID) { unmet = append(unmet, id) })
	})
	if err != nil || len(unmet) == 0 {
		return err
	}
	m, err := r.meeting(ctx, ref)
	if err != nil {
		return err
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		m.begin()
		for _, id := range unmet {
			row, err := tx.EventInRoom(ref.NID, id)
			if err != nil {
				return err
			}
			if row == nil {
				continue
			}
			if err := m.target(tx, row); err != nil {
				return err
			}
		}
		return m.write(tx)
	})
}
