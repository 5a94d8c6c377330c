package rooms

import (
	"context"
	"encoding/json"
	"iter"

	"conclave/internal/matrix"
)

// EventSource is the network as this domain needs it; federation.Client satisfies it. Whatever it returns is raw: the
// bytes of an answer, bounded in size but neither checked nor verified. Only receive.go turns them into events.
type EventSource interface {
	// MissingEvents asks for events between what we have and what came (get_missing_events).
	MissingEvents(ctx context.Context, server matrix.ServerName, room matrix.RoomID, have, want []matrix.EventID, limit int) ([]json.RawMessage, error)
	// StateIDs asks which events make the state before an event, and their auth chain.
	StateIDs(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, auth []matrix.EventID, err error)
	// Event asks for one event.
	Event(ctx context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error)
	// EventAuth asks for the auth chain of an event.
	EventAuth(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID) ([]json.RawMessage, error)
	// Backfill asks for up to limit events that precede the given ones, these included.
	Backfill(ctx context.Context, server matrix.ServerName, room matrix.RoomID, from []matrix.EventID, limit int) ([]json.RawMessage, error)
	// MakeMembership asks for a template of a join, leave or knock (make_join, make_leave, make_knock) and the room's version.
	MakeMembership(ctx context.Context, server matrix.ServerName, membership string, room matrix.RoomID, user matrix.UserID) (template json.RawMessage, version matrix.RoomVersion, err error)
	// SendJoin hands in a signed join and streams what the room's state and its auth chain are.
	SendJoin(ctx context.Context, server matrix.ServerName, join *matrix.Event) (*JoinAnswer, error)
	// SendLeave hands in a signed leave.
	SendLeave(ctx context.Context, server matrix.ServerName, leave *matrix.Event) error
	// Invite has the invitee's server sign an invitation and returns it so signed.
	Invite(ctx context.Context, invite *matrix.Event, stripped []json.RawMessage) (json.RawMessage, error)
	// VerifyEvents checks the signatures of all required servers, one verdict for each event.
	VerifyEvents(ctx context.Context, events []*matrix.Event) []error
}

// JoinAnswer is the answer of send_join. State and Auth are read once, in the order of the answer; a broken answer
// ends them with an error. The event is the join as the resident server signed it, if it did (restricted rooms).
type JoinAnswer struct {
	Event   json.RawMessage
	State   iter.Seq2[json.RawMessage, error]
	Auth    iter.Seq2[json.RawMessage, error]
	Servers []matrix.ServerName // in the room, if the answer says so
}
