package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// Admitted is the verdict on one event that came from another server, before its place in the room is looked for. If
// Err is nil the event has its form, its room, its hash (or is used redacted) and its signatures.
type Admitted struct {
	ID    matrix.EventID // "" if it could not be read as far as that
	Ref   Ref
	Event *matrix.Event // nil if Err is set
	Err   error

	staged int64
	origin store.ServerNID
	past   bool // it was answered to backfill
}

// maxRawEvent bounds an event as it comes, with white space and an "unsigned" that is dropped.
const maxRawEvent = 4 * matrix.MaxEventSize

// Admit judges events that another server sent into rooms that we are in, each on its own. It is the first half of the
// one pipeline that every event from anywhere passes; Stage and Receive are the second. An error that is no *matrix.Error
// is trouble of our own and says nothing about the event.
func (r *Rooms) Admit(ctx context.Context, origin matrix.ServerName, raws []json.RawMessage) []Admitted {
	out := make([]Admitted, len(raws))
	gates := map[matrix.RoomID]*gate{}
	r.heardOf(ctx, origin)
	from, err := r.db.Server(ctx, origin)
	for i, raw := range raws {
		a := &out[i]
		a.origin = from
		if err == nil {
			a.staged, err = r.db.NextNID(store.KindStaged)
		}
		if err != nil {
			a.Err = err
			continue
		}
		var id matrix.RoomID
		if id, a.Err = roomOf(raw); a.Err != nil {
			continue
		}
		g := gates[id]
		if g == nil {
			g = r.gate(ctx, id)
			gates[id] = g
		}
		if a.Ref, a.Err = g.ref, g.err; a.Err != nil {
			continue
		}
		if a.parse(raw); a.Err == nil { // the answer names an event that is shut out, so its ID has to be known
			if a.Err = g.admits(origin); a.Err == nil {
				a.Err = g.admits(a.Event.Sender().Server())
			}
		}
	}
	r.verify(ctx, out)
	return out
}

// roomOf is the room that an event names.
func roomOf(raw []byte) (matrix.RoomID, error) {
	if err := matrix.CheckJSON(raw, matrix.Limits{Bytes: maxRawEvent, Members: matrix.MaxEventMembers}); err != nil {
		return "", matrix.BadJSON("The event is not usable JSON.").With(err)
	}
	name, ok := matrix.GetString(raw, "room_id")
	if !ok {
		return "", matrix.BadJSON("The event names no room.")
	}
	id, err := matrix.ParseRoomID(name)
	if err != nil {
		return "", matrix.BadJSON("The event's room_id is none.").With(err)
	}
	return id, nil
}

// gate is what decides about all events of a room: whether we are in it, and its access list.
type gate struct {
	ref Ref
	err error
	acl *accessList // nil if it has none
}

func (r *Rooms) gate(ctx context.Context, id matrix.RoomID) *gate {
	ref, err := r.Lookup(ctx, id)
	if err != nil {
		return &gate{err: err}
	}
	g := &gate{ref: ref}
	resident, err := r.resident(ctx, ref.NID)
	if err == nil && !resident && !r.joining.has(ref.NID) {
		err = matrix.NotFound("This server is not in the room %s.", id)
	}
	var row *store.EventRow
	if err == nil && resident {
		row, err = r.aclRow(ctx, ref)
	}
	if row != nil {
		g.acl = r.acl(row)
	}
	if err != nil && damaged(err) { // it is no reason for its servers to wait with what they have for other rooms
		r.log.Error("events of a room whose state is damaged are refused", "room", id, "err", err)
		err = matrix.Errorf(500, "M_UNKNOWN", "This server cannot read the room's state.").With(err)
	}
	g.err = err
	return g
}

// admits refuses the events of servers that the room's access list shuts out.
func (g *gate) admits(server matrix.ServerName) error {
	if g.acl != nil && !g.acl.Allowed(server) {
		return matrix.Forbidden("The room's access list shuts out %s.", server)
	}
	return nil
}

