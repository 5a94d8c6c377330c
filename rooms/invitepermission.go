package rooms

import (
	"context"
	"net/http"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// invitePermission is the type of the account data by which people say who may invite them (client-server API, "Invite
// permission").
const invitePermission = "m.invite_permission_config"

// BlocksInvites says whether a user of ours wants no invitations at all.
func (r *Rooms) BlocksInvites(ctx context.Context, user store.UserNID) (bool, error) {
	var content string
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		content, err = tx.AccountData(user, 0, invitePermission)
		return err
	})
	action, _ := matrix.GetString([]byte(content), "default_action")
	return action == "block", err
}

// requireInvitable refuses (M_INVITE_BLOCKED) an invitation of a user of ours who wants none.
func (r *Rooms) requireInvitable(ctx context.Context, id matrix.UserID) error {
	if err := r.provideUser(ctx, id); err != nil {
		return err
	}
	user, err := r.User(ctx, id)
	if err != nil {
		return err
	}
	blocks, err := r.BlocksInvites(ctx, user.NID)
	if err == nil && blocks {
		err = matrix.Errorf(http.StatusForbidden, "M_INVITE_BLOCKED", "%s takes no invitations.", id)
	}
	return err
}
