package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// Bounds of what proves that an invitation to an address is a user's.
const (
	maxSigned = 8 << 10
	maxToken  = 255
	maxSpent  = 100 // changes of a membership that are looked through for a token that was used already
)

// Claim says that a user has the address that somebody was invited by: the token of the m.room.third_party_invite, in
// an object that the identity service has signed.
type Claim struct {
	Room   matrix.RoomID
	Sender matrix.UserID // who made the invitation
	User   matrix.UserID
	Token  string
	Signed json.RawMessage // mxid, token and signatures; as it came, since more may be signed
}

// NewClaim checks the form of a claim and reads the token from it.
func NewClaim(room, sender, user string, signed json.RawMessage) (Claim, error) {
	c := Claim{Signed: signed}
	var err error
	if c.Room, err = matrix.ParseRoomID(room); err != nil {
		return c, matrix.InvalidParam("room_id is missing or malformed.").With(err)
	}
	if c.Sender, err = matrix.ParseUserID(sender); err != nil {
		return c, matrix.InvalidParam("The sender of the invitation is missing or malformed.").With(err)
	}
	if c.User, err = matrix.ParseUserID(user); err != nil {
		return c, matrix.InvalidParam("The invited user is missing or malformed.").With(err)
	}
	if err := matrix.CheckJSON(signed, matrix.Limits{Bytes: maxSigned, Depth: 8, Members: 100, CanonicalNumbers: true}); err != nil {
		return c, matrix.BadJSON("What is signed is missing, too large or no usable JSON.").With(err)
	}
	var said struct {
		User       string                       `json:"mxid"`
		Token      string                       `json:"token"`
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := matrix.Decode(signed, &said); err != nil {
		return c, err
	}
	switch {
	case said.User != user:
		return c, matrix.Forbidden("The invitation is signed for somebody else.")
	case !ValidToken(said.Token):
		return c, matrix.InvalidParam("The token of the invitation is missing or malformed.")
	case len(said.Signatures) == 0:
		return c, matrix.Forbidden("The invitation is not signed.")
	}
	c.Token = said.Token
	return c, nil
}

// ValidToken says whether a text has the form of a token of an identity service.
func ValidToken(token string) bool {
	return token != "" && len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(".=_-", r)
	})
}

// Exchange turns an invitation that a user of ours made to an address into one of a user of another server, which asks
// for it (server-server API, exchange_third_party_invite).
func (r *Rooms) Exchange(ctx context.Context, origin matrix.ServerName, c Claim) error {
	switch {
	case c.User.Server() != origin:
		return matrix.Forbidden("%s is not a user of %s.", c.User, origin)
	case !r.own.IsOurs(c.Sender.Server()):
		return matrix.Forbidden("%s is not a user of this server.", c.Sender)
	}
	ref, err := r.Lookup(ctx, c.Room)
	if err != nil {
		return err
	}
	here, err := r.resident(ctx, ref.NID)
	if err != nil {
		return err
	}
	if !here {
		return matrix.NotFound("This server is not in the room.")
	}
	if err := r.requireAllowed(ctx, ref, origin); err != nil {
		return err
	}
	return r.redeem(ctx, ref, c)
}

// errNoOffer is the cause when the room does not hold the invitation of an address that a claim is for.
var errNoOffer = errors.New("rooms: there is no such invitation of an address")

// redeem invites the user of a claim into a room that we are in.
func (r *Rooms) redeem(ctx context.Context, ref Ref, c Claim) error {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return err
	}
	offer, err := r.StateEvent(ctx, ref.NID, state, "m.room.third_party_invite", c.Token)
	if err != nil {
		return err
	}
	if offer == nil || offer.Event.Sender() != c.Sender {
		return matrix.Forbidden("%s has made no such invitation.", c.Sender).With(errNoOffer)
	}
	keys := authrules.Signers(c.Signed, offer.Event.Content(), maxSigners)
	if len(keys) == 0 {
		return matrix.Forbidden("The invitation's signature does not fit.")
	}
	done, err := r.redeemed(ctx, ref, state, c)
	if err != nil || done {
		return err
	}
	// Nobody else may refuse for this reason: the room would fall apart over what an identity service says to each.
	if r.own.IsOurs(c.Sender.Server()) {
		if err := r.requireValid(ctx, keys); err != nil {
			return err
		}
	}
	name, _ := matrix.GetString(offer.Event.Content(), "display_name")
	third, err := matrix.Encode(map[string]any{"display_name": name, "signed": c.Signed})
	if err != nil {
		return err
	}
	return r.inviteClaimant(ctx, ref, c, third)
}

