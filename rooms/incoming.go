package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// incoming is an event that was made elsewhere, or here and signed elsewhere before it could enter: it has its parents
// already. It passed every check that does not depend on the present (receive.go).
type incoming struct {
	event  *matrix.Event
	before store.State    // the state before it, from its parents
	held   store.EventNID // its number if we hold it as an outlier already
	old    bool           // something that we hold follows it already: it never becomes an end of the room
	send   bool           // it is ours to send to the other servers
}

// prepareIncoming checks an event against the room's present and places it. One that the present does not allow is
// soft-failed: written, never shown, never followed (server-server API, "Soft failure").
func (d *draft) prepareIncoming(ctx context.Context, e *entry) error {
	in := e.incoming
	row, err := d.newRow(e, in.event)
	if err != nil {
		return err
	}
	if in.send {
		row.Flags |= store.FlagSend
	}
	if in.held != 0 {
		row.NID = in.held
		d.out.Replaced = append(d.out.Replaced, in.held)
	}
	if d.head.nid != 0 {
		state, _, err := d.authState(ctx, authrules.Needed(in.event))
		if err != nil {
			return err
		}
		if err := authrules.Check(in.event, state); err != nil {
			return d.setAside(ctx, e, row, in.before)
		}
	}
	if in.old {
		return d.setAside(ctx, e, row, in.before)
	}
	return d.place(ctx, e, row, in.before)
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
