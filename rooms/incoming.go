package rooms

import (
	"context"
	"errors"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// incoming is an event that was made elsewhere, or here and signed elsewhere before it could enter: it has its parents
// already. It passed every check that does not depend on the present (receive.go).
type incoming struct {
	event  *matrix.Event
	before store.State // the state before it, from its parents

	late    bool             // something that we hold follows it already: it never becomes an end of the room
	anew    bool             // it begins the room's present, whatever that was: our join through another server
	shown   statetree.Name   // with anew: the members that the projection of members shows already
	follows []matrix.EventID // what it follows, also through events that are not part of the present; prev_events if nil
	missing []matrix.EventID // which of its parents we do not hold
	send    bool             // it is ours to send to the other servers
	back    bool             // with send: also to its sender's server, which did not make it
	asked   bool             // the room's policy server was asked about it
}

// parents are the events whose places as ends of the room an event takes.
func (in *incoming) parents() []matrix.EventID {
	if in.follows != nil {
		return in.follows
	}
	return in.event.PrevEvents()
}

// errHeld is what the door answers when an event is there already: somebody else was faster.
var errHeld = errors.New("rooms: the event is held already")

// settled says whether what we hold of an event is final: it has a place, or will never have one.
func settled(row *store.EventRow) bool {
	return row.Pos != 0 || row.Flags&(store.FlagRejected|store.FlagSoftFailed) != 0
}

// prepareIncoming checks an event against the room's present and places it. One that the present does not allow is
// soft-failed: written, never shown, never followed (server-server API, "Soft failure").
func (d *draft) prepareIncoming(ctx context.Context, e *entry) error {
	in := e.incoming
	held, err := d.known(ctx, in.event.ID())
	if err != nil {
		return err
	}
	if held != nil && settled(held) {
		return errHeld
	}
	row, err := d.newRow(e, in.event, held)
	if err != nil {
		return err
	}
	if in.event.IsState() {
		row.Height = store.HeightOn(in.event.AuthEvents(), func(id matrix.EventID) int64 { return d.heights[id] })
	}
	if in.send {
		row.Flags |= store.FlagSend
	}
	if in.back {
		row.Flags |= store.FlagSendBack
	}
	for _, id := range in.missing {
		d.out.Gaps = append(d.out.Gaps, store.Gap{Room: d.ref.NID, Event: row.NID, Missing: id})
	}
	if in.late {
		d.out.Filled = append(d.out.Filled, in.event.ID())
	}
	allowed := true
	if d.head.nid != 0 && !in.anew {
		if allowed, err = d.allowsNow(ctx, in.event); err != nil {
			return err
		}
		if allowed {
			if allowed, err = d.agreed(ctx, in); err != nil {
				return err
			}
		}
	}
	if err := d.redactedBefore(ctx, row, allowed && d.head.nid != 0 && !in.anew); err != nil {
		return err
	}
	if !allowed {
		return d.setAside(ctx, e, row, in.before)
	}
	return d.place(ctx, e, row, in.before)
}

// allowsNow says whether the present state would let an event in: by the rules, and by the access list for servers,
// which whoever evades it could otherwise pass by way of another server.
func (d *draft) allowsNow(ctx context.Context, ev *matrix.Event) (bool, error) {
	state, _, err := d.authState(ctx, authrules.Needed(ev))
	if err != nil {
		return false, err
	}
	if authrules.Check(ev, state) != nil {
		return false, nil
	}
	acl, err := d.lookup(ctx, authrules.StateKey{Type: "m.room.server_acl"})
	if err != nil || acl == nil {
		return err == nil, err
	}
	return d.r.acl(acl).Allowed(ev.Sender().Server()), nil
}

// setAside writes an event that does not become part of the room's present, with the state around it, because events
// that follow it may be allowed.
func (d *draft) setAside(ctx context.Context, e *entry, row *store.EventRow, before store.State) error {
	after := before
	if key, ok := row.Event.StateKey(); ok {
		var err error
		if after, err = d.putState(ctx, before, authrules.StateKey{Type: row.Event.Type(), Key: key}, row.NID); err != nil {
			return err
		}
		row.Before = &before
	}
	row.After = &after
	row.Flags |= store.FlagSoftFailed
	d.rows[row.NID] = row
	d.out.Aside = append(d.out.Aside, row)
	e.row = row
	return nil
}