// parse reads an event of a known room and checks its content hash: one that does not fit is used redacted
// (server-server API, "Validating hashes and signatures on received events").
func (a *Admitted) parse(raw []byte) {
	if len(raw) > maxRawEvent {
		a.Err = matrix.BadJSON("The event is too large.")
		return
	}
	parse := matrix.ParseEvent
	if a.past {
		parse = matrix.ParseBackfilled
	}
	ev, err := parse(raw, a.Ref.Version)
	if err != nil {
		a.Err = matrix.BadJSON("The event is malformed.").With(err)
		return
	}
	a.ID = ev.ID()
	if ev.RoomID() != a.Ref.ID {
		a.Err = matrix.BadJSON("The event is of another room.")
		return
	}
	if !ev.CheckContentHash() {
		if ev, err = ev.Redacted(); err != nil {
			a.Err = matrix.BadJSON("The event is malformed.").With(err)
			return
		}
	}
	a.Event = ev
}

// verify checks the signatures of all events that nothing was found against yet.
func (r *Rooms) verify(ctx context.Context, list []Admitted) {
	var events []*matrix.Event
	var at []int
	for i := range list {
		if list[i].Err == nil {
			events, at = append(events, list[i].Event), append(at, i)
		} else {
			list[i].Event = nil
		}
	}
	if len(events) == 0 {
		return
	}
	if r.source == nil {
		for _, i := range at {
			list[i].Event, list[i].Err = nil, errNoFederation()
		}
		return
	}
	for i, err := range r.source.VerifyEvents(ctx, events) {
		if err != nil {
			a := &list[at[i]]
			a.Event, a.Err = nil, matrix.Forbidden("The event is not signed as it should be.").With(err)
		}
	}
}

// vet is Admit for events of one room that we asked for: whoever brings them, they are judged alike. It returns those
// that are good, each once.
func (r *Rooms) vet(ctx context.Context, ref Ref, raws []json.RawMessage) []*matrix.Event {
	return r.vetted(ctx, Admitted{Ref: ref}, raws)
}

// vetPast is vet for what was answered to backfill.
func (r *Rooms) vetPast(ctx context.Context, ref Ref, raws []json.RawMessage) []*matrix.Event {
	return r.vetted(ctx, Admitted{Ref: ref, past: true}, raws)
}

func (r *Rooms) vetted(ctx context.Context, as Admitted, raws []json.RawMessage) []*matrix.Event {
	return r.signed(ctx, parsed(as, raws))
}

// vetNew is vet for what may be held already, of which nothing is said then: signatures are checked once.
func (r *Rooms) vetNew(ctx context.Context, ref Ref, raws []json.RawMessage) ([]*matrix.Event, error) {
	list := parsed(Admitted{Ref: ref}, raws)
	ids := make([]matrix.EventID, len(list))
	for i, a := range list {
		ids[i] = a.ID
	}
	held := map[matrix.EventID]bool{}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.Known(ref.NID, ids, func(id matrix.EventID, _ store.EventNID, _ store.EventFlags, _ bool) { held[id] = true })
	})
	if err != nil {
		return nil, err
	}
	return r.signed(ctx, slices.DeleteFunc(list, func(a Admitted) bool { return held[a.ID] })), nil
}

// parsed are those of the events that are well-formed, each once.
func parsed(as Admitted, raws []json.RawMessage) []Admitted {
	list := make([]Admitted, 0, len(raws))
	seen := map[matrix.EventID]bool{}
	for _, raw := range raws {
		a := as
		if a.parse(raw); a.Err == nil && !seen[a.ID] {
			seen[a.ID] = true
			list = append(list, a)
		}
	}
	return list
}