// inviteClaimant sends the invitation: through the user's server if that is another one.
func (r *Rooms) inviteClaimant(ctx context.Context, ref Ref, c Claim, third json.RawMessage) error {
	sender, err := r.User(ctx, c.Sender)
	if err != nil {
		return err
	}
	q := MemberRequest{Room: ref, Sender: Sender{NID: sender.NID, ID: c.Sender}, Target: c.User, third: third}
	if !r.own.IsOurs(c.User.Server()) {
		_, err := r.inviteRemote(ctx, q)
		return err
	}
	if err := r.requireAccount(ctx, c.User); err != nil {
		return err
	}
	if err := r.requireInvitable(ctx, c.User); err != nil {
		return err
	}
	d, err := r.detachInvite(ctx, q)
	if err != nil {
		return err
	}
	return r.attachInvite(ctx, q, d)
}

// redeemed says whether a claim was redeemed already and the invitation stands, so that nothing is left to do. One that
// was, and does not stand any more, is refused: it would let in whom the room has removed. So is one of somebody who is
// in the room, whom an invitation would put out.
func (r *Rooms) redeemed(ctx context.Context, ref Ref, state store.State, c Claim) (bool, error) {
	row, err := r.StateEvent(ctx, ref.NID, state, "m.room.member", string(c.User))
	if err != nil || row == nil {
		return false, err
	}
	member := row.Event
	switch member.Membership() {
	case "join":
		return false, matrix.Forbidden("%s is in this room already.", c.User)
	case "ban":
		return false, matrix.Forbidden("%s is banned from this room.", c.User)
	case "invite":
		if tokenOf(member) == c.Token {
			return true, nil
		}
	}
	for range maxSpent {
		if tokenOf(member) == c.Token {
			return false, matrix.Forbidden("The invitation was used already.")
		}
		if member, err = r.membershipBefore(ctx, ref, member); err != nil || member == nil {
			return false, err
		}
	}
	return false, matrix.Forbidden("It cannot be told whether the invitation was used already.")
}

// tokenOf is the token that an invitation was made from, "" if it was made from none.
func tokenOf(member *matrix.Event) string {
	if member.Membership() != "invite" {
		return ""
	}
	token, _ := matrix.GetString(member.Content(), "third_party_invite", "signed", "token")
	return token
}

// membershipBefore is the membership that an event replaced, nil if there was none: every member event names the one
// before it among its auth events.
func (r *Rooms) membershipBefore(ctx context.Context, ref Ref, member *matrix.Event) (before *matrix.Event, err error) {
	key, _ := member.StateKey()
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		before = nil
		for _, id := range member.AuthEvents() {
			row, err := tx.EventInRoom(ref.NID, id)
			if err != nil {
				return err
			}
			if row != nil && row.Event.Type() == "m.room.member" && row.Event.StateKeyEquals(key) {
				before = row.Event
			}
		}
		return nil
	})
	return before, err
}

// maxSigners bounds how many keys an identity service is asked about for one claim.
const maxSigners = 4

// requireValid refuses a claim unless one of the keys that signed it is still good, everywhere that is named for it.
func (r *Rooms) requireValid(ctx context.Context, keys []authrules.OfferKey) error {
	if r.identities == nil {
		return matrix.Forbidden("This server asks no identity servers.")
	}
	verdict := map[string]bool{} // by key: whether no place denied it
	var unknown error
	for _, k := range keys {
		if _, ok := verdict[k.Text]; !ok {
			verdict[k.Text] = true
		}
		if k.ValidityURL == "" || !verdict[k.Text] {
			continue // without a place to ask, a key is good for ever
		}
		valid, err := r.identities.KeyValid(ctx, k.ValidityURL, k.Text)
		if err != nil {
			unknown = err
		}
		verdict[k.Text] = valid && err == nil
	}
	for _, good := range verdict {
		if good {
			return nil
		}
	}
	if unknown != nil {
		return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The identity server cannot be asked whether its key is still good.").With(unknown)
	}
	return matrix.Forbidden("The key that the invitation is signed with is not good any more.")
}
