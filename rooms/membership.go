package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// MemberRequest is a change of somebody's membership by a local user.
type MemberRequest struct {
	Room    Ref
	Sender  Sender
	Target  matrix.UserID
	Reason  string
	Profile Profile // of the target, where the server knows it; for joins and invitations
	Direct  bool    // the invitation is to a direct chat
	Txn     store.TxnKey

	third json.RawMessage // third_party_invite: the invitation is made from one to an address
}

// maxReason bounds what people may say about a change of membership, in bytes.
const maxReason = 4096

// content is the content of the member event for a request.
func (q *MemberRequest) content(membership string) ([]byte, error) {
	if len(q.Reason) > maxReason {
		return nil, matrix.InvalidParam("A reason has at most %d bytes.", maxReason)
	}
	more := map[string]any{}
	if q.Reason != "" {
		more["reason"] = q.Reason
	}
	if q.Direct && membership == "invite" {
		more["is_direct"] = true
	}
	if q.third != nil && membership == "invite" {
		more["third_party_invite"] = q.third
	}
	return matrix.Encode(memberContent(membership, q.Profile, more))
}

// change sends a member event of a local user through the door.
func (r *Rooms) change(ctx context.Context, q MemberRequest, membership string) (matrix.EventID, error) {
	content, err := q.content(membership)
	if err != nil {
		return "", err
	}
	key := string(q.Target)
	return r.send(ctx, SendRequest{
		Room: q.Room, Sender: q.Sender, Type: "m.room.member", StateKey: &key, Content: content, Txn: q.Txn,
	})
}

// Membership says where a user stands in a room now. The row is nil for somebody who never had to do with it.
func (r *Rooms) Membership(ctx context.Context, room store.RoomNID, user store.UserNID) (*store.MemberRow, error) {
	var row *store.MemberRow
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Membership(room, user)
		return err
	})
	return row, err
}

// MembershipByID is Membership for a user ID that came from outside: it leaves no trace of one that was never heard of.
func (r *Rooms) MembershipByID(ctx context.Context, room store.RoomNID, id matrix.UserID) (row *store.MemberRow, err error) {
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.MembershipByID(room, id)
		return err
	})
	return row, err
}

// membershipOf is Membership for a user ID, without a row for strangers.
func (r *Rooms) membershipOf(ctx context.Context, room store.RoomNID, id matrix.UserID) (store.Membership, error) {
	user, err := r.User(ctx, id)
	if err != nil {
		return store.NotMember, err
	}
	row, err := r.Membership(ctx, room, user.NID)
	if err != nil || row == nil {
		return store.NotMember, err
	}
	return row.Membership, nil
}

// RequireJoined refuses (M_FORBIDDEN) whoever is not joined to the room.
func (r *Rooms) RequireJoined(ctx context.Context, room store.RoomNID, user store.UserNID) error {
	row, err := r.Membership(ctx, room, user)
	if err != nil {
		return err
	}
	if row == nil || row.Membership != store.Join {
		return matrix.Forbidden("You are not in this room.")
	}
	return nil
}

// Invite invites somebody, through the invitee's server if that is another one. Inviting somebody who is invited
// already is allowed again: it may reach a client that lost the first one.
func (r *Rooms) Invite(ctx context.Context, q MemberRequest) (matrix.EventID, error) {
	if err := r.RequireJoined(ctx, q.Room.NID, q.Sender.NID); err != nil {
		return "", err
	}
	stands, err := r.membershipOf(ctx, q.Room.NID, q.Target)
	if err != nil {
		return "", err
	}
	switch stands {
	case store.Join:
		return "", matrix.Forbidden("%s is in this room already.", q.Target)
	case store.Ban:
		return "", matrix.Forbidden("%s is banned from this room.", q.Target)
	}
	if !r.own.IsOurs(q.Target.Server()) {
		return r.inviteRemote(ctx, q)
	}
	if err := r.requireInvitable(ctx, q.Target); err != nil {
		return "", err
	}
	return r.change(ctx, q, "invite")
}

// Kick removes somebody who is joined, invited or knocking.
func (r *Rooms) Kick(ctx context.Context, q MemberRequest) (matrix.EventID, error) {
	if err := r.RequireJoined(ctx, q.Room.NID, q.Sender.NID); err != nil {
		return "", err
	}
	stands, err := r.membershipOf(ctx, q.Room.NID, q.Target)
	if err != nil {
		return "", err
	}
	switch stands {
	case store.Join, store.Invite, store.Knock:
		return r.change(ctx, q, "leave")
	}
	return "", matrix.Forbidden("%s is not in this room.", q.Target)
}

