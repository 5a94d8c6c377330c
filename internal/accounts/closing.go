package accounts

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Closing says which account is to be closed, and how.
type Closing struct {
	User  store.UserNID
	Erase bool   // what the user has said is kept from newcomers, and all else of the user is deleted
	By    string // who closes it, "" for the user
}

// Deactivate closes an account for good, without erasing anything that the user has said.
func (a *Accounts) Deactivate(ctx context.Context, user store.UserNID) error {
	return a.Close(ctx, Closing{User: user})
}

// Close closes an account for good: nobody can log in any more, all sessions end at once, and the name stays taken, also for
// whoever the organization's provider means by it. Its addresses are free for others, and identity servers have to forget
// them (threats A06). Jobs see to that, make the user leave its rooms, and erase what is to be erased. An account that is
// closed already can be closed again: nothing is done twice, and what was to stay can be erased later.
func (a *Accounts) Close(ctx context.Context, q Closing) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(q.User)
		if err != nil || account == nil {
			return err
		}
		return a.close(tx, account, q)
	})
}

// close is Close for an account that is locked in a transaction.
func (a *Accounts) close(tx *store.Tx, account *store.Account, q Closing) error {
	if err := a.notTheServers(tx, account); err != nil {
		return err
	}
	if !account.Deactivated {
		if err := a.shut(tx, account); err != nil {
			return err
		}
		a.note(tx, Event{Name: "deactivated", User: account.ID, By: q.By, Details: map[string]any{"erase": q.Erase}})
	}
	if err := tx.BeginClosing(account.User, a.now().UnixMilli()); err != nil || !q.Erase {
		return err
	}
	return a.erase(tx, account, q)
}

// shut ends everything by which somebody could act as the user, and sets going what takes its time.
func (a *Accounts) shut(tx *store.Tx, account *store.Account) error {
	if err := tx.Deactivate(account.User); err != nil {
		return err
	}
	if err := tx.EndBeginnings(account.User); err != nil {
		return err
	}
	if err := tx.AddJob(store.JobDepart, string(account.ID), a.now().UnixMilli()); err != nil {
		return err
	}
	// What was put together for the user to take away nobody can take away any more.
	if err := tx.HastenJob(store.JobExport, string(account.ID), 0); err != nil {
		return err
	}
	if err := a.dropAddresses(tx, account); err != nil {
		return err
	}
	tx.AfterCommit(func() { a.closed(account.User) })
	return a.deleteDevices(tx, account.User, nil)
}

// erase takes the profile away, draws the position from which on the user's content is kept from newcomers, and sets going
// what deletes the rest.
func (a *Accounts) erase(tx *store.Tx, account *store.Account, q Closing) error {
	if err := tx.SetProfile(account.User, "{}"); err != nil {
		return err
	}
	from, err := tx.AddChange(store.ChangeProfile, 0, account.User)
	if err != nil {
		return err
	}
	begun, err := tx.BeginErasure(account.User, from)
	if err != nil || !begun {
		return err
	}
	for _, kind := range []store.JobKind{store.JobErase, store.JobShred} {
		if err := tx.AddJob(kind, string(account.ID), a.now().UnixMilli()); err != nil {
			return err
		}
	}
	a.note(tx, Event{Name: "erased", User: account.ID, By: q.By})
	tx.AfterCommit(func() { a.ended(account.User) }) // which wakes those who do it
	return nil
}

// CloseFor closes an account for an administrator: one of this server (M_INVALID_PARAM), that is there (M_NOT_FOUND), and not
// another administrator's or the administrator's own (M_FORBIDDEN).
func (a *Accounts) CloseFor(ctx context.Context, by *Session, id matrix.UserID, erase bool) error {
	if id == by.UserID {
		return matrix.Forbidden("You cannot close your own account here. Its settings can.")
	}
	found, err := a.Account(ctx, id)
	if err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(found.User)
		if err != nil {
			return err
		}
		if account.Admin {
			return matrix.Forbidden("%s is an administrator. Take that away first.", id)
		}
		return a.close(tx, account, Closing{User: account.User, Erase: erase, By: string(by.UserID)})
	})
}

// Closed tells what became of an account that was closed (M_NOT_FOUND if none was).
func (a *Accounts) Closed(ctx context.Context, id matrix.UserID) (*store.Closing, error) {
	account, err := a.Account(ctx, id)
	if err != nil {
		return nil, err
	}
	var c *store.Closing
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		c, err = tx.Closing(account.ID, account.User)
		return err
	})
	if err == nil && c == nil {
		err = matrix.NotFound("The account of %s was not closed.", id)
	}
	return c, err
}

// Account finds an account of this server (M_INVALID_PARAM), open or closed (M_NOT_FOUND if there is none).
func (a *Accounts) Account(ctx context.Context, id matrix.UserID) (*store.Account, error) {
	if id.Server() != a.server {
		return nil, matrix.InvalidParam("%s is no user of this server.", id)
	}
	account, err := a.find(ctx, string(id))
	if err == nil && account == nil {
		err = matrix.NotFound("There is no user %s.", id)
	}
	return account, err
}
