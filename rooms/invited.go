package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of what an invitation shows of its room (threats, section 1).
const (
	maxInviteState  = 100
	maxInviteBytes  = 64 << 10
	maxStrippedItem = 16 << 10
)

// Invitation is one that another server sends for a user of ours.
type Invitation struct {
	Origin  matrix.ServerName
	Room    matrix.RoomID
	ID      matrix.EventID
	Version matrix.RoomVersion
	Event   json.RawMessage
	State   []json.RawMessage // what it shows of the room
}

// Invited checks an invitation of a user of ours, signs it and shows it to the user (threats F06). In a room that we are
// in the event itself will come as any other, so that it is only signed here.
func (r *Rooms) Invited(ctx context.Context, in Invitation) (*matrix.Event, error) {
	ev, err := r.readInvitation(in)
	if err != nil {
		return nil, err
	}
	invitee, err := r.invitee(ctx, ev)
	if err != nil {
		return nil, err
	}
	if err := r.verified(ctx, ev); err != nil {
		return nil, err
	}
	if err := r.requireInvitable(ctx, matrix.UserID(invitee)); err != nil {
		return nil, err
	}
	stripped, err := r.inviteState(ctx, in, ev)
	if err != nil {
		return nil, err
	}
	nid, err := r.db.AddRoom(ctx, in.Room, in.Version)
	if err != nil {
		return nil, matrix.InvalidParam("The room is known here in another version.").With(err)
	}
	ref := Ref{NID: nid, ID: in.Room, Version: in.Version}
	r.inbound.settle(ctx, nid)
	here, err := r.resident(ctx, nid)
	if err != nil {
		return nil, err
	}
	if here {
		if err := r.mayBeInvited(ctx, ref, in.Origin, matrix.UserID(invitee)); err != nil {
			return nil, err
		}
		// The last of ours may have been removed between the two looks: then nobody sends us the event.
		if here, err = r.resident(ctx, nid); err != nil {
			return nil, err
		}
	}
	signed, err := ev.WithSignature(r.own.Name, r.own.KeyID, r.own.Key)
	if err != nil || here {
		return signed, err
	}
	return signed, r.PutOutside(ctx, ref, signed, stripped)
}

// readInvitation reads the event and checks that path, request and event say the same.
func (r *Rooms) readInvitation(in Invitation) (*matrix.Event, error) {
	ev, err := matrix.ParseEvent(in.Event, in.Version)
	if err != nil {
		return nil, matrix.InvalidParam("The event has not the form of its room's version.").With(err)
	}
	key, _ := ev.StateKey()
	user, err := matrix.ParseUserID(key)
	switch {
	case ev.ID() != in.ID:
		return nil, matrix.InvalidParam("The event is not %s.", in.ID)
	case ev.RoomID() != in.Room:
		return nil, matrix.InvalidParam("The event is of another room.")
	case ev.Type() != "m.room.member" || ev.Membership() != "invite":
		return nil, matrix.InvalidParam("The event is not an invitation.")
	case ev.Sender().Server() != in.Origin:
		return nil, matrix.InvalidParam("The event's sender is not a user of %s.", in.Origin)
	case err != nil || !r.own.IsOurs(user.Server()):
		return nil, matrix.InvalidParam("The invited user is not one of this server.")
	case !ev.CheckContentHash():
		return nil, matrix.InvalidParam("The event's hash does not fit.")
	}
	return ev, nil
}

// invitee refuses invitations of users that do not exist (any more).
func (r *Rooms) invitee(ctx context.Context, ev *matrix.Event) (string, error) {
	key, _ := ev.StateKey()
	if err := r.provideUser(ctx, matrix.UserID(key)); err != nil {
		return "", err
	}
	var account *store.Account
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.Account(matrix.UserID(key).Localpart())
		return err
	})
	if err == nil && (account == nil || account.Deactivated) {
		err = matrix.Forbidden("There is no user %s.", key)
	}
	return key, err
}

// mayBeInvited refuses an invitation into a room that we are in which the room's present does not allow.
func (r *Rooms) mayBeInvited(ctx context.Context, ref Ref, origin matrix.ServerName, user matrix.UserID) error {
	if err := r.requireAllowed(ctx, ref, origin); err != nil {
		return err
	}
	stands, err := r.membershipOf(ctx, ref.NID, user)
	if err != nil {
		return err
	}
	switch stands {
	case store.Join:
		return matrix.Forbidden("%s is in the room already.", user)
	case store.Ban:
		return matrix.Forbidden("%s is banned from the room.", user)
	}
	return nil
}