// Ban bans somebody, whether in the room or not.
func (r *Rooms) Ban(ctx context.Context, q MemberRequest) (matrix.EventID, error) {
	if err := r.RequireJoined(ctx, q.Room.NID, q.Sender.NID); err != nil {
		return "", err
	}
	return r.change(ctx, q, "ban")
}

// Unban lets somebody who is banned come back.
func (r *Rooms) Unban(ctx context.Context, q MemberRequest) (matrix.EventID, error) {
	if err := r.RequireJoined(ctx, q.Room.NID, q.Sender.NID); err != nil {
		return "", err
	}
	stands, err := r.membershipOf(ctx, q.Room.NID, q.Target)
	if err != nil {
		return "", err
	}
	if stands != store.Ban {
		return "", matrix.Forbidden("%s is not banned from this room.", q.Target)
	}
	return r.change(ctx, q, "leave")
}

// Leave takes a user out of a room, or declines an invitation, or withdraws a knock. Leaving a room that one has left
// already does nothing.
func (r *Rooms) Leave(ctx context.Context, q MemberRequest) error {
	row, err := r.Membership(ctx, q.Room.NID, q.Sender.NID)
	if err != nil {
		return err
	}
	if row == nil {
		return matrix.NotFound("You were never in this room.")
	}
	switch row.Membership {
	case store.Leave:
		return nil
	case store.Ban:
		return matrix.Forbidden("You are banned from this room.")
	}
	q.Target, q.Profile = q.Sender.ID, Profile{}
	resident, err := r.resident(ctx, q.Room.NID)
	if err != nil {
		return err
	}
	if !resident {
		return r.leaveRemote(ctx, q)
	}
	_, err = r.change(ctx, q, "leave")
	return err
}

// Forget hides a room that the user has left from its history. A room one is in cannot be forgotten.
func (r *Rooms) Forget(ctx context.Context, room store.RoomNID, user store.UserNID) error {
	return r.db.Write(ctx, func(tx *store.Tx) error {
		row, err := tx.Membership(room, user)
		if err != nil {
			return err
		}
		if row == nil {
			return matrix.NotFound("You were never in this room.")
		}
		if row.Membership != store.Leave && row.Membership != store.Ban {
			return matrix.Errorf(400, "M_UNKNOWN", "Leave the room before you forget it.")
		}
		tx.AfterCommit(func() { r.bus.Publish(cluster.Stream, 0) })
		return tx.Forget(room, user)
	})
}

// resident says whether any user of ours is joined, so that the room's present is ours to extend.
func (r *Rooms) resident(ctx context.Context, room store.RoomNID) (bool, error) {
	var yes bool
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		yes, err = tx.ServerIn(room, r.own.Name)
		return err
	})
	return yes, err
}

// sendMember is a state event m.room.member sent as such: the membership methods in another form, with their checks.
func (r *Rooms) sendMember(ctx context.Context, req SendRequest) (matrix.EventID, error) {
	membership, _ := matrix.GetString(req.Content, "membership")
	target, err := matrix.ParseUserID(*req.StateKey)
	if err != nil {
		return "", matrix.InvalidParam("The state key of a member event is a user ID.").With(err)
	}
	switch store.MembershipOf(membership) {
	case store.NotMember:
		return "", matrix.BadJSON("There is no membership %q.", membership)
	case store.Invite:
		if !r.own.IsOurs(target.Server()) {
			return r.inviteRemote(ctx, MemberRequest{Room: req.Room, Sender: req.Sender, Target: target, Txn: req.Txn})
		}
		if err := r.requireInvitable(ctx, target); err != nil {
			return "", err
		}
	}
	if _, ok := matrix.Get(req.Content, "join_authorised_via_users_server"); ok {
		return "", matrix.BadJSON("Join a restricted room by joining it.")
	}
	return r.send(ctx, req)
}

// JoinRequest is a user's wish to be in a room.
type JoinRequest struct {
	Room    matrix.RoomID
	User    Sender
	Profile Profile
	Reason  string
	Via     []matrix.ServerName // servers that may know the room
	Signed  json.RawMessage     // third_party_signed: shows that an address that was invited is the user's
}

