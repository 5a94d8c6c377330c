package rooms

import (
	"context"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"conclave/internal/mail/address"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// IdentityServices are the services that know which user an address (e-mail, telephone number) belongs to;
// federation.IdentityServices satisfies it. What they answer is checked by whoever implements this; its errors are for
// clients.
type IdentityServices interface {
	// Lookup asks which user an address is bound to, "" for nobody.
	Lookup(ctx context.Context, by IdentityService, a Address) (matrix.UserID, error)
	// StoreInvite leaves an invitation there for whoever binds the address.
	StoreInvite(ctx context.Context, by IdentityService, q StoredInvite) (*Offer, error)
	// KeyValid asks whether a key is still good, at the place that is named for it. An error says that nobody knows.
	KeyValid(ctx context.Context, url, key string) (bool, error)
}

// IdentityService is one that a user of ours has chosen, with what the user is let in by.
type IdentityService struct {
	Server matrix.ServerName
	Token  string
}

// Address is how somebody is known outside of Matrix, in its canonical form (appendices, "3PID Types").
type Address struct {
	Medium, Text string
}

// StoredInvite is what an identity service is told of an invitation. All but the first three only make the message
// nicer that it sends to the address.
type StoredInvite struct {
	Address Address
	Room    matrix.RoomID
	Sender  matrix.UserID

	SenderName, SenderAvatar                                string
	RoomName, RoomAlias, RoomAvatar, RoomJoinRule, RoomType string
}

// Offer is the answer to it: what an m.room.third_party_invite says.
type Offer struct {
	Token       string
	DisplayName string // stands for the address and does not tell it
	Keys        []OfferedKey
}

// OfferedKey is a key that an offer is taken up with.
type OfferedKey struct {
	Key         string `json:"public_key"`
	ValidityURL string `json:"key_validity_url"`
}

// inviteAddressesTime bounds how long the maker of a room waits for identity services.
const inviteAddressesTime = 30 * time.Second

// ParseAddress reads an address as a client gives it into its canonical form: e-mail addresses in full Unicode case
// folding, telephone numbers without their plus sign.
func ParseAddress(medium, text string) (Address, error) {
	if len(text) > address.Max || !utf8.ValidString(text) {
		return Address{}, matrix.InvalidParam("An address has at most %d bytes of UTF-8.", address.Max)
	}
	switch medium {
	case "email":
		folded, ok := address.Fold(text)
		if !ok {
			return Address{}, matrix.InvalidParam("This is not an e-mail address.")
		}
		return Address{medium, folded}, nil
	case "msisdn":
		text = strings.TrimPrefix(text, "+")
		if len(text) == 0 || len(text) > 15 || strings.Trim(text, "0123456789") != "" || text[0] == '0' { // E.164
			return Address{}, matrix.InvalidParam("This is not a telephone number in international form.")
		}
		return Address{medium, text}, nil
	}
	return Address{}, matrix.InvalidParam("There is no kind of address %.64q.", medium)
}

// AddressInvite is a user's wish to have somebody in a room of whom only an address is known.
type AddressInvite struct {
	Room    Ref
	Sender  Sender
	Address Address
	By      IdentityService
}

// SetIdentityServices hands in what asks identity services; it must be called before the first request is served.
// Without them nobody is invited by address.
func (r *Rooms) SetIdentityServices(s IdentityServices) { r.identities = s }

// InviteAddress finds the user that an address is bound to, whom the caller then invites as anybody; or, if it is bound
// to nobody (""), leaves an invitation with the identity service and in the room. Nothing of the address is told to
// anybody if the sender may not invite.
func (r *Rooms) InviteAddress(ctx context.Context, q AddressInvite) (matrix.UserID, error) {
	if r.identities == nil {
		return "", matrix.Errorf(http.StatusForbidden, "M_SERVER_NOT_TRUSTED", "This server asks no identity servers.")
	}
	if err := r.RequireJoined(ctx, q.Room.NID, q.Sender.NID); err != nil {
		return "", err
	}
	state, err := r.CurrentState(ctx, q.Room.NID)
	if err != nil {
		return "", err
	}
	levels, err := r.levelsAt(ctx, q.Room, state)
	if err != nil {
		return "", err
	}
	if levels.UserLevel(q.Sender.ID) < levels.Invite {
		return "", matrix.Forbidden("You need more power to invite.")
	}
	target, err := r.identities.Lookup(ctx, q.By, q.Address)
	if err != nil || target != "" {
		return target, err
	}
	told, err := r.storedInvite(ctx, q, state)
	if err != nil {
		return "", err
	}
	offer, err := r.identities.StoreInvite(ctx, q.By, told)
	if err != nil {
		return "", err
	}
	return "", r.offer(ctx, q, offer)
}

// offer puts an invitation for whoever proves to have an address into the room.
func (r *Rooms) offer(ctx context.Context, q AddressInvite, o *Offer) error {
	content, err := matrix.Encode(map[string]any{
		"display_name": o.DisplayName, "public_keys": o.Keys,
		"public_key": o.Keys[0].Key, "key_validity_url": o.Keys[0].ValidityURL, // for those who know of one key only
	})
	if err != nil {
		return err
	}
	_, err = r.send(ctx, SendRequest{
		Room: q.Room, Sender: q.Sender, Type: "m.room.third_party_invite", StateKey: &o.Token, Content: content,
	})
	return err
}

// storedInvite collects what the identity service is told of the room and of who invites.
func (r *Rooms) storedInvite(ctx context.Context, q AddressInvite, state store.State) (StoredInvite, error) {
	out := StoredInvite{Address: q.Address, Room: q.Room.ID, Sender: q.Sender.ID}
	for _, p := range []struct {
		typ, key, name string
		into           *string
	}{
		{"m.room.member", string(q.Sender.ID), "displayname", &out.SenderName},
		{"m.room.member", string(q.Sender.ID), "avatar_url", &out.SenderAvatar},
		{"m.room.name", "", "name", &out.RoomName},
		{"m.room.canonical_alias", "", "alias", &out.RoomAlias},
		{"m.room.avatar", "", "url", &out.RoomAvatar},
		{"m.room.join_rules", "", "join_rule", &out.RoomJoinRule},
		{"m.room.create", "", "type", &out.RoomType},
	} {
		row, err := r.StateEvent(ctx, q.Room.NID, state, p.typ, p.key)
		if err != nil {
			return out, err
		}
		if row != nil {
			*p.into, _ = matrix.GetString(row.Event.Content(), p.name)
		}
	}
	return out, nil
}

// inviteAddress is InviteAddress with what follows if the address is bound.
func (r *Rooms) inviteAddress(ctx context.Context, q AddressInvite, direct bool) error {
	target, err := r.InviteAddress(ctx, q)
	if err != nil || target == "" {
		return err
	}
	if r.own.IsOurs(target.Server()) {
		if err := r.requireAccount(ctx, target); err != nil {
			return err
		}
	}
	_, err = r.Invite(ctx, MemberRequest{Room: q.Room, Sender: q.Sender, Target: target, Direct: direct})
	return err
}

// requireAccount refuses users of ours that do not exist (any more).
func (r *Rooms) requireAccount(ctx context.Context, id matrix.UserID) error {
	var account *store.Account
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.Account(id.Localpart())
		return err
	})
	if err == nil && (account == nil || account.Deactivated) {
		err = matrix.Forbidden("There is no user %s.", id)
	}
	return err
}
