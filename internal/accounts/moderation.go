package accounts

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Locked tells an administrator whether an account is locked (client-server API, "Account locking").
func (a *Accounts) Locked(ctx context.Context, id matrix.UserID) (bool, error) {
	account, err := a.moderated(ctx, id)
	if err != nil {
		return false, err
	}
	return account.Locked, nil
}

// Suspended tells an administrator whether an account is suspended (client-server API, "Account suspension").
func (a *Accounts) Suspended(ctx context.Context, id matrix.UserID) (bool, error) {
	account, err := a.moderated(ctx, id)
	if err != nil {
		return false, err
	}
	return account.Suspended, nil
}

// SetLocked locks an account, or lifts the lock, for an administrator. Its sessions stay, but every connection that they
// hold open ends, and they can only log out.
func (a *Accounts) SetLocked(ctx context.Context, by *Session, id matrix.UserID, locked bool) error {
	event := map[bool]string{true: "locked", false: "unlocked"}[locked]
	return a.moderate(ctx, by, id, event, func(tx *store.Tx, user store.UserNID) error { return tx.SetLocked(user, locked) })
}

// SetSuspended suspends an account, or ends that, for an administrator.
func (a *Accounts) SetSuspended(ctx context.Context, by *Session, id matrix.UserID, suspended bool) error {
	event := map[bool]string{true: "suspended", false: "unsuspended"}[suspended]
	return a.moderate(ctx, by, id, event, func(tx *store.Tx, user store.UserNID) error { return tx.SetSuspended(user, suspended) })
}

// moderated finds the account that an administrator asks about: one of ours (M_INVALID_PARAM) that is open (M_NOT_FOUND)
// and not another administrator's (M_FORBIDDEN).
func (a *Accounts) moderated(ctx context.Context, id matrix.UserID) (*store.Account, error) {
	if id.Server() != a.server {
		return nil, matrix.InvalidParam("%s is no user of this server.", id)
	}
	account, err := a.Find(ctx, id)
	if err == nil && account.Admin {
		err = errModerateAdmin()
	}
	return account, err
}

func errModerateAdmin() error {
	return matrix.Forbidden("Administrators cannot be locked or suspended.")
}

// moderate changes an account that is still what moderated found it to be.
func (a *Accounts) moderate(ctx context.Context, by *Session, id matrix.UserID, event string, change func(*store.Tx, store.UserNID) error) error {
	if id == by.UserID {
		return matrix.Forbidden("You cannot lock or suspend yourself.")
	}
	found, err := a.moderated(ctx, id)
	if err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(found.User)
		switch {
		case err != nil:
			return err
		case account == nil || account.Deactivated:
			return matrix.NotFound("There is no user %s.", id)
		case account.Admin:
			return errModerateAdmin()
		}
		a.note(tx, Event{Name: event, User: id, By: string(by.UserID)})
		tx.AfterCommit(func() { a.ended(found.User) })
		return change(tx, found.User)
	})
}
