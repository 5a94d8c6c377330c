package rooms

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
)

// EventSource is the network as this domain needs it; federation.Client satisfies it. Whatever it returns is raw: the
// bytes of an answer, bounded in size but neither checked nor verified. Only receive.go turns them into events.
type EventSource interface {
	// MissingEvents asks for events between what we have and what came (get_missing_events).
	MissingEvents(ctx context.Context, server matrix.ServerName, room matrix.RoomID, have, want []matrix.EventID, limit int) ([]json.RawMessage, error)
	// StateIDs asks which events make the state before an event, and their auth chain.
	StateIDs(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error)
	// State asks for the events of that state and its auth chain; each gets them one by one.
	State(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID, each func(json.RawMessage) error) error
	// Event asks for one event.
	Event(ctx context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error)
	// EventAuth asks for the auth chain of an event.
	EventAuth(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID) ([]json.RawMessage, error)
	// Backfill asks for up to limit events that precede the given ones, these included.
	Backfill(ctx context.Context, server matrix.ServerName, room matrix.RoomID, from []matrix.EventID, limit int) ([]json.RawMessage, error)
	// MakeMembership asks where in the room a join, knock or leave of a user would stand (make_…).
	MakeMembership(ctx context.Context, server matrix.ServerName, membership string, room matrix.RoomID, user matrix.UserID) (*Draft, error)
	// SendJoin hands in a signed join; each gets the events of the room's state and of its auth chain (auth set), one by
	// one in the order of the answer. An error of each ends the call and is returned.
	SendJoin(ctx context.Context, server matrix.ServerName, join *matrix.Event, each func(raw json.RawMessage, auth bool) error) (*JoinAnswer, error)
	// SendLeave hands in a signed leave.
	SendLeave(ctx context.Context, server matrix.ServerName, leave *matrix.Event) error
	// SendKnock hands in a signed knock and returns what the server shows of the room.
	SendKnock(ctx context.Context, server matrix.ServerName, knock *matrix.Event) ([]json.RawMessage, error)
	// Invite has the invitee's server sign an invitation and returns it so signed.
	Invite(ctx context.Context, invite *matrix.Event, stripped []json.RawMessage) (json.RawMessage, error)
	// ExchangeThirdPartyInvite asks the server of who invited an address to turn that into the invitation of a user.
	ExchangeThirdPartyInvite(ctx context.Context, server matrix.ServerName, room matrix.RoomID, template []byte) error
	// PolicySignature asks a policy server to recommend an event and returns its signature, unverified.
	PolicySignature(ctx context.Context, server matrix.ServerName, ev *matrix.Event) ([]byte, error)
	// VerifyEvents checks the signatures of all required servers, one verdict for each event.
	VerifyEvents(ctx context.Context, events []*matrix.Event) []error
}

// Draft is what is taken of another server's template of a membership event: its place in the room and nothing else.
// The event is built here (law 12).
type Draft struct {
	Version    matrix.RoomVersion
	PrevEvents []matrix.EventID
	AuthEvents []matrix.EventID
	Depth      int64

	// AuthorisedVia is who lets the user into a restricted room, "" for nobody.
	AuthorisedVia matrix.UserID
}

// JoinAnswer is what send_join answers besides events. The event is the join as the resident server signed it, if it did
// (restricted rooms).
type JoinAnswer struct {
	Event          json.RawMessage
	MembersOmitted bool
}
