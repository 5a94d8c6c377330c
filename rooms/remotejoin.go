package rooms

import (
	"context"

	"conclave/internal/matrix"
)

// joinRemote brings a user into a room through another server.
func (r *Rooms) joinRemote(ctx context.Context, q JoinRequest, ref *Ref) error {
	if r.source == nil {
		return matrix.NotFound("There is no room %s on this server.", q.Room)
	}
	return errNoFederation()
}

// leaveRemote leaves a room that only other servers are in: an invitation declined.
func (r *Rooms) leaveRemote(ctx context.Context, q MemberRequest) error {
	return errNoFederation()
}