// signed are those of the events whose signatures are good.
func (r *Rooms) signed(ctx context.Context, list []Admitted) (good []*matrix.Event) {
	r.verify(ctx, list)
	for _, a := range list {
		if a.Err == nil {
			good = append(good, a.Event)
		}
	}
	return good
}

// Receive takes an admitted event to its place at once, asking origin for what is missing, and says how that ended: nil
// if the event is in the room's present or was already, a refusal if it was rejected or the present does not allow it.
func (r *Rooms) Receive(ctx context.Context, origin matrix.ServerName, a Admitted) error {
	if a.Err != nil {
		return a.Err
	}
	if err := r.arrive(ctx, a.Ref, origin, a.Event); err != nil {
		return err
	}
	row, err := r.EventInRoom(ctx, a.Ref.NID, a.ID)
	if err == nil && !row.Visible() {
		err = matrix.Forbidden("The room does not allow this event.")
	}
	return err
}

// arrive takes an event to its place. Only what may be different later is an error: an event that is refused for good is
// written as such.
func (r *Rooms) arrive(ctx context.Context, ref Ref, from matrix.ServerName, ev *matrix.Event) error {
	err := r.settle(ctx, ref, &arrival{event: ev})
	var lacks *lacking
	if errors.As(err, &lacks) {
		return r.fill(ctx, ref, from, ev)
	}
	return err
}

// arrival is an event on its way to its place in a room.
type arrival struct {
	event   *matrix.Event
	before  *store.State     // the state before it, if another server said so; else it follows from the parents
	missing []matrix.EventID // with before: parents that we do not hold

	glance
}

// glance is what is held of some events of a room, and of what they name.
type glance struct {
	rows    map[matrix.EventID]*store.EventRow // themselves, their parents and their auth events
	foreign map[matrix.EventID]bool            // of the auth events, those that are events of other rooms
	awaited map[matrix.EventID]bool            // of the events, those that one with a place follows already
}

// lacking is the error of an event of which something is not held that has to be.
type lacking struct {
	parents []matrix.EventID
	auth    []matrix.EventID
}

func (l *lacking) Error() string {
	return fmt.Sprintf("rooms: %d parents and %d auth events are not held", len(l.parents), len(l.auth))
}

// settle judges an event by everything that does not depend on the present and takes it through the door. What is
// wrong with it for ever makes it rejected (server-server API, "Checks performed on receipt of a PDU", 4 and 5).
func (r *Rooms) settle(ctx context.Context, ref Ref, a *arrival) error {
	if err := r.look(ctx, ref, a); err != nil {
		return err
	}
	held := a.rows[a.event.ID()]
	if held != nil && a.event.Type() == "m.room.create" {
		return nil // of another, or the room's own, which is no news
	}
	lacks := a.lacks()
	placeless := a.before == nil && len(lacks.parents) > 0
	if held != nil && settled(held) && (held.Pos != 0 || held.After != nil || placeless) {
		return nil
	}
	refused := a.refusedByAuth()
	switch {
	case held != nil && held.Flags.Has(store.FlagRejected):
		refused = errors.New("it was rejected before")
	case refused != nil && placeless:
		return r.reject(ctx, ref, a, nil, refused)
	case refused == nil && (placeless || len(lacks.auth) > 0):
		return lacks
	}
	before, err := r.stateBefore(ctx, ref, a)
	if err != nil {
		return err
	}
	if refused == nil {
		if refused, err = r.refusedBy(ctx, ref, before, a.event); err != nil {
			return err
		}
	}
	if refused != nil {
		return r.reject(ctx, ref, a, &before, refused)
	}
	return r.pass(ctx, ref, a, before)
}

// look reads what is held of an event and of what it names.
func (r *Rooms) look(ctx context.Context, ref Ref, a *arrival) (err error) {
	a.glance, err = r.glance(ctx, ref, a.event)
	return err
}

// late says whether something that has a place follows the event already.
func (a *arrival) late() bool { return a.awaited[a.event.ID()] }

