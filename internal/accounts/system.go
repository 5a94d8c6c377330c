package accounts

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// System finds the account by which the server itself speaks, or makes it: it has no password and no session, and nobody's
// provider lets them in. If the name belongs to a person, who could read what it is told, that is an error.
func (a *Accounts) System(ctx context.Context, localpart string) (*store.Account, error) {
	id := matrix.UserID("@" + localpart + ":" + string(a.server))
	user, err := a.db.User(ctx, id)
	if err != nil {
		return nil, err
	}
	var account *store.Account
	owned := false
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		made, err := tx.CreateAccount(store.Account{User: user.NID, ID: id, Created: a.now().UnixMilli()})
		if err == nil && made {
			err = firstProfile(tx, user.NID, localpart)
		}
		if err != nil {
			return err
		}
		if account, err = tx.LockAccount(user.NID); err == nil {
			owned, err = tx.HasOwner(user.NID)
		}
		return err
	})
	if err == nil && (account == nil || account.Deactivated || account.Password != "" || owned) {
		return nil, matrix.Errorf(409, "M_USER_IN_USE", "%s belongs to a person: set server_notices.localpart to a name that is free.", id)
	}
	return account, err
}

// notTheServers refuses (M_FORBIDDEN) to do to the account by which the server itself speaks what would make it a person's, or
// end it.
func (a *Accounts) notTheServers(tx *store.Tx, account *store.Account) error {
	if name := a.config.ServerNotices.Localpart; name == "" || account.ID != a.userID(name) || account.Password != "" || account.Deactivated {
		return nil
	}
	owned, err := tx.HasOwner(account.User)
	if err == nil && !owned {
		err = matrix.Forbidden("%s is what the server itself speaks by. Set server_notices.localpart to another name first.", account.ID)
	}
	return err
}
