package federation

import (
	"context"
	"encoding/json"
	"fmt"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// Source is the network as the rooms know it.
type Source struct {
	client *Client
	keys   *Keyring
}

var _ rooms.EventSource = (*Source)(nil)

// NewSource makes the rooms' network of a client and the keys to verify events with.
func NewSource(client *Client, keys *Keyring) *Source { return &Source{client, keys} }

// MissingEvents implements rooms.EventSource.
func (s *Source) MissingEvents(ctx context.Context, server matrix.ServerName, room matrix.RoomID, have, want []matrix.EventID, limit int) ([]json.RawMessage, error) {
	return s.client.GetMissingEvents(ctx, server, room, have, want, limit, 0)
}

// StateIDs implements rooms.EventSource.
func (s *Source) StateIDs(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error) {
	return s.client.GetRoomStateIDs(ctx, server, room, at)
}

// State implements rooms.EventSource.
func (s *Source) State(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID, each func(json.RawMessage) error) error {
	return s.client.GetRoomState(ctx, server, room, at, func(_ StatePart, raw json.RawMessage) error { return each(raw) })
}

// Event implements rooms.EventSource.
func (s *Source) Event(ctx context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error) {
	return s.client.GetEvent(ctx, server, id)
}

// EventAuth implements rooms.EventSource.
func (s *Source) EventAuth(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID) ([]json.RawMessage, error) {
	return s.client.GetEventAuth(ctx, server, room, id)
}

// Backfill implements rooms.EventSource.
func (s *Source) Backfill(ctx context.Context, server matrix.ServerName, room matrix.RoomID, from []matrix.EventID, limit int) ([]json.RawMessage, error) {
	return s.client.BackfillRoom(ctx, server, room, from, limit)
}

// MakeMembership implements rooms.EventSource.
func (s *Source) MakeMembership(ctx context.Context, server matrix.ServerName, membership string, room matrix.RoomID, user matrix.UserID) (*rooms.Draft, error) {
	var d *Draft
	var err error
	switch membership {
	case "join":
		d, err = s.client.MakeJoin(ctx, server, room, user, matrix.RoomVersions())
	case "leave":
		d, err = s.client.MakeLeave(ctx, server, room, user)
	case "knock":
		d, err = s.client.MakeKnock(ctx, server, room, user, matrix.RoomVersions())
	default:
		err = fmt.Errorf("no server makes a template of a membership %q", membership)
	}
	if err != nil {
		return nil, err
	}
	return (*rooms.Draft)(d), nil
}

// SendJoin implements rooms.EventSource.
func (s *Source) SendJoin(ctx context.Context, server matrix.ServerName, join *matrix.Event, each func(raw json.RawMessage, auth bool) error) (*rooms.JoinAnswer, error) {
	answer, err := s.client.SendJoin(ctx, server, join.RoomID(), join.ID(), join.JSON(), func(part StatePart, raw json.RawMessage) error {
		return each(raw, part == AuthChain)
	})
	if err != nil {
		return nil, err
	}
	return &rooms.JoinAnswer{Event: answer.Event, MembersOmitted: answer.MembersOmitted}, nil
}

// SendLeave implements rooms.EventSource.
func (s *Source) SendLeave(ctx context.Context, server matrix.ServerName, leave *matrix.Event) error {
	return s.client.SendLeave(ctx, server, leave.RoomID(), leave.ID(), leave.JSON())
}

// SendKnock implements rooms.EventSource.
func (s *Source) SendKnock(ctx context.Context, server matrix.ServerName, knock *matrix.Event) ([]json.RawMessage, error) {
	return s.client.SendKnock(ctx, server, knock.RoomID(), knock.ID(), knock.JSON())
}

// Invite implements rooms.EventSource: it asks the invitee's server.
func (s *Source) Invite(ctx context.Context, invite *matrix.Event, stripped []json.RawMessage) (json.RawMessage, error) {
	key, _ := invite.StateKey()
	server := matrix.UserID(key).Server()
	return s.client.SendInvite(ctx, server, invite.Version(), invite.RoomID(), invite.ID(), invite.JSON(), stripped)
}

// ExchangeThirdPartyInvite implements rooms.EventSource.
func (s *Source) ExchangeThirdPartyInvite(ctx context.Context, server matrix.ServerName, room matrix.RoomID, template []byte) error {
	return s.client.ExchangeThirdPartyInvite(ctx, server, room, template)
}

// PolicySignature implements rooms.EventSource.
func (s *Source) PolicySignature(ctx context.Context, server matrix.ServerName, ev *matrix.Event) ([]byte, error) {
	return s.client.AskPolicyServerToSign(ctx, server, ev.JSON())
}

// VerifyEvents implements rooms.EventSource.
func (s *Source) VerifyEvents(ctx context.Context, events []*matrix.Event) []error {
	return s.keys.VerifyEvents(ctx, events)
}
