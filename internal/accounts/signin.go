package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How long somebody who signs in may take for it, and how long a login token is good.
const (
	signInTime     = 10 * time.Minute
	loginTokenTime = 2 * time.Minute
	signInPrefix   = "ccs_"
	loginPrefix    = "cct_"
)

// What a sign-in is for: one made for one thing opens no other.
const (
	forSession    = "session"     // a person in front of one of our pages
	forLoginToken = "login token" // the client that is shown the token
	forTarget     = "target"      // a person whom the organization's provider has let through, for the client at its target
)

// SigningIn is somebody on the way to a session. What they have shown stays with the server; they go on with the secret.
type SigningIn struct {
	Secret string
	Needs  []Evidence // kinds of second factor, any of which is wanted; none if they have shown enough
	Lasts  time.Duration
}

// SignInPassword begins to sign in by name or address and password (M_FORBIDDEN).
func (a *Accounts) SignInPassword(ctx context.Context, by Identifier, password string) (*SigningIn, error) {
	account, how, err := a.entered(ctx, time.Now(), by, password)
	if err != nil {
		return nil, err
	}
	return a.signIn(ctx, account, Proof{Shown: []Evidence{how}})
}

// SignInPasskey begins to sign in by a passkey alone: challenge is of BeginPasskeySignIn, credential what the browser gave.
func (a *Accounts) SignInPasskey(ctx context.Context, challenge string, credential json.RawMessage) (*SigningIn, error) {
	user, err := a.FinishPasskeySignIn(ctx, challenge, credential)
	if err != nil {
		return nil, err
	}
	account, err := a.accountOf(ctx, user)
	if err == nil {
		err = a.stillThere(ctx, user)
	}
	if err != nil {
		return nil, err
	}
	return a.signIn(ctx, account, Proof{Shown: []Evidence{ByPasskey}})
}

func (a *Accounts) accountOf(ctx context.Context, user store.UserNID) (account *store.Account, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.AccountOf(user)
		return err
	})
	if err == nil && (account == nil || account.Deactivated) {
		err = errDeactivated()
	}
	return account, err
}

// signIn keeps what somebody has shown and says what is missing.
func (a *Accounts) signIn(ctx context.Context, account *store.Account, p Proof) (*SigningIn, error) {
	return a.signInFor(ctx, account, p, forSession, "")
}

func (a *Accounts) signInFor(ctx context.Context, account *store.Account, p Proof, purpose, target string) (*SigningIn, error) {
	now := a.now()
	secret, hash := newToken(signInPrefix)
	needs, err := a.needs(ctx, account, p)
	if err != nil {
		return nil, err
	}
	row := store.SignIn{
		Hash: hash[:], User: account.User, Purpose: purpose, Target: target, Shown: p.words(), Expires: now.Add(signInTime).UnixMilli(),
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		still, err := tx.LockAccount(account.User)
		switch {
		case err != nil:
			return err
		case still == nil || still.Deactivated || still.Password != account.Password:
			return errWrongPassword()
		case still.Locked:
			return matrix.UserLocked()
		}
		return tx.AddSignIn(row, now.UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	return &SigningIn{secret, needs, signInTime}, nil
}

// needs are the second factors of which an account wants one more than was shown.
func (a *Accounts) needs(ctx context.Context, account *store.Account, p Proof) ([]Evidence, error) {
	if account.SecondFactor == 0 || p.secondFactor() {
		return nil, nil
	}
	f, err := a.Factors(ctx, account.User)
	return f.kinds(), err
}

// kinds are those of which one can be shown.
func (f Factors) kinds() []Evidence {
	var kinds []Evidence
	for _, k := range []struct {
		kind Evidence
		have bool
	}{{ByTOTP, f.TOTP}, {ByPasskey, f.Passkeys > 0}, {ByRecoveryCode, f.Recovery > 0}} {
		if k.have {
			kinds = append(kinds, k.kind)
		}
	}
	return kinds
}

// askMore refuses a client that has shown a password where that is not enough. One that knows of it goes on with the
// sign-in in the refusal, which needs a second factor, or nothing where its user has to set one up; the words are for
// people whose client does not.
func (a *Accounts) askMore(ctx context.Context, account *store.Account, p Proof, refusal unproven) error {
	s, err := a.signIn(ctx, account, p)
	if err != nil {
		return err
	}
	needs := append([]Evidence{}, s.Needs...) // a list also where it is empty
	return refusal.why.WithField("im.conclave.sign_in", map[string]any{"sign_in": s.Secret, "needs": needs, "expires_in_ms": s.Lasts.Milliseconds()})
}

// continued finds a sign-in that goes on (M_FORBIDDEN), with its account.
func (a *Accounts) continued(ctx context.Context, secret string) (row *store.SignIn, account *store.Account, err error) {
	hash := sha256.Sum256([]byte(secret))
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if row, err = tx.SignIn(hash[:]); err != nil || row == nil {
			return err
		}
		account, err = tx.AccountOf(row.User)
		return err
	})
	if err == nil && (row == nil || row.Purpose == forLoginToken || row.Expires < a.now().UnixMilli() || account == nil || account.Deactivated) {
		err = errSignIn()
	}
	return row, account, err
}