// Join brings a user into a room: by the door if the room is here, through another server if it is not, or if only
// another server may let the user in.
func (r *Rooms) Join(ctx context.Context, q JoinRequest) error {
	if len(q.Signed) > 0 {
		if err := r.present(ctx, &q); err != nil {
			return err
		}
	}
	ref, err := r.Lookup(ctx, q.Room)
	var unknown *matrix.Error
	if errors.As(err, &unknown) && unknown.Code == "M_NOT_FOUND" {
		return r.joinRemote(ctx, q, nil)
	}
	if err != nil {
		return err
	}
	resident, err := r.resident(ctx, ref.NID)
	if err != nil {
		return err
	}
	if !resident {
		return r.joinRemote(ctx, q, &ref)
	}
	stands, err := r.membershipOf(ctx, ref.NID, q.User.ID)
	if err != nil || stands == store.Join {
		return err
	}
	m := MemberRequest{Room: ref, Sender: q.User, Target: q.User.ID, Profile: q.Profile, Reason: q.Reason}
	via, elsewhere, err := r.authoriser(ctx, ref, q.User, stands)
	if err != nil {
		return err
	}
	if elsewhere {
		return r.joinRemote(ctx, q, &ref)
	}
	more := map[string]any{}
	if via != "" {
		more["join_authorised_via_users_server"] = via
	}
	return r.joinLocal(ctx, m, more)
}

func (r *Rooms) joinLocal(ctx context.Context, q MemberRequest, more map[string]any) error {
	if len(q.Reason) > maxReason {
		return matrix.InvalidParam("A reason has at most %d bytes.", maxReason)
	}
	if q.Reason != "" {
		more["reason"] = q.Reason
	}
	content, err := matrix.Encode(memberContent("join", q.Profile, more))
	if err != nil {
		return err
	}
	key := string(q.Target)
	_, err = r.send(ctx, SendRequest{Room: q.Room, Sender: q.Sender, Type: "m.room.member", StateKey: &key, Content: content})
	return err
}

// authoriser finds who lets a user into a restricted room that has not invited it: a user of ours who may invite.
// elsewhere is set when only another server can. Both are empty where the join rule asks for nobody.
func (r *Rooms) authoriser(ctx context.Context, ref Ref, user Sender, stands store.Membership) (via matrix.UserID, elsewhere bool, err error) {
	if stands == store.Invite || !ref.Version.RestrictedJoins() {
		return "", false, nil
	}
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return "", false, err
	}
	rules, err := r.StateEvent(ctx, ref.NID, state, "m.room.join_rules", "")
	if err != nil || rules == nil {
		return "", false, err
	}
	rule := matrix.ParseJoinRule(rules.Event.Content())
	if rule.Rule != "restricted" && rule.Rule != "knock_restricted" {
		return "", false, nil
	}
	allowed, err := r.allowedBy(ctx, rule, user.NID)
	if err != nil || !allowed {
		if err == nil {
			err = matrix.Forbidden("You are in none of the rooms whose members may join this one.")
		}
		return "", false, err
	}
	via, err = r.localInviter(ctx, ref, state)
	return via, via == "", err
}

// allowedBy says whether the user is in one of the rooms that a restricted join rule names, as far as we know.
func (r *Rooms) allowedBy(ctx context.Context, rule matrix.JoinRule, user store.UserNID) (bool, error) {
	for _, id := range rule.AllowedRooms {
		ref, err := r.Lookup(ctx, id)
		if err != nil {
			continue // a room that we do not know vouches for nobody here
		}
		row, err := r.Membership(ctx, ref.NID, user)
		if err != nil {
			return false, err
		}
		if row != nil && row.Membership == store.Join {
			return true, nil
		}
	}
	return false, nil
}

// localInviter finds a joined user of ours with the power to invite, "" if there is none.
func (r *Rooms) localInviter(ctx context.Context, ref Ref, state store.State) (matrix.UserID, error) {
	levels, err := r.levelsAt(ctx, ref, state)
	if err != nil {
		return "", err
	}
	var members []matrix.UserID
	err = r.db.Read(ctx, func(tx *store.Tx) (err error) {
		members, err = tx.MembersOfServer(ref.NID, r.own.Name, store.Join)
		return err
	})
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(members, func(id matrix.UserID) bool { return levels.UserLevel(id) >= levels.Invite })
	if at < 0 {
		return "", nil
	}
	return members[at], nil
}
