package accounts

import (
	"context"
	"crypto/sha256"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Recovery codes: how many there are, and of how many letters each, of five bits: 100 random bits, so that a plain hash
// keeps them. They are shown in groups.
const (
	recoveryCodes   = 10
	recoveryLetters = 20
	recoveryGroup   = 5
)

// NewRecoveryCodes gives the user of a session ten new recovery codes; the old ones end. They are shown this once.
func (a *Accounts) NewRecoveryCodes(ctx context.Context, s *Session) (codes []string, err error) {
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		if account.SecondFactor == 0 {
			return matrix.Forbidden("Recovery codes stand in for a second factor: set one up first.")
		}
		a.audit(tx, "factor.recovery.renewed", account.ID, "")
		codes, err = newRecoveryCodes(tx, account)
		return err
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// newRecoveryCodes replaces an account's recovery codes.
func newRecoveryCodes(tx *store.Tx, account *store.Account) ([]string, error) {
	codes, hashes := make([]string, recoveryCodes), make([][]byte, recoveryCodes)
	for i := range codes {
		letters := newName(recoveryLetters)
		hashes[i] = recoveryHash(account.ID, letters)
		var groups []string
		for ; letters != ""; letters = letters[recoveryGroup:] {
			groups = append(groups, letters[:recoveryGroup])
		}
		codes[i] = strings.Join(groups, "-")
	}
	return codes, tx.ReplaceRecoveryCodes(account.User, hashes)
}

// recoveryHash is what is kept of a recovery code.
func recoveryHash(user matrix.UserID, letters string) []byte {
	hash := sha256.Sum256([]byte("conclave recovery code\x00" + string(user) + "\x00" + letters))
	return hash[:]
}

// recoveryLettersOf reads a recovery code as people write it: with or without groups, in either case. It returns "" for
// what cannot be one.
func recoveryLettersOf(code string) string {
	if len(code) > 4*recoveryLetters {
		return ""
	}
	letters := strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(code))
	if len(letters) != recoveryLetters {
		return ""
	}
	return letters
}

// useRecovery uses up a recovery code.
func (a *Accounts) useRecovery(tx *store.Tx, account *store.Account, code string) (bool, error) {
	letters := recoveryLettersOf(code)
	if letters == "" || account.SecondFactor == 0 {
		return false, nil
	}
	taken, err := tx.TakeRecoveryCode(account.User, recoveryHash(account.ID, letters))
	if taken && err == nil {
		a.audit(tx, "factor.recovery.used", account.ID, "")
	}
	return taken, err
}
