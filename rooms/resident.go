package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// What this server does for others as a resident of a room: it proposes membership events to servers that are not in
// it, and takes them in once they are signed (server-server API, "Joining Rooms", "Leaving Rooms", "Knocking").

// residentOf finds a room in which we have a user, for a server that may take part in it.
func (r *Rooms) residentOf(ctx context.Context, id matrix.RoomID, origin matrix.ServerName) (Ref, error) {
	ref, err := r.Lookup(ctx, id)
	if err != nil {
		return ref, err
	}
	here, err := r.resident(ctx, ref.NID)
	if err != nil {
		return ref, err
	}
	if !here {
		return ref, matrix.NotFound("This server is not in the room %s.", id)
	}
	return ref, r.requireAllowed(ctx, ref, origin)
}

// requireAllowed refuses (M_FORBIDDEN) servers that the room's access list shuts out.
func (r *Rooms) requireAllowed(ctx context.Context, ref Ref, server matrix.ServerName) error {
	ok, err := r.ServerAllowed(ctx, ref, server)
	if err == nil && !ok {
		err = matrix.Forbidden("The room's access list shuts out %s.", server)
	}
	return err
}

// ServerAllowed says whether a room's access list, if it has one, lets a server take part.
func (r *Rooms) ServerAllowed(ctx context.Context, ref Ref, server matrix.ServerName) (bool, error) {
	row, err := r.aclRow(ctx, ref)
	if err != nil || row == nil {
		return err == nil, err
	}
	return r.acl(row).Allowed(server), nil
}

// aclRow is the room's access list for servers, nil if it has none.
func (r *Rooms) aclRow(ctx context.Context, ref Ref) (*store.EventRow, error) {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return nil, err
	}
	return r.StateEvent(ctx, ref.NID, state, "m.room.server_acl", "")
}

// Proposal is a membership event that a user of another server is to make.
type Proposal struct {
	Version matrix.RoomVersion
	Event   *matrix.Event // neither hashed nor signed
}

// Propose builds the membership event (join, leave or knock) by which a user of another server may change its standing
// in a room that we are in. versions are those that the other server understands; nil is all.
func (r *Rooms) Propose(ctx context.Context, origin matrix.ServerName, room matrix.RoomID, user matrix.UserID, membership string, versions []string) (*Proposal, error) {
	if user.Server() != origin {
		return nil, matrix.Forbidden("%s is not a user of %s.", user, origin)
	}
	ref, err := r.residentOf(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	if versions != nil && !slices.Contains(versions, ref.Version.String()) {
		return nil, matrix.Errorf(400, "M_INCOMPATIBLE_ROOM_VERSION", "The room has version %s, which your server does not support.", ref.Version).
			WithField("room_version", ref.Version.String())
	}
	if membership == "knock" && !ref.Version.Knocking() {
		return nil, matrix.Forbidden("Nobody can knock on a room of version %s.", ref.Version)
	}
	content := map[string]any{"membership": membership}
	if membership == "join" {
		via, err := r.letsIn(ctx, ref, user)
		if err != nil {
			return nil, err
		}
		if via != "" {
			content["join_authorised_via_users_server"] = via
		}
	}
	ev, err := r.proposed(ctx, ref, user, content)
	if err != nil {
		return nil, err
	}
	return &Proposal{ref.Version, ev}, nil
}

// proposed builds a membership event on the room's present and checks that it would be allowed.
func (r *Rooms) proposed(ctx context.Context, ref Ref, user matrix.UserID, content map[string]any) (*matrix.Event, error) {
	h, err := r.loadHead(ctx, ref)
	if err != nil {
		return nil, err
	}
	key := string(user)
	t := matrix.Template{RoomID: ref.ID, Sender: user, Type: "m.room.member", StateKey: &key, OriginServerTS: r.now().UnixMilli()}
	if t.Content, err = matrix.Encode(content); err != nil {
		return nil, err
	}
	d := r.newDraft(ref, h)
	state, rows, err := d.authState(ctx, authrules.NeededFor(ref.Version, t.Type, t.StateKey, t.Sender, t.Content))
	if err != nil {
		return nil, err
	}
	t.PrevEvents, t.Depth = d.parents()
	for _, row := range rows {
		t.AuthEvents = append(t.AuthEvents, row.Event.ID())
	}
	ev, err := t.Unsigned(ref.Version)
	if err != nil {
		return nil, err
	}
	return ev, refusal(authrules.Check(ev, state))
}

// letsIn finds the user of ours by whose leave a user of another server joins: "" where nobody's is needed. Its errors
// are those of the specification for restricted rooms.
func (r *Rooms) letsIn(ctx context.Context, ref Ref, user matrix.UserID) (matrix.UserID, error) {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return "", err
	}
	rules, err := r.StateEvent(ctx, ref.NID, state, "m.room.join_rules", "")
	if err != nil || rules == nil || !ref.Version.RestrictedJoins() {
		return "", err
	}
	rule := matrix.ParseJoinRule(rules.Event.Content())
	if rule.Rule != "restricted" && !(rule.Rule == "knock_restricted" && ref.Version.KnockRestricted()) {
		return "", nil
	}
	stands, err := r.membershipOf(ctx, ref.NID, user)
	if err != nil || stands == store.Join || stands == store.Invite {
		return "", err
	}
	if err := r.requireCondition(ctx, rule, user); err != nil {
		return "", err
	}
	via, err := r.localInviter(ctx, ref, state)
	if err == nil && via == "" {
		err = matrix.Errorf(400, "M_UNABLE_TO_GRANT_JOIN", "Nobody of this server may let %s in; ask another.", user)
	}
	return via, err
}

