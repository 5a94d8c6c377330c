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
// Guesses are counted twice (threats A09): for the name or address that they are at, which says when to come again; and
// for the account, so that each of its addresses does not give as many guesses again. Of the second count nothing is told,
// and what is beyond it is not looked at and wrong: it would tell whose an address is (threats A08).
func (a *Accounts) checkPasswordBy(ctx context.Context, by Identifier, password string) (*store.Account, error) {
	key, find := a.lookup(by)
	if err := a.guesses.take(key); err != nil {
		return nil, err
	}
	var account *store.Account
	var asked *store.RegistrationRequest
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if account, err = find(tx); err != nil {
			return err
		}
		asked, err = tx.RegistrationRequest(a.localpart(by.User)) // for everybody: its time must not tell who has an account
		return err
	})
	if err != nil {
		a.guesses.giveBack(key)
		return nil, err
	}
	phc, counted := "", ""
	if account != nil && !account.Deactivated && len(password) <= maxPassword {
		if counted = "account " + account.ID.Localpart(); a.guesses.take(counted) == nil {
			phc = account.Password
		} else {
			counted = ""
		}
	}
	if account == nil && asked != nil && len(password) <= maxPassword && !by.IsAddress() {
		phc = asked.Password
	}
	ok, err := a.verify(ctx, password, phc)
	if ok || err != nil {
		a.guesses.giveBack(key)
		if counted != "" {
			a.guesses.giveBack(counted)
		}
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
