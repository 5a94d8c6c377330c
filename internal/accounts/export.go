package accounts

import (
	"context"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// BeginExport has all that the server has of a session's owner put together, unless that is under way or ready.
func (a *Accounts) BeginExport(ctx context.Context, s *Session) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(s.User)
		switch {
		case err != nil:
			return err
		case account == nil || account.Deactivated:
			return errDeactivated()
		}
		begun, err := tx.BeginExport(s.User, a.now().UnixMilli())
		if err != nil || !begun {
			return err
		}
		a.note(tx, Event{Name: "export.requested", User: s.UserID})
		return tx.AddJob(store.JobExport, string(s.UserID), a.now().UnixMilli())
	})
}

// Exporting says whether the account is open of which something is about to be stored for an export. It stays so until the end of
// the transaction: of an account that is being closed nothing is stored that nobody would remove in time.
func (a *Accounts) Exporting(tx *store.Tx, user store.UserNID) (bool, error) {
	account, err := tx.LockAccount(user)
	return err == nil && account != nil && !account.Deactivated, err
}

// Exported tells the owner of an account, in the transaction in which it becomes so, that all that the server has of it can be
// downloaded.
func (a *Accounts) Exported(tx *store.Tx, user store.UserNID, id matrix.UserID) error {
	a.note(tx, Event{Name: "export.ready", User: id})
	return a.tellOwner(tx, user, mail.Exported, "", "")
}
