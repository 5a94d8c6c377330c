package accounts

import (
	"context"

	"conclave/internal/store"
)

// identifierThreepid is the type of an Identifier that is an address.
const identifierThreepid = "m.id.thirdparty"

// Identifier says whose account is meant (client-server API, "Identifier types"): by name, or, if its type is
// m.id.thirdparty, by address.
type Identifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// IsAddress says whether an account is named by an address.
func (i Identifier) IsAddress() bool { return i.Type == identifierThreepid }

// checkPasswordBy finds the account that a name or address and a password belong to. The answer (M_FORBIDDEN) and its time
// are the same for a wrong password and for somebody who does not exist.
//
// What is counted of guesses stands in attempts.go. Beyond it some are refused, and some are wrong without a look.
func (a *Accounts) checkPasswordBy(ctx context.Context, by Identifier, password string) (*store.Account, error) {
	name, find := a.lookup(by)
	guess := passwordGuess{Accounts: a, name: name, caller: callerOf(ctx)}
	if err := guess.begin(ctx); err != nil {
		return nil, err
	}
	var account *store.Account
	var asked *store.RegistrationRequest
	var s standing
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if account, err = find(tx); err != nil {
			return err
		}
		if asked, err = tx.RegistrationRequest(a.localpart(by.User)); err != nil { // for everybody: its time must not tell who has an account
			return err
		}
		s, err = a.standingOf(ctx, tx, account)
		return err
	})
	if err != nil {
		return nil, err
	}
	look, err := guess.allow(ctx, account, s)
	if err != nil {
		return nil, err
	}
	phc := ""
	switch {
	case !look || len(password) > maxPassword:
	case account != nil && !account.Deactivated:
		phc = account.Password
	case account == nil && asked != nil && !by.IsAddress():
		phc = asked.Password
	}
	if phc != "" {
		a.looked.passwords.Add(1)
	}
	ok, err := a.verify(ctx, password, phc)
	if ok || err != nil {
		guess.forgive(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case !ok:
		a.noteFailed(ctx, account)
		return nil, errWrongPassword()
	case account == nil:
		return nil, errAwaiting()
	}
	return account, nil
}

// lookup is how the account of an identifier is found, and what guesses at it are counted by. Both do as much for one that
// is nobody's.
func (a *Accounts) lookup(by Identifier) (key string, find func(*store.Tx) (*store.Account, error)) {
	if !by.IsAddress() {
		localpart := a.localpart(by.User)
		return localpart, func(tx *store.Tx) (*store.Account, error) { return tx.Account(localpart) }
	}
	folded, ok := foldAddress(by.Medium, by.Address)
	if !ok {
		folded = "" // no account has it
	}
	return "address " + folded, func(tx *store.Tx) (*store.Account, error) { return tx.AccountByThreepid(mediumEmail, folded) }
}