// requireCondition refuses who meets none of the conditions of a restricted rule, telling apart what is known to be so
// and what cannot be told here.
func (r *Rooms) requireCondition(ctx context.Context, rule matrix.JoinRule, user matrix.UserID) error {
	unknown := false
	for _, id := range rule.AllowedRooms {
		ref, err := r.Lookup(ctx, id)
		if err != nil {
			unknown = true
			continue
		}
		here, err := r.resident(ctx, ref.NID)
		if err != nil {
			return err
		}
		if !here { // what we know of it may be long past
			unknown = true
			continue
		}
		stands, err := r.membershipOf(ctx, ref.NID, user)
		if err != nil || stands == store.Join {
			return err
		}
	}
	if unknown {
		return matrix.Errorf(400, "M_UNABLE_TO_AUTHORISE_JOIN", "This server cannot tell whether %s may join.", user)
	}
	return matrix.Forbidden("%s is in none of the rooms whose members may join this one.", user)
}

// Accepted is a membership event that we took into a room for another server.
type Accepted struct {
	Ref   Ref
	Event *matrix.Event // with our signature where we let the user in
	State store.State   // before the event
}

// Accept takes a signed membership event of a user of another server into a room that we are in, and sends it on to the
// others there (threats F04, F21, F22). What came before and is in the room already is answered again.
func (r *Rooms) Accept(ctx context.Context, origin matrix.ServerName, room matrix.RoomID, id matrix.EventID, membership string, raw []byte) (*Accepted, error) {
	ref, err := r.residentOf(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	ev, err := readMember(ref, origin, id, membership, raw)
	if err != nil {
		return nil, err
	}
	if ev, err = r.countersign(ctx, ref, ev); err != nil {
		return nil, err
	}
	if err := r.verified(ctx, ev); err != nil {
		return nil, err
	}
	held, err := r.held(ctx, ref, ev.ID())
	if err != nil {
		return nil, err
	}
	if held != nil && !bytes.Equal(held.Event.SigningBytes(), ev.SigningBytes()) { // servers choose the IDs in versions 1 and 2
		return nil, matrix.InvalidParam("There is another event with this ID.")
	}
	if held != nil {
		return &Accepted{ref, held.Event, held.StateBefore()}, nil
	}
	in, err := r.admissible(ctx, ref, ev)
	if err != nil {
		return nil, err
	}
	sender, err := r.User(ctx, ev.Sender())
	if err != nil {
		return nil, err
	}
	err = r.enter(ctx, ref, &entry{incoming: in, sender: sender.NID})
	if err != nil && !errors.Is(err, errHeld) { // it may have come twice at the same time
		return nil, err
	}
	if held, err = r.held(ctx, ref, ev.ID()); err != nil {
		return nil, err
	}
	if held == nil {
		return nil, matrix.Forbidden("The room does not allow this any more.")
	}
	return &Accepted{ref, held.Event, held.StateBefore()}, nil
}

// readMember reads a membership event that another server sends of one of its users about itself, and checks that path,
// room and event say the same.
func readMember(ref Ref, origin matrix.ServerName, id matrix.EventID, membership string, raw []byte) (*matrix.Event, error) {
	ev, err := matrix.ParseEvent(raw, ref.Version)
	if err != nil {
		return nil, matrix.InvalidParam("The event has not the form of its room's version.").With(err)
	}
	key, _ := ev.StateKey()
	switch {
	case ev.ID() != id:
		return nil, matrix.InvalidParam("The event is not %s.", id)
	case ev.RoomID() != ref.ID:
		return nil, matrix.InvalidParam("The event is of another room.")
	case ev.Type() != "m.room.member" || ev.Membership() != membership:
		return nil, matrix.InvalidParam("The event is not a member event with membership %s.", membership)
	case ev.Sender().Server() != origin:
		return nil, matrix.InvalidParam("The event's sender is not a user of %s.", origin)
	case key != string(ev.Sender()):
		return nil, matrix.InvalidParam("The event is about somebody else than its sender.")
	case !ev.CheckContentHash():
		return nil, matrix.InvalidParam("The event's hash does not fit.")
	}
	return ev, nil
}

// countersign adds our signature to a join that a user of ours lets in, after checking that it is so.
func (r *Rooms) countersign(ctx context.Context, ref Ref, ev *matrix.Event) (*matrix.Event, error) {
	if ev.Membership() != "join" || !ref.Version.RestrictedJoins() {
		return ev, nil
	}
	named, ok := matrix.GetString(ev.Content(), "join_authorised_via_users_server")
	if !ok || !r.own.IsOurs(matrix.UserID(named).Server()) {
		return ev, nil // whether another server's signature is needed and there, the checks say
	}
	if _, err := matrix.ParseUserID(named); err != nil {
		return nil, matrix.InvalidParam("join_authorised_via_users_server is not a user ID.").With(err)
	}
	if _, err := r.letsIn(ctx, ref, ev.Sender()); err != nil {
		return nil, err
	}
	return ev.WithSignature(r.own.Name, r.own.KeyID, r.own.Key)
}

// verified refuses an event without the signatures that it must have.
func (r *Rooms) verified(ctx context.Context, ev *matrix.Event) error {
	if r.source == nil {
		return errNoFederation()
	}
	if err := r.source.VerifyEvents(ctx, []*matrix.Event{ev})[0]; err != nil {
		return matrix.InvalidParam("The event's signatures cannot be verified.").With(err)
	}
	return nil
}

// held finds an event that is in the room's present or history already, nil if it is not.
func (r *Rooms) held(ctx context.Context, ref Ref, id matrix.EventID) (row *store.EventRow, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.EventInRoom(ref.NID, id)
		return err
	})
	if row != nil && !row.Visible() {
		row = nil
	}
	return row, err
}