// glance reads what is held of events and of what they name.
func (r *Rooms) glance(ctx context.Context, ref Ref, events ...*matrix.Event) (g glance, err error) {
	named := map[matrix.EventID]bool{}
	ids := make([]matrix.EventID, len(events))
	if create, ok := createID(ref); ok {
		named[create] = true
	}
	for i, ev := range events {
		ids[i] = ev.ID()
		for _, list := range [][]matrix.EventID{{ev.ID()}, ev.PrevEvents(), ev.AuthEvents()} {
			for _, id := range list {
				named[id] = true
			}
		}
	}
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		g = glance{map[matrix.EventID]*store.EventRow{}, map[matrix.EventID]bool{}, map[matrix.EventID]bool{}}
		err := tx.EventsByID(ref.NID, slices.Collect(maps.Keys(named)), func(row *store.EventRow) { g.rows[row.Event.ID()] = row })
		if err != nil {
			return err
		}
		if err := tx.Awaited(ref.NID, ids, func(id matrix.EventID) { g.awaited[id] = true }); err != nil {
			return err
		}
		var elsewhere []matrix.EventID // an event that is held here is not held in another room
		for _, ev := range events {
			for _, id := range ev.AuthEvents() {
				if g.rows[id] == nil {
					elsewhere = append(elsewhere, id)
				}
			}
		}
		return tx.Elsewhere(ref.NID, elsewhere, func(id matrix.EventID) { g.foreign[id] = true })
	})
	return g, err
}

// createID is the ID of a room's create event, where the room's own ID says it.
func createID(ref Ref) (matrix.EventID, bool) {
	if !ref.Version.RoomIDIsCreateHash() {
		return "", false
	}
	return matrix.EventID("$" + ref.ID[1:]), true
}

// lacks says which parents and auth events are not held. A parent counts as held once the state at it is known.
func (a *arrival) lacks() *lacking {
	var l lacking
	for _, id := range a.event.PrevEvents() {
		if row := a.rows[id]; row == nil || row.After == nil {
			l.parents = append(l.parents, id)
		}
	}
	for _, id := range a.event.AuthEvents() {
		if a.rows[id] == nil {
			l.auth = append(l.auth, id)
		}
	}
	return &l
}

// refusedByAuth checks an event against its auth events. It says nothing (nil) while some of them are not held and
// those that are give no reason.
func (a *arrival) refusedByAuth() error {
	if a.event.Type() == "m.room.create" {
		return errors.New("a room is created once")
	}
	var auth []*matrix.Event
	state := authrules.Map{}
	complete := true
	for _, id := range a.event.AuthEvents() {
		switch row := a.rows[id]; {
		case a.foreign[id]:
			return errors.New("an auth event is of another room")
		case row == nil:
			complete = false
		case row.Flags.Has(store.FlagRejected):
			return errors.New("an auth event was rejected")
		default:
			auth = append(auth, row.Event)
			key, _ := row.Event.StateKey()
			state[authrules.StateKey{Type: row.Event.Type(), Key: key}] = row.Event
		}
	}
	if !complete {
		return nil
	}
	none := func(matrix.EventID) bool { return false } // looked at above
	if err := authrules.CheckAuthEvents(a.event, auth, none); err != nil {
		return err
	}
	if id, ok := createID(Ref{ID: a.event.RoomID(), Version: a.event.Version()}); ok && a.rows[id] != nil {
		state[authrules.StateKey{Type: "m.room.create"}] = a.rows[id].Event
	}
	return authrules.Check(a.event, state)
}

// stateBefore is the state before an event: as it was given, or resolved over the states after its parents.
func (r *Rooms) stateBefore(ctx context.Context, ref Ref, a *arrival) (store.State, error) {
	var states []store.State
	if a.before != nil {
		states = append(states, *a.before)
	}
	for _, id := range a.event.PrevEvents() {
		if row := a.rows[id]; row != nil && row.After != nil {
			states = append(states, row.StateAfter())
		}
	}
	return r.resolve(ctx, ref, states)
}