// inviteState turns what an invitation shows of its room into stripped state. From room version 12 on it must be made of
// whole events of the room, signed, the creation among them; before, what is not usable is left out.
func (r *Rooms) inviteState(ctx context.Context, in Invitation, invite *matrix.Event) (string, error) {
	size := 0
	for _, raw := range in.State {
		size += len(raw)
	}
	if len(in.State) > maxInviteState || size > maxInviteBytes {
		return "", matrix.Errorf(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "An invitation shows at most %d events and %d bytes of its room.", maxInviteState, maxInviteBytes)
	}
	strict := in.Version.RoomIDIsCreateHash()
	var whole []*matrix.Event
	var items [][]byte
	created := false
	for _, raw := range in.State {
		ev, err := matrix.ParseEvent(raw, in.Version)
		if err == nil && ev.IsState() && ev.RoomID() == in.Room {
			whole = append(whole, ev)
			items = append(items, matrix.Stripped(ev))
			created = created || ev.Type() == "m.room.create" && ev.StateKeyEquals("")
			continue
		}
		if strict {
			return "", matrix.InvalidParam("invite_room_state holds something that is not a state event of the room.").With(err)
		}
		if item := strippedItem(raw); item != nil {
			items = append(items, item)
		}
	}
	if strict && !created {
		return "", matrix.InvalidParam("invite_room_state does not hold the room's creation.")
	}
	if strict {
		for _, err := range r.source.VerifyEvents(ctx, whole) {
			if err != nil {
				return "", matrix.InvalidParam("invite_room_state holds an event whose signatures cannot be verified.").With(err)
			}
		}
	}
	return "[" + string(bytes.Join(items, []byte(","))) + "]", nil
}

// strippedItem reads a stripped state event strictly and writes it anew, nil if it is none.
func strippedItem(raw []byte) []byte {
	var item struct {
		Type    *string         `json:"type"`
		Key     *string         `json:"state_key"`
		Sender  string          `json:"sender"`
		Content json.RawMessage `json:"content"`
	}
	if len(raw) > maxStrippedItem || matrix.Decode(raw, &item) != nil || item.Type == nil || item.Key == nil {
		return nil
	}
	if _, err := matrix.ParseUserID(item.Sender); err != nil || !bytes.HasPrefix(item.Content, []byte("{")) {
		return nil
	}
	out, err := matrix.Encode(map[string]any{"type": *item.Type, "state_key": *item.Key, "sender": item.Sender, "content": item.Content})
	if err != nil {
		return nil
	}
	return out
}

// Withdrawn takes in the end of an invitation or a knock of a user of ours at a room that we are not in, and says which
// event it was: the user's removal, which names the invitation or the knock among its auth events. Whether the room allows
// it cannot be told from outside; all that it can do is take back what the same server gave, or deny a knock, of which
// only who is in the room knows.
func (r *Rooms) Withdrawn(ctx context.Context, origin matrix.ServerName, raw json.RawMessage) (matrix.EventID, error) {
	if err := matrix.CheckJSON(raw, matrix.Limits{Bytes: maxRawEvent}); err != nil {
		return "", matrix.BadJSON("The event is not usable JSON.").With(err)
	}
	room, _ := matrix.GetString(raw, "room_id")
	user, _ := matrix.GetString(raw, "state_key")
	if !r.own.IsOurs(matrix.UserID(user).Server()) {
		return "", matrix.NotFound("The event is about nobody here.")
	}
	ref, err := r.Lookup(ctx, matrix.RoomID(room))
	if err != nil {
		return "", err
	}
	pending, err := r.pendingOf(ctx, ref, matrix.UserID(user))
	if err != nil {
		return "", err
	}
	ev, err := matrix.ParseEvent(raw, ref.Version)
	if err != nil {
		return "", matrix.BadJSON("The event is malformed.").With(err)
	}
	ends := ev.Membership() == "leave" || ev.Membership() == "ban"
	if !ends || ev.RoomID() != ref.ID || ev.Sender().Server() != origin ||
		pending.Membership() == "invite" && pending.Sender().Server() != origin ||
		!slices.Contains(ev.AuthEvents(), pending.ID()) || !ev.CheckContentHash() {
		return "", matrix.Forbidden("The event ends neither an invitation nor a knock.")
	}
	if err := r.verified(ctx, ev); err != nil {
		return "", err
	}
	return ev.ID(), r.PutOutside(ctx, ref, ev, "")
}

// pendingOf finds the invitation or the knock of a user of ours at a room that we are not in.
func (r *Rooms) pendingOf(ctx context.Context, ref Ref, user matrix.UserID) (*matrix.Event, error) {
	here, err := r.resident(ctx, ref.NID)
	if err != nil {
		return nil, err
	}
	row, err := r.MembershipByID(ctx, ref.NID, user)
	if err != nil {
		return nil, err
	}
	if here || row == nil || row.Membership != store.Invite && row.Membership != store.Knock {
		return nil, matrix.NotFound("The user is neither invited to a room from outside nor knocks at it.")
	}
	rows, err := r.eventsByNID(ctx, ref.NID, []store.EventNID{row.Event})
	if err != nil {
		return nil, err
	}
	return rows[0].Event, nil
}
