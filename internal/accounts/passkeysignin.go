package accounts

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// BeginPasskey begins to ask a user for a passkey as the second factor. options is what the browser wants; its answer goes
// to CheckFactor with the challenge. That the user is there is enough: who it is the first factor has shown.
func (a *Accounts) BeginPasskey(ctx context.Context, user store.UserNID) (options any, challenge string, err error) {
	if a.relying == nil {
		return nil, "", errNoPasskeys()
	}
	handle, err := a.handles(ctx)
	if err != nil {
		return nil, "", err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.AccountOf(user)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			return errNoSuchPasskey()
		}
		who, err := owner(tx, account, handle(account.ID))
		if err != nil {
			return err
		}
		if len(who.keys) == 0 {
			return errNoSuchPasskey()
		}
		assertion, ceremony, err := a.relying.BeginLogin(who, webauthn.WithUserVerification(protocol.VerificationDiscouraged))
		if err != nil {
			return fmt.Errorf("asking for a passkey: %w", err)
		}
		options, challenge = assertion, ceremony.Challenge
		return a.keepChallenge(tx, store.PasskeyChallenge{User: user, Purpose: forFactor}, ceremony)
	})
	if err != nil {
		return nil, "", err
	}
	return options, challenge, nil
}

// checkPasskey takes a passkey as a second factor.
func (a *Accounts) checkPasskey(ctx context.Context, user store.UserNID, challenge string, raw json.RawMessage) error {
	if a.relying == nil {
		return errNoPasskeys()
	}
	shown, err := parseShown(raw)
	if err != nil {
		return err
	}
	handle, err := a.handles(ctx)
	if err != nil {
		return err
	}
	var ceremony *webauthn.SessionData
	var holder *keyOwner
	var refusal error // what was taken stays taken, so it is not the transaction's error
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		refusal = nil
		account, err := tx.AccountOf(user)
		if err != nil || account == nil {
			return err
		}
		s, err := a.standingOf(ctx, tx, account)
		if err != nil {
			return err
		}
		who, _ := s.who()
		had, err := tx.FactorAttempts(user, who)
		if err != nil {
			return err
		}
		if refusal = a.blocked(had); refusal != nil {
			return nil
		}
		if holder, err = owner(tx, account, handle(account.ID)); err != nil {
			return err
		}
		ceremony, err = a.takeChallenge(tx, store.PasskeyChallenge{Challenge: challenge, User: user, Purpose: forFactor})
		return err
	})
	switch {
	case err != nil:
		return err
	case refusal != nil:
		return refusal
	case ceremony == nil:
		return errChallenge() // nothing was looked at, so nothing counts
	}
	key, wrong := a.relying.ValidateLogin(holder, *ceremony, shown)
	return a.tryFactor(ctx, user, func(tx *store.Tx, account *store.Account) (bool, error) {
		if wrong != nil {
			return false, nil
		}
		return a.usePasskey(tx, account, key.ID, shown)
	})
}

// usePasskey notes a use of a passkey that has shown itself to be the right one; it reports false if it is gone, or if its
// count did not rise.
func (a *Accounts) usePasskey(tx *store.Tx, account *store.Account, credential []byte, shown *protocol.ParsedCredentialAssertionData) (bool, error) {
	used, err := tx.UsePasskey(account.User, credential, int64(shown.Response.AuthenticatorData.Counter), a.now().UnixMilli())
	if err == nil && !used {
		a.audit(tx, "factor.passkey.refused", account.ID, "")
	}
	return used, err
}

// BeginPasskeySignIn begins a sign-in by passkey alone, of whoever has one of ours. options is what the browser wants; its
// answer goes to FinishPasskeySignIn with the challenge. The authenticator has to verify its user, by a PIN or a finger, so
// that this is two factors.
func (a *Accounts) BeginPasskeySignIn(ctx context.Context) (options any, challenge string, err error) {
	if a.relying == nil {
		return nil, "", errNoPasskeys()
	}
	assertion, ceremony, err := a.relying.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, "", fmt.Errorf("asking for a passkey: %w", err)
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		return a.keepChallenge(tx, store.PasskeyChallenge{Purpose: forSignIn}, ceremony)
	})
	if err != nil {
		return nil, "", err
	}
	return assertion, ceremony.Challenge, nil
}

// FinishPasskeySignIn finds who signs in: both factors are shown. Whatever is wrong is M_FORBIDDEN alike, except that the
// owner of a locked account learns that it is (M_USER_LOCKED). Wrong answers are not counted: nobody guesses a signature,
// and whoever could be blocked by them is not the one who gives them.
func (a *Accounts) FinishPasskeySignIn(ctx context.Context, challenge string, raw json.RawMessage) (store.UserNID, error) {
	if a.relying == nil {
		return 0, errNoPasskeys()
	}
	shown, err := parseShown(raw)
	if err != nil {
		return 0, err
	}
	handle, err := a.handles(ctx)
	if err != nil {
		return 0, err
	}
	var ceremony *webauthn.SessionData
	var who *keyOwner
	var user store.UserNID
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		who = nil
		if ceremony, err = a.takeChallenge(tx, store.PasskeyChallenge{Challenge: challenge, Purpose: forSignIn}); err != nil || ceremony == nil {
			return err
		}
		key, err := tx.PasskeyByCredential(shown.RawID)
		if err != nil || key == nil {
			return err
		}
		account, err := tx.AccountOf(key.User)
		if err != nil || account == nil {
			return err
		}
		user = account.User
		who, err = owner(tx, account, handle(account.ID))
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case ceremony == nil:
		return 0, errChallenge()
	case who == nil:
		return 0, errWrongPasskey()
	}
	find := func(_, _ []byte) (webauthn.User, error) { return who, nil } // the library compares the handle
	if _, _, err := a.relying.ValidatePasskeyLogin(find, *ceremony, shown); err != nil {
		return 0, errWrongPasskey().With(err)
	}
	if err := a.signInByPasskey(ctx, user, shown); err != nil {
		return 0, err
	}
	return user, nil
}

// signInByPasskey notes the use of a passkey that has shown itself, and whether its owner may sign in.
func (a *Accounts) signInByPasskey(ctx context.Context, user store.UserNID, shown *protocol.ParsedCredentialAssertionData) error {
	var refusal error
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		refusal = nil
		account, err := tx.LockAccount(user)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			refusal = errWrongPasskey()
			return nil
		}
		used, err := a.usePasskey(tx, account, shown.RawID, shown)
		switch {
		case err != nil:
			return err
		case !used:
			refusal = errWrongPasskey()
		case account.Locked:
			refusal = matrix.UserLocked()
		}
		return nil
	})
	if err == nil {
		err = refusal
	}
	return err
}

func errWrongPasskey() *matrix.Error {
	return matrix.Forbidden("This passkey is not right here, or its user was not verified. Use another one, or your password.")
}
