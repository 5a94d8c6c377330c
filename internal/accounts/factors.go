package accounts

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How many wrong second factors of an account are looked at, and how long none is afterwards, not even right ones (threats
// A10). Wrong ones are forgotten with a right one, or after as long without any: whoever mistypes once a week is never
// blocked, and nobody for good. Limits of requests can be switched off, this not: a code has only six digits.
//
// Whoever has the password and no more is a stranger, and blocks strangers. Places where the owner has logged in lately are
// counted apart, all together, and block for longer: so that all who are not the owner have 30 looked at in an hour. Each
// session, and each browser that was logged in, is counted by itself (standing), and all of an account together have no more
// than guessesOfOwners looked at, so that an account has at most 60 looked at in an hour.
const (
	maxWrongFactors = 5
	factorBlock     = 15 * time.Minute
	placeBlock      = 30 * time.Minute
)

// Factors are the second factors of an account.
type Factors struct {
	TOTP     bool // an authenticator app
	Recovery int  // recovery codes that were not used yet
	Passkeys int
	Since    int64 // ms of the first enrolment, 0 if there is none
}

// Any reports whether there is a second factor. Recovery codes alone are none: they stand in for one.
func (f Factors) Any() bool { return f.TOTP || f.Passkeys > 0 }

// FactorAnswer is what somebody shows as a second factor.
type FactorAnswer struct {
	Type      string          // "totp", "recovery" or "passkey"
	Code      string          // of the authenticator app, or a recovery code
	Passkey   json.RawMessage // what the browser's toJSON gave of the credential
	Challenge string          // that BeginPasskey gave
}

// Factors reads the second factors of an account.
func (a *Accounts) Factors(ctx context.Context, user store.UserNID) (Factors, error) {
	var f store.Factors
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		f, err = tx.Factors(user)
		return err
	})
	return Factors(f), err
}

// CheckFactor takes a second factor, which is used up by it: M_FORBIDDEN if it is wrong, M_LIMIT_EXCEEDED after too many
// wrong ones. It is for whoever has shown the first factor of the same account already: otherwise a stranger could spend
// its owner's attempts.
func (a *Accounts) CheckFactor(ctx context.Context, user store.UserNID, answer FactorAnswer) error {
	switch answer.Type {
	case "totp":
		return a.tryFactor(ctx, user, func(tx *store.Tx, account *store.Account) (bool, error) {
			return a.useTOTP(tx, account, answer.Code)
		})
	case "recovery":
		return a.tryFactor(ctx, user, func(tx *store.Tx, account *store.Account) (bool, error) {
			return a.useRecovery(tx, account, answer.Code)
		})
	case "passkey":
		return a.checkPasskey(ctx, user, answer.Challenge, answer.Passkey)
	}
	return matrix.InvalidParam("There is no second factor of the type %.32q.", answer.Type)
}

func errWrongFactor() *matrix.Error {
	return matrix.Forbidden("This second factor is not right, or was used already. Wait for the next code of your app, or use a recovery code.")
}

// tryFactor lets use look at a second factor, unless there were too many wrong ones, and counts it if it is wrong. The
// lock on the account brings attempts that come at once into an order.
func (a *Accounts) tryFactor(ctx context.Context, user store.UserNID, use func(*store.Tx, *store.Account) (bool, error)) error {
	caller := callerOf(ctx)
	owner, _ := ctx.Value(ownerKey{}).(*Session)
	device := int64(0)
	if owner != nil {
		device = owner.Device
	}
	memory := cost{name: fmt.Sprintf("factor of %d by %d %s %s", user, device, caller.Mark, caller.Block)}
	if wait := a.guesses.known(memory, a.now().UnixMilli()); wait > 0 {
		return matrix.LimitExceeded(wait)
	}
	var refusal error // what was counted has to be committed, so it is not the transaction's error
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		refusal = nil
		account, err := tx.LockAccount(user)
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			refusal = errWrongFactor()
			return nil
		}
		s, err := a.standingOf(ctx, tx, account)
		if err != nil {
			return err
		}
		t, err := a.attemptOf(tx, account, s)
		if err != nil {
			return err
		}
		if refusal = a.blocked(t.had); refusal != nil {
			a.guesses.remember(memory.key(), a.now().UnixMilli(), t.had.Blocked)
			return nil
		}
		a.looked.factors.Add(1)
		ok, err := use(tx, account)
		if err != nil {
			return err
		}
		if ok {
			return a.forgiveFactor(tx, account, t)
		}
		refusal = errWrongFactor()
		return a.countWrong(tx, account, t.who, t.block, t.had)
	})
	if err == nil {
		err = refusal
	}
	return err
}

// attempt is an attempt at a second factor, as it is counted.
type attempt struct {
	who   string
	block time.Duration
	had   store.Attempts
	own   bool // it was taken out of what the owner's sessions and browsers have together
}

// attemptOf decides what an attempt is counted by, and takes it out of guessesOfOwners if it is a session's or known
// browser's that is not blocked. When that is used up it counts as anybody's at that place.
func (a *Accounts) attemptOf(tx *store.Tx, account *store.Account, s standing) (t attempt, err error) {
	t.who, t.block = s.who()
	if t.had, err = tx.FactorAttempts(account.User, t.who); err != nil || s.own == "" || a.blocked(t.had) != nil {
		return t, err
	}
	owners, now := ofOwners("factor", account), a.now().UnixMilli()
	key := owners.key()
	wait, err := tx.Spend(key[:], owners.of, now)
	if err != nil || wait == 0 {
		t.own = true
		return t, err
	}
	s.own = ""
	t.who, t.block = s.who()
	t.had, err = tx.FactorAttempts(account.User, t.who)
	if a.blocked(t.had) != nil {
		t.had.Blocked = min(t.had.Blocked, now+wait) // when there is something left for the owner again
	}
	return t, err
}

