package accounts

import (
	"context"
	"time"

	"conclave/internal/ldap"
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

// entrant is somebody whose password was right.
type entrant struct {
	account *store.Account // nil for somebody of the directory who has none yet
	how     Evidence
	person  *ldap.Person // of the directory, nil if it was not asked
}

// aim is whose password a guess may be at.
type aim struct {
	account  *store.Account             // nil: nobody's
	asked    *store.RegistrationRequest // for an account of that name, nil if there is none
	link     *store.DirectoryID         // whom the directory means by the account, nil for nobody
	standing standing                   // of whoever guesses
}

// checkPasswordBy finds whom a name or address and a password belong to. The answer (M_FORBIDDEN) and its time are the same
// for a wrong password and for somebody who does not exist.
//
// What is counted of guesses stands in attempts.go. Beyond it some are refused, and some are wrong without a look.
func (a *Accounts) checkPasswordBy(ctx context.Context, by Identifier, password string) (*entrant, error) {
	return a.checkPasswordSince(ctx, time.Now(), by, password)
}

// checkPasswordSince is checkPasswordBy for a guess that began at a time.
func (a *Accounts) checkPasswordSince(ctx context.Context, began time.Time, by Identifier, password string) (*entrant, error) {
	name, find := a.lookup(by)
	guess := &passwordGuess{Accounts: a, name: name, caller: callerOf(ctx)}
	if err := guess.begin(ctx); err != nil {
		return nil, err
	}
	at, err := a.aimed(ctx, by, find)
	if err != nil {
		return nil, err
	}
	look, err := guess.allow(ctx, at.account, at.standing)
	if err != nil {
		return nil, err
	}
	in, err := a.tryPassword(ctx, by, at, password, look)
	if err == nil && in == nil && look && a.asksDirectory(at) {
		in, err = a.askDirectory(ctx, by, at, guess, password)
	}
	if in != nil || err != nil {
		guess.forgive(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case in == nil:
		a.noteFailed(ctx, at.account)
		return nil, a.wrongPassword(ctx, began)
	case in.account == nil && in.person == nil:
		return nil, errAwaiting()
	}
	return in, nil
}

// aimed reads what there is under a name or address.
func (a *Accounts) aimed(ctx context.Context, by Identifier, find func(*store.Tx) (*store.Account, error)) (*aim, error) {
	at := &aim{}
	return at, a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if at.account, err = find(tx); err != nil {
			return err
		}
		if at.account != nil && a.directory != nil {
			if at.link, err = tx.DirectoryID(at.account.User); err != nil {
				return err
			}
		}
		if at.asked, err = tx.RegistrationRequest(a.localpart(by.User)); err != nil { // for everybody: its time must not tell who has an account
			return err
		}
		at.standing, err = a.standingOf(ctx, tx, at.account)
		return err
	})
}

// tryPassword looks at a password: nil if it is wrong, and with no account if it is of somebody who has asked for one.
func (a *Accounts) tryPassword(ctx context.Context, by Identifier, at *aim, password string, look bool) (*entrant, error) {
	phc := ""
	switch {
	case !look || len(password) > maxPassword:
	case at.account != nil && !at.account.Deactivated:
		phc = at.account.Password
	case at.account == nil && at.asked != nil && !by.IsAddress():
		phc = at.asked.Password
	}
	if phc != "" {
		a.looked.passwords.Add(1)
	}
	ok, err := a.verify(ctx, password, phc)
	if err != nil || !ok {
		return nil, err
	}
	return &entrant{account: at.account, how: ByPassword}, nil
}

// lookup is how the account of an identifier is found, and what guesses at it are counted by. Both do as much for one that
// is nobody's.
func (a *Accounts) lookup(by Identifier) (key string, find func(*store.Tx) (*store.Account, error)) {
	if !by.IsAddress() {
		localpart := a.localpart(by.User)
		return a.guessedAt(by, localpart), func(tx *store.Tx) (*store.Account, error) { return tx.Account(localpart) }
	}
	folded, ok := foldAddress(by.Medium, by.Address)
	if !ok {
		folded = "" // no account has it
	}
	return "address " + folded, func(tx *store.Tx) (*store.Account, error) { return tx.AccountByThreepid(mediumEmail, folded) }
}
