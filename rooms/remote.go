package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// errNoFederation refuses what only other servers could do.
func errNoFederation() error {
	return matrix.Errorf(http.StatusForbidden, "M_FORBIDDEN", "This server does not talk to other servers.")
}

// detached is an event of ours that has to be signed elsewhere before it can enter its room: built on the head as it is
// now, to be appended later as if it came from outside (law 1).
type detached struct {
	event  *matrix.Event
	before store.State
	by     *policyServer // who has to recommend it, nil for nobody
}

// detach builds an event on a room's present without entering it.
func (r *Rooms) detach(ctx context.Context, ref Ref, t matrix.Template) (*detached, error) {
	h, err := r.loadHead(ctx, ref)
	if err != nil {
		return nil, err
	}
	if h.nid == 0 {
		return nil, matrix.NotFound("This server is not in the room.")
	}
	d := r.newDraft(ref, h)
	keys := authrules.NeededFor(ref.Version, t.Type, t.StateKey, t.Sender, t.Content)
	state, rows, err := d.authState(ctx, keys)
	if err != nil {
		return nil, err
	}
	t.RoomID = ref.ID
	if t.OriginServerTS == 0 {
		t.OriginServerTS = r.now().UnixMilli()
	}
	t.PrevEvents, t.Depth = d.parents()
	for _, row := range rows {
		t.AuthEvents = append(t.AuthEvents, row.Event.ID())
	}
	ev, err := t.Build(ref.Version, r.own.Name, r.own.KeyID, r.own.Key)
	if err != nil {
		return nil, err
	}
	if err := authrules.Check(ev, state); err != nil {
		return nil, refusal(err)
	}
	if ev.Type() == "m.room.redaction" {
		if err := d.mayRedact(ctx, ev); err != nil {
			return nil, err
		}
	}
	by, err := d.policyServer(ctx)
	return &detached{ev, h.state, by}, err
}

// attach brings a detached event, as it came back signed, into its room.
func (r *Rooms) attach(ctx context.Context, ref Ref, d *detached) error {
	sender, err := r.User(ctx, d.event.Sender())
	if err != nil {
		return err
	}
	back := !r.own.IsOurs(d.event.Sender().Server()) // made in the name of who invited an address
	e := &entry{incoming: &incoming{event: d.event, before: d.before, send: true, back: back}, sender: sender.NID}
	if err := r.enter(ctx, ref, e); err != nil {
		return err
	}
	if e.row != nil && e.row.Flags.Has(store.FlagSoftFailed) {
		return matrix.Forbidden("The room has changed meanwhile and does not allow this any more.")
	}
	return nil
}

// enter takes a finished event through the door, resolving the state outside of it as often as that is asked for.
func (r *Rooms) enter(ctx context.Context, ref Ref, e *entry) error {
	return r.enterUnit(ctx, ref, newUnit(e))
}

// enterUnit is enter for a unit of one event; what became of it stands in the unit of the last try.
func (r *Rooms) enterUnit(ctx context.Context, ref Ref, u *unit) error {
	e := u.entries[0]
	kept := !e.incoming.event.IsState()
	for range maxTries {
		*u = *newUnit(e)
		err := r.append(ctx, ref, u)
		var agreement *needAgreement
		if errors.As(err, &agreement) { // asked once: without the recommendation it is soft-failed
			e.incoming.asked = true
			ev, err := r.recommendation(ctx, agreement.by, e.incoming.event)
			if err == nil {
				e.incoming.event = ev
			} else {
				r.log.Info("a policy server does not recommend an event", "room", ref.ID, "server", agreement.by.via, "err", err)
			}
			continue
		}
		var need *needResolution
		if !errors.As(err, &need) {
			return err
		}
		if !kept { // what is resolved has to be stored; the door then names the states by what is stored
			if err := r.keep(ctx, ref, e); err != nil {
				return err
			}
			kept = true
			continue
		}
		if _, err := r.resolve(ctx, ref, need.states); err != nil {
			return err
		}
	}
	return errors.New("rooms: the room changed faster than its state could be resolved")
}

// keep stores an event that is on its way through the door as evidence, with the state after it.
func (r *Rooms) keep(ctx context.Context, ref Ref, e *entry) error {
	ev := e.incoming.event
	var held *store.EventRow
	find := func(tx *store.Tx) (err error) {
		held, err = tx.EventInRoom(ref.NID, ev.ID())
		return err
	}
	if err := r.db.Read(ctx, find); err != nil {
		return err
	}
	if held == nil {
		nid, err := r.db.NextNID(store.KindEvent)
		if err != nil {
			return err
		}
		row := &store.EventRow{
			NID: store.EventNID(nid), Room: ref.NID, Sender: e.sender, Event: ev, Flags: store.FlagState | store.FlagOutlier,
		}
		err = r.db.Write(ctx, func(tx *store.Tx) error {
			if err := tx.Evidence([]*store.EventRow{row}, nil); err != nil {
				return err
			}
			return find(tx)
		})
		if err != nil {
			return err
		}
	}
	_, err := r.stateWith(ctx, ref, e.incoming.before, ev, held.NID)
	return err
}

// inviteRemote invites a user of another server: that server signs the invitation before anybody sees it.
func (r *Rooms) inviteRemote(ctx context.Context, q MemberRequest) (matrix.EventID, error) {
	if r.source == nil {
		return "", errNoFederation()
	}
	d, err := r.detachInvite(ctx, q)
	if err != nil {
		return "", err
	}
	rows, err := r.strippedRows(ctx, q.Room, d.before)
	if err != nil {
		return "", err
	}
	stripped := make([]json.RawMessage, 0, len(rows)+1)
	for _, row := range rows {
		stripped = append(stripped, row.Event.JSON())
	}
	if row, err := r.StateEvent(ctx, q.Room.NID, d.before, "m.room.member", string(q.Sender.ID)); err == nil && row != nil {
		stripped = append(stripped, row.Event.JSON())
	}
	raw, err := r.source.Invite(ctx, d.event, stripped)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", toClient(err, q.Target.Server())
	}
	signed, err := matrix.ParseEvent(raw, q.Room.Version)
	if err == nil { // of the answer nothing counts but the signature: the event enters the room in our user's name
		d.event, err = d.event.TakeSignatures(q.Target.Server(), signed)
	}
	if err != nil {
		return "", matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The server of %s answered the invitation with something else.", q.Target).With(err)
	}
	return d.event.ID(), r.attachInvite(ctx, q, d)
}

// detachInvite builds an invitation without entering it into its room, with the recommendation of the room's policy
// server if there is one.
func (r *Rooms) detachInvite(ctx context.Context, q MemberRequest) (*detached, error) {
	content, err := q.content("invite")
	if err != nil {
		return nil, err
	}
	key := string(q.Target)
	d, err := r.detach(ctx, q.Room, matrix.Template{Sender: q.Sender.ID, Type: "m.room.member", StateKey: &key, Content: content})
	if err != nil {
		return nil, err
	}
	if d.by != nil {
		d.event, err = r.recommendation(ctx, *d.by, d.event)
	}
	return d, err
}

// attachInvite brings an invitation into its room. One that is made from an invitation to an address is allowed by the
// rules whatever the user has become meanwhile; it must not put out who has joined.
func (r *Rooms) attachInvite(ctx context.Context, q MemberRequest, d *detached) error {
	if q.third != nil {
		if stands, err := r.membershipOf(ctx, q.Room.NID, q.Target); err != nil || stands == store.Join {
			return err
		}
	}
	return r.attach(ctx, q.Room, d)
}