// forgiveFactor forgets wrong attempts before a right one, and gives that back.
func (a *Accounts) forgiveFactor(tx *store.Tx, account *store.Account, t attempt) error {
	if t.own {
		owners := ofOwners("factor", account)
		key := owners.key()
		if err := tx.Refund(key[:], owners.of); err != nil {
			return err
		}
	}
	return tx.ClearFactorAttempts(account.User, t.who)
}

// blocked refuses while no second factor is looked at (M_LIMIT_EXCEEDED).
func (a *Accounts) blocked(had store.Attempts) error {
	if wait := had.Blocked - a.now().UnixMilli(); wait > 0 {
		return matrix.LimitExceeded(wait)
	}
	return nil
}

// who is under what wrong second factors are counted, and how long too many of them block.
func (s standing) who() (who string, block time.Duration) {
	switch {
	case s.own != "":
		return s.own, factorBlock
	case s.place:
		return "places", placeBlock
	}
	return "", factorBlock
}

func (a *Accounts) countWrong(tx *store.Tx, account *store.Account, who string, block time.Duration, had store.Attempts) error {
	now := a.now().UnixMilli()
	next := store.Attempts{Wrong: had.Wrong + 1, Latest: now}
	if had.Blocked != 0 || now-had.Latest >= block.Milliseconds() {
		next.Wrong = 1
	}
	if next.Wrong >= maxWrongFactors {
		next.Blocked = now + block.Milliseconds()
		a.audit(tx, "factor.blocked", account.ID, "")
	}
	return tx.SetFactorAttempts(account.User, who, next, now-(24*time.Hour).Milliseconds())
}

// changeFactors lets change add or remove second factors of the account of a session, and brings the rest in line: the
// note that there are any, recovery codes for the first, none without any. It returns new recovery codes, if it made some.
// What the policy demands cannot be removed (M_FORBIDDEN).
func (a *Accounts) changeFactors(ctx context.Context, s *Session, event string, change func(*store.Tx, *store.Account) error) (codes []string, err error) {
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		codes = nil
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		if err := change(tx, account); err != nil {
			return err
		}
		f, err := tx.NoteFactors(s.User, a.now().UnixMilli())
		if err != nil {
			return err
		}
		switch any := Factors(f).Any(); {
		case any && f.Recovery == 0 && account.SecondFactor == 0:
			codes, err = newRecoveryCodes(tx, account)
		case !any && a.wantsFactor(account.Admin):
			return matrix.Forbidden("This server demands a second factor: set up another one before you remove the last.")
		case !any:
			err = tx.ReplaceRecoveryCodes(s.User, nil)
		}
		if (account.SecondFactor != 0) != Factors(f).Any() {
			tx.AfterCommit(func() { a.ended(s.User) }) // what its sessions may do hangs on it
		}
		a.audit(tx, event, account.ID, "")
		if err == nil {
			err = a.tellOwner(tx, s.User, mail.Factor, "", "")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// ownAccount is the account of a session, locked, if it is still open.
func (a *Accounts) ownAccount(tx *store.Tx, s *Session) (*store.Account, error) {
	account, err := tx.LockAccount(s.User)
	if err == nil && (account == nil || account.Deactivated) {
		err = matrix.UnknownToken(false)
	}
	return account, err
}

// ResetFactors removes every second factor of an account, for an administrator whose user has lost them. Sessions and the
// password stay. by says who did it.
func (a *Accounts) ResetFactors(ctx context.Context, by string, user store.UserNID) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user)
		if err == nil && (account == nil || account.Deactivated) {
			err = matrix.NotFound("The account is deactivated.")
		}
		if err != nil {
			return err
		}
		tx.AfterCommit(func() {
			a.ended(user)
			a.guesses.forgetRefusals()
		})
		a.audit(tx, "factor.reset", account.ID, by)
		if err := a.tellOwner(tx, user, mail.Factor, "", ""); err != nil {
			return err
		}
		return tx.DeleteFactors(user)
	})
}

// sealing is what the key that seals seeds is for; changing it makes every sealed seed unreadable.
const sealing = "totp seeds"

var errNoSecrets = errors.New("accounts: there is no key to seal second factors with")

// seal encrypts a seed of a user: a random nonce, then XChaCha20-Poly1305 with the user as what it is bound to, so that
// it cannot be moved to another account in the database.
func (a *Accounts) seal(user matrix.UserID, seed []byte) ([]byte, error) {
	if a.secrets == nil {
		return nil, errNoSecrets
	}
	key := a.secrets.Derive(sealing)
	box, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize(), box.NonceSize()+len(seed)+box.Overhead())
	rand.Read(nonce)
	return box.Seal(nonce, nonce, seed, []byte(user)), nil
}

// unseal decrypts what seal encrypted for the same user.
func (a *Accounts) unseal(user matrix.UserID, sealed []byte) ([]byte, error) {
	if a.secrets == nil {
		return nil, errNoSecrets
	}
	key := a.secrets.Derive(sealing)
	box, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	if len(sealed) < box.NonceSize() {
		return nil, errors.New("accounts: a sealed seed is too short")
	}
	return box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], []byte(user))
}