// admissible finds the place of an event whose parents and auth events we all hold, checked against its auth events and
// the state before it. Others are refused: who makes an event from our proposal cites what we have.
func (r *Rooms) admissible(ctx context.Context, ref Ref, ev *matrix.Event) (*incoming, error) {
	a := &arrival{event: ev}
	if err := r.look(ctx, ref, a); err != nil {
		return nil, err
	}
	if lacks := a.lacks(); len(lacks.parents) > 0 || len(lacks.auth) > 0 || len(ev.PrevEvents()) == 0 {
		return nil, matrix.InvalidParam("The event follows or cites events that this server does not have.")
	}
	if refused := a.refusedByAuth(); refused != nil {
		return nil, forbidden(refused)
	}
	before, err := r.stateBefore(ctx, ref, a)
	if err != nil {
		return nil, err
	}
	refused, err := r.refusedBy(ctx, ref, before, ev)
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, forbidden(refused)
	}
	in := &incoming{event: ev, before: before, late: a.late(), send: true}
	in.follows, err = r.follows(ctx, ref, a)
	return in, err
}

// forbidden is a refusal as another server is told it, whatever found it.
func forbidden(why error) error {
	var known *matrix.Error
	if err := refusal(why); errors.As(err, &known) {
		return err
	}
	return matrix.Forbidden("The room does not allow this.").With(why)
}

// eventsByID reads those of some events that a room has.
func (r *Rooms) eventsByID(ctx context.Context, ref Ref, ids []matrix.EventID) (map[matrix.EventID]*store.EventRow, error) {
	found := make(map[matrix.EventID]*store.EventRow, len(ids))
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.EventsByID(ref.NID, ids, func(row *store.EventRow) { found[row.Event.ID()] = row })
	})
	return found, err
}

// KnockState is what a server whose user's knock was accepted gets to show of the room: whole events.
func (r *Rooms) KnockState(ctx context.Context, a *Accepted) ([]json.RawMessage, error) {
	rows, err := r.strippedRows(ctx, a.Ref, a.State)
	if err != nil {
		return nil, err
	}
	state := make([]json.RawMessage, 0, len(rows))
	for _, row := range rows {
		state = append(state, row.Event.JSON())
	}
	return state, nil
}