// refusedBy checks an event against a state.
func (r *Rooms) refusedBy(ctx context.Context, ref Ref, s store.State, ev *matrix.Event) (refused error, err error) {
	keys := append(authrules.Needed(ev), authrules.StateKey{Type: "m.room.create"})
	found, err := r.StateEvents(ctx, ref.NID, s, keys)
	if err != nil {
		return nil, err
	}
	state := make(authrules.Map, len(found))
	for key, row := range found {
		state[key] = row.Event
	}
	return authrules.Check(ev, state), nil
}

// reject writes an event that is not allowed where it stands, for ever (threats F09). It changes no state. Without a
// state it waits for its parents as all that follow it do.
func (r *Rooms) reject(ctx context.Context, ref Ref, a *arrival, before *store.State, why error) error {
	r.log.Debug("event rejected", "room", ref.ID, "event", a.event.ID(), "why", why)
	sender, err := r.User(ctx, a.event.Sender())
	if err != nil {
		return err
	}
	row := &store.EventRow{Room: ref.NID, Sender: sender.NID, Event: a.event, Flags: store.FlagRejected, After: before}
	if a.event.IsState() {
		row.Flags |= store.FlagState
	}
	var replaced []store.EventNID
	if held := a.rows[a.event.ID()]; held != nil {
		row.NID, replaced = held.NID, []store.EventNID{held.NID}
	} else {
		nid, err := r.db.NextNID(store.KindEvent)
		if err != nil {
			return err
		}
		row.NID = store.EventNID(nid)
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.Evidence([]*store.EventRow{row}, replaced); err != nil {
			return err
		}
		tx.AfterCommit(func() {
			r.cache.events.changed(replaced...)
			r.unpark(ref, row)
		})
		return tx.CloseGaps(ref.NID, []matrix.EventID{a.event.ID()})
	})
}

// pass takes an event that nothing speaks against through the door.
func (r *Rooms) pass(ctx context.Context, ref Ref, a *arrival, before store.State) error {
	sender, err := r.User(ctx, a.event.Sender())
	if err != nil {
		return err
	}
	in := &incoming{event: a.event, before: before, late: a.late(), missing: a.missing}
	if in.follows, err = r.follows(ctx, ref, a); err != nil {
		return err
	}
	err = r.enter(ctx, ref, &entry{incoming: in, sender: sender.NID})
	if errors.Is(err, errHeld) {
		return nil
	}
	return err
}

// maxAside bounds how far the ends of a room are looked for behind events that are not part of its present.
const maxAside = 20

// follows finds what an event follows in the room's present: its parents and, where one of them was rejected or
// soft-failed, what that follows. Otherwise whoever follows such an event would leave an end of the room behind for good.
func (r *Rooms) follows(ctx context.Context, ref Ref, a *arrival) ([]matrix.EventID, error) {
	aside := func(rows map[matrix.EventID]*store.EventRow, ids []matrix.EventID) (next []matrix.EventID) {
		for _, id := range ids {
			if row := rows[id]; row != nil && row.Flags&(store.FlagRejected|store.FlagSoftFailed) != 0 {
				next = append(next, row.Event.PrevEvents()...)
			}
		}
		return next
	}
	all := slices.Clone(a.event.PrevEvents())
	next := aside(a.rows, all)
	for range maxAside {
		if len(next) == 0 || len(all) > 10*maxExtremities {
			break
		}
		all = append(all, next...)
		rows := map[matrix.EventID]*store.EventRow{}
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			return tx.EventsByID(ref.NID, next, func(row *store.EventRow) { rows[row.Event.ID()] = row })
		})
		if err != nil {
			return nil, err
		}
		next = aside(rows, next)
	}
	return all, nil
}
