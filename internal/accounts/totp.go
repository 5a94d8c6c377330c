package accounts

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"image/png"
	"net/http"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// What every authenticator app understands (RFC 6238): SHA-1, six digits, a new code each 30 seconds. One step before and
// one after the present are taken too, for clocks that are not right and people who type slowly.
const (
	totpStep     = 30 // seconds
	totpDigits   = 6
	totpWindow   = 1 // steps
	totpSeed     = 20
	enrolTime    = 15 * time.Minute
	qrSize       = 256 // pixels
	maxTOTPInput = 32  // bytes of a code as it is typed
)

// TOTPEnrolment is what somebody puts into their authenticator app. It is shown once.
type TOTPEnrolment struct {
	URI     string // otpauth://…
	Secret  string // the seed in base32, for those who cannot scan
	QR      []byte // the URI as a PNG
	Expires int64  // ms until which it can be confirmed
}

// BeginTOTP makes a seed for an authenticator app for the user of a session. It counts for nothing until ConfirmTOTP,
// and replaces one that was begun before.
func (a *Accounts) BeginTOTP(ctx context.Context, s *Session) (*TOTPEnrolment, error) {
	// A colon would end the issuer in the label of the URI.
	issuer := strings.ReplaceAll(string(a.server), ":", " ")
	key, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: s.UserID.Localpart(), SecretSize: totpSeed, Period: totpStep, Digits: totpDigits, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return nil, fmt.Errorf("making a seed: %w", err)
	}
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(key.Secret())
	if err != nil {
		return nil, fmt.Errorf("making a seed: %w", err)
	}
	sealed, err := a.seal(s.UserID, seed)
	if err != nil {
		return nil, err
	}
	picture, err := key.Image(qrSize, qrSize)
	if err != nil {
		return nil, fmt.Errorf("drawing a code: %w", err)
	}
	var qr bytes.Buffer
	if err := png.Encode(&qr, picture); err != nil {
		return nil, fmt.Errorf("drawing a code: %w", err)
	}
	now := a.now()
	e := store.Enrolment{Device: s.Device, Sealed: sealed, Expires: now.Add(enrolTime).UnixMilli()}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := a.ownAccount(tx, s); err != nil {
			return err
		}
		return tx.PutEnrolment(s.User, e, now.UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	return &TOTPEnrolment{URI: key.String(), Secret: key.Secret(), QR: qr.Bytes(), Expires: e.Expires}, nil
}

// ConfirmTOTP makes what BeginTOTP began in the same session the user's authenticator app, in the place of another, if a
// code shows that it is set up (M_FORBIDDEN). With the first second factor come recovery codes.
func (a *Accounts) ConfirmTOTP(ctx context.Context, s *Session, code string) (recovery []string, err error) {
	return a.changeFactors(ctx, s, "factor.totp.added", func(tx *store.Tx, account *store.Account) error {
		e, err := tx.Enrolment(s.User)
		if err != nil {
			return err
		}
		now := a.now()
		if e == nil || e.Device != s.Device || e.Expires <= now.UnixMilli() {
			return matrix.NotFound("No authenticator app is being set up in this session. Begin again.")
		}
		seed, err := a.unseal(account.ID, e.Sealed)
		if err != nil {
			return fmt.Errorf("reading a seed: %w", err)
		}
		step, ok := matchTOTP(seed, code, now, 0)
		if !ok {
			return matrix.Forbidden("The code is not right. Look at the clock of the device that shows it.")
		}
		if err := tx.DeleteEnrolment(s.User); err != nil {
			return err
		}
		return tx.PutTOTP(s.User, store.TOTP{Sealed: e.Sealed, Step: step}, now.UnixMilli())
	})
}

// RemoveTOTP removes the authenticator app of a session's user.
func (a *Accounts) RemoveTOTP(ctx context.Context, s *Session) error {
	_, err := a.changeFactors(ctx, s, "factor.totp.removed", func(tx *store.Tx, _ *store.Account) error {
		there, err := tx.DeleteTOTP(s.User)
		if err == nil && !there {
			err = matrix.NotFound("You have no authenticator app here.")
		}
		return err
	})
	return err
}

// errUnreadable is the errcode of a code that may well be right: the seed that it was made with cannot be decrypted here any more. Whoever
// has it should not try the next one, but use a recovery code.
const errUnreadable = "IM.CONCLAVE.AUTHENTICATOR_UNREADABLE"

// useTOTP takes a code of an account's authenticator app, once.
func (a *Accounts) useTOTP(tx *store.Tx, account *store.Account, code string) (bool, error) {
	t, err := tx.TOTP(account.User)
	if err != nil || t == nil {
		return false, err
	}
	seed, err := a.unseal(account.ID, t.Sealed)
	if err != nil {
		a.log.Error("the seed of an authenticator app cannot be decrypted: the secret key of this server is not the one it was made with", "user", account.ID)
		return false, matrix.Errorf(http.StatusForbidden, errUnreadable, "This server cannot check your authenticator app any more. Use a recovery code, or ask its administrator.").With(err)
	}
	step, ok := matchTOTP(seed, code, a.now(), t.Step)
	if !ok {
		return false, nil
	}
	return tx.TakeTOTPStep(account.User, step)
}

// matchTOTP finds the step after last whose code was typed. It looks at each, so that time tells nothing.
func matchTOTP(seed []byte, code string, now time.Time, last int64) (step int64, ok bool) {
	typed := totpCode(code)
	if typed == "" {
		return 0, false
	}
	secret := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed)
	present := now.Unix() / totpStep
	for s := present - totpWindow; s <= present+totpWindow; s++ {
		want, err := hotp.GenerateCodeCustom(secret, uint64(max(s, 0)), hotp.ValidateOpts{Digits: totpDigits, Algorithm: otp.AlgorithmSHA1})
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(typed)) == 1 && s > last && !ok {
			step, ok = s, true
		}
	}
	return step, ok
}

// totpCode reads a code as people type it, "" if it cannot be one.
func totpCode(text string) string {
	if len(text) > maxTOTPInput {
		return ""
	}
	code := strings.ReplaceAll(text, " ", "")
	if len(code) != totpDigits || strings.Trim(code, "0123456789") != "" {
		return ""
	}
	return code
}
