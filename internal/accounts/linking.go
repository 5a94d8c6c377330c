package accounts

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Link notes that the organization's provider means the owner of an account by a subject (its claim sub), who signs in there
// from now on. by is the administrator who says so. A password that the account has stays: it is the owner's. The subject must
// be nobody's yet, nor the account anybody's (M_FORBIDDEN).
func (a *Accounts) Link(ctx context.Context, by string, user store.UserNID, subject string) error {
	switch {
	case a.provider == nil:
		return matrix.NotFound("This server has no single sign-on: oidc.issuer is not set.")
	case subject == "" || len(subject) > maxClaim || !plain(subject):
		return matrix.InvalidParam("The subject must be what the provider calls somebody (the claim sub), of at most %d bytes.", maxClaim)
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated || account.Guest {
			return matrix.NotFound("There is no such account, or it is closed or a guest's.")
		}
		if err := a.notTheServers(tx, account); err != nil {
			return err
		}
		linked, err := tx.HasExternalID(a.provider.conf.Issuer, user)
		if err != nil {
			return err
		}
		if linked {
			return matrix.Forbidden("Somebody of your organization signs in to this account already. End that first.")
		}
		added, err := tx.AddExternalID(a.provider.conf.Issuer, subject, user)
		if err != nil {
			return err
		}
		if !added {
			return matrix.Forbidden("Whom the provider calls so signs in to another account.")
		}
		a.audit(tx, "sso.linked", account.ID, by)
		return nil
	})
}

// Unlink ends that anybody signs in to an account by the organization's provider, and signs it out everywhere, app passwords too:
// the link may have been a mistake. Second factors and addresses stay, which somebody may have set up who was let in by that
// mistake: ResetFactors ends the former. by is the administrator who says so. An account without a password can be given one
// from then on.
func (a *Accounts) Unlink(ctx context.Context, by string, user store.UserNID) error {
	if a.provider == nil {
		return matrix.NotFound("This server has no single sign-on: oidc.issuer is not set.")
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user)
		if err != nil {
			return err
		}
		if account == nil {
			return matrix.NotFound("There is no such account.")
		}
		dropped, err := tx.DropExternalIDs(a.provider.conf.Issuer, user)
		if err != nil {
			return err
		}
		if !dropped {
			return matrix.NotFound("Nobody of your organization signs in to this account.")
		}
		a.audit(tx, "sso.unlinked", account.ID, by)
		for _, drop := range []func(store.UserNID) error{tx.DropSignIns, tx.DropAppPasswords, tx.ForgetPlaces} {
			if err := drop(user); err != nil {
				return err
			}
		}
		return a.deleteDevices(tx, user, nil)
	})
}
