package federation

import (
	"context"
	"errors"

	"conclave/internal/matrix"
	"conclave/rooms"
)

// Remote answers the client API's questions to other servers. Its errors are for clients.
type Remote struct{ Client *Client }

// QueryProfile asks a user's server for its profile, whole or one field.
func (r Remote) QueryProfile(ctx context.Context, user matrix.UserID, field string) (map[string]any, error) {
	raw, err := r.Client.QueryProfile(ctx, user, field)
	if err != nil {
		return nil, forClient(err)
	}
	profile, err := profileOf(raw)
	if err != nil {
		return nil, matrix.NotFound("The server %s gave no usable profile.", user.Server()).With(err)
	}
	return profile, nil
}

// QueryDirectory asks an alias's server for its room and the servers to join through.
func (r Remote) QueryDirectory(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	room, servers, err := r.Client.QueryRoomDirectory(ctx, alias)
	return room, servers, forClient(err)
}

// EventNear asks a server for the event nearest to a time (ms).
func (r Remote) EventNear(ctx context.Context, server matrix.ServerName, room matrix.RoomID, ts int64, forward bool) (rooms.Moment, error) {
	id, at, err := r.Client.GetEventByTimestamp(ctx, server, room, ts, forward)
	return rooms.Moment{Event: id, TS: at}, err
}

// forClient turns what went wrong with another server into what a client is told.
func forClient(err error) error {
	var remote *Error
	if errors.As(err, &remote) {
		return remote.ForClient()
	}
	return err
}
