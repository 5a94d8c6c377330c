package federation

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// PDU is an event that a destination is to get.
type PDU struct {
	Pos  store.Pos
	Room store.RoomNID
	ID   matrix.EventID
	JSON []byte // as in federation: signed, without unsigned
}

// EDU is an ephemeral data unit that a destination is to get.
type EDU struct {
	Type string
	JSON []byte // {"edu_type", "content"}
}

// PDUQuery is a part of the events for a destination: those after a position and up to another, in order.
type PDUQuery struct {
	After, UpTo store.Pos
	Limit       int
	LatestOnly  bool // of each room only its latest event up to UpTo
}

// EDUQuery is a part of the EDUs for a destination that must not get lost: those after From and, if it is not zero, up
// to UpTo. An answer holds device lists first (of each user only the newest), then to-device messages in order, then
// the rest, coalesced; at most Limit of them and at most Bytes of JSON, but one in any case.
type EDUQuery struct {
	From, UpTo   store.Cursors
	Limit, Bytes int
}

// Outbox knows what is to be sent to whom. All its answers come from committed rows and can be repeated.
type Outbox interface {
	// Concerned names servers for which something may have come after a position, and the position up to which this
	// holds. After 0 it names every server that shares a room.
	Concerned(ctx context.Context, after store.Pos) ([]matrix.ServerName, store.Pos, error)

	// Start is from where on a server that was never sent anything gets things.
	Start(ctx context.Context, server matrix.ServerName) (store.Cursors, error)

	// Backlog counts the events for a server after a position, up to limit, and returns the newest position there is.
	Backlog(ctx context.Context, server matrix.ServerName, after store.Pos, limit int) (int, store.Pos, error)

	// PDUs returns events, and the position up to which nothing else is to be sent once these are. UpTo 0 is the
	// newest position there is.
	PDUs(ctx context.Context, server matrix.ServerName, q PDUQuery) ([]PDU, store.Pos, error)

	// EDUs returns durable EDUs and the cursors (PDUs unchanged) that hold once they are sent.
	EDUs(ctx context.Context, server matrix.ServerName, q EDUQuery) ([]EDU, store.Cursors, error)

	// Ephemeral takes at most limit EDUs out of memory that are worth something only now (typing, presence).
	Ephemeral(server matrix.ServerName, limit int) []EDU
}