func errSignIn() error {
	return matrix.Forbidden("This sign-in is not known, or too old. Begin again.")
}

// SignInChallenge begins to ask for a passkey as the second factor of a sign-in (BeginPasskey).
func (a *Accounts) SignInChallenge(ctx context.Context, secret string) (options any, challenge string, err error) {
	row, _, err := a.continued(ctx, secret)
	if err != nil {
		return nil, "", err
	}
	return a.BeginPasskey(ctx, row.User)
}

// SignInFactor goes on with a second factor, which is used up by it (CheckFactor).
func (a *Accounts) SignInFactor(ctx context.Context, secret string, answer FactorAnswer) (*SigningIn, error) {
	row, account, err := a.continued(ctx, secret)
	if err != nil {
		return nil, err
	}
	if err := a.CheckFactor(ctx, row.User, answer); err != nil {
		return nil, err
	}
	shown := slices.Concat(row.Shown, []string{answer.Type})
	err = a.db.Write(ctx, func(tx *store.Tx) error { return tx.SignInShown(row.Hash, shown) })
	if err != nil {
		return nil, err
	}
	needs, err := a.needs(ctx, account, proofOf(shown))
	return &SigningIn{secret, needs, time.UnixMilli(row.Expires).Sub(a.now())}, err
}

// LoginSignIn opens a session for whoever has signed in (M_FORBIDDEN). The sign-in is used up by it, unless something is
// missing. Its clients can lead people through setting up what the server's rule wants of them.
func (a *Accounts) LoginSignIn(ctx context.Context, secret string, d NewDevice) (*Login, error) {
	return a.loginBy(ctx, secret, forSession, d, true)
}

// LoginToken opens a session by a login token, which is used up by it (M_FORBIDDEN).
func (a *Accounts) LoginToken(ctx context.Context, token string, d NewDevice) (*Login, error) {
	return a.loginBy(ctx, token, forLoginToken, d, d.Enrols)
}

func (a *Accounts) loginBy(ctx context.Context, secret, purpose string, d NewDevice, enrols bool) (*Login, error) {
	hash := sha256.Sum256([]byte(secret))
	var row *store.SignIn
	var account *store.Account
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if row, err = tx.SignIn(hash[:]); err != nil || row == nil {
			return err
		}
		account, err = tx.AccountOf(row.User)
		return err
	})
	if err == nil && (row == nil || row.Purpose != purpose || account == nil) {
		err = errSignIn()
	}
	if err != nil {
		return nil, err
	}
	p := proofOf(row.Shown)
	p.Enrols = enrols
	login, write, err := a.open(account.User, account.ID, d, p)
	if err != nil {
		return nil, err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		taken, err := tx.TakeSignIn(hash[:])
		if err != nil {
			return err
		}
		// What was shown may only have become more since it was read.
		if taken == nil || taken.Expires < a.now().UnixMilli() {
			return errSignIn()
		}
		return write(tx)
	})
	if err != nil {
		return nil, err
	}
	return login, nil
}

// NewLoginToken makes a token for one login of another client, of the account of a session whose owner has just confirmed
// it (client-server API, generateLoginToken).
func (a *Accounts) NewLoginToken(ctx context.Context, s *Session, c *Confirmed) (token string, lasts time.Duration, err error) {
	now := a.now()
	token, hash := newToken(loginPrefix)
	row := store.SignIn{Hash: hash[:], User: s.User, Purpose: forLoginToken, Shown: c.proof().words(), Expires: now.Add(loginTokenTime).UnixMilli()}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		a.audit(tx, "login_token.made", account.ID, "")
		return tx.AddSignIn(row, now.UnixMilli())
	})
	return token, loginTokenTime, err
}
