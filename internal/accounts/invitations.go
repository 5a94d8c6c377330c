package accounts

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"

	"conclave/internal/mail/address"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of tokens of registration. The first is the specification's.
const (
	maxToken      = 64
	defaultToken  = 16
	maxTokenNote  = 1000
	strongToken   = 16 // characters from which on nobody guesses one that was made here: 96 bits
	maxTokenPage  = 1000
	tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// Invitation is a token of registration as administrators see it.
type Invitation struct {
	store.RegistrationToken
	Pending int64 // registrations under way in which it was shown
}

// isOpaque says whether a text is of the grammar of opaque identifiers (appendices, "Opaque Identifiers").
func isOpaque(text string, most int) bool {
	return text != "" && len(text) <= most && strings.Trim(text, tokenAlphabet+".~") == ""
}

// stageToken takes a token of registration. It is counted with the account that is made (Register), not here.
func stageToken(ctx context.Context, a *Accounts, c *confirmation) error {
	var answer struct {
		Token string `json:"token"`
	}
	if err := c.answer(&answer); err != nil {
		return err
	}
	t, err := a.tryToken(ctx, answer.Token, c.Address)
	if err != nil {
		return err
	}
	if t == nil {
		return matrix.Forbidden("This token is not known, or cannot be used any more. Ask whoever gave it to you for a new one.")
	}
	if t.EmailDomain != "" && !c.has(StageEmail) {
		return matrix.Errorf(http.StatusForbidden, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "This token is for people with a certain e-mail address, and this server cannot confirm addresses.")
	}
	return c.set(foundToken, t.Token)
}

// TokenValid says whether an account could be made with a token now (client-server API, "registrationTokenValidity").
// address is the part of a network address that one caller controls.
func (a *Accounts) TokenValid(ctx context.Context, token, address string) (bool, error) {
	t, err := a.tryToken(ctx, token, address)
	return t != nil, err
}

// tryToken finds a token that can be used, nil if there is none. Wrong ones are counted: for the network address, and short
// ones, which could be guessed, for everybody together (threats A09). Long ones stay usable while somebody guesses.
func (a *Accounts) tryToken(ctx context.Context, token, address string) (*store.RegistrationToken, error) {
	if !isOpaque(token, maxToken) {
		return nil, nil
	}
	counted := []cost{{"registration tokens from " + address, guessesAtTokens}}
	if len(token) < strongToken {
		counted = append(counted, cost{"short registration tokens", guessesAtTokens})
	}
	if err := a.guesses.take(ctx, counted...); err != nil {
		return nil, err
	}
	var found *store.RegistrationToken
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.RegistrationToken(token)
		return err
	})
	if found != nil && !found.Valid(a.now().UnixMilli()) {
		found = nil
	}
	if err == nil && found != nil {
		err = a.guesses.giveBack(ctx, counted...)
	}
	return found, err
}

// useToken counts the use of a token in the transaction that makes the account: of many at once only as many have success
// as are allowed (threats A11). email is the confirmed address of whoever makes it, "" for none.
func (a *Accounts) useToken(tx *store.Tx, token, email string) error {
	if token == "" {
		return nil
	}
	t, err := tx.UseRegistrationToken(token, a.now().UnixMilli())
	switch {
	case err != nil:
		return err
	case t == nil:
		return matrix.Forbidden("The token cannot be used any more. Ask whoever gave it to you for a new one.")
	case t.EmailDomain != "" && !isIn(email, t.EmailDomain):
		return matrix.Forbidden("This token is for people with an e-mail address at %s: begin again, and confirm yours.", t.EmailDomain)
	}
	return nil
}

// NewInvitation makes a token of registration. One without characters gets length random ones, 0 for the usual number.
// One that exists already is M_INVALID_PARAM.
func (a *Accounts) NewInvitation(ctx context.Context, by *Session, t store.RegistrationToken, length int) (*Invitation, error) {
	if t.Token == "" {
		if length == 0 {
			length = defaultToken
		}
		if length < 1 || length > maxToken {
			return nil, matrix.InvalidParam("length is from 1 to %d.", maxToken)
		}
		t.Token = randomToken(length)
	}
	if !isOpaque(t.Token, maxToken) {
		return nil, matrix.InvalidParam("A token has 1 to %d of A-Z a-z 0-9 . _ ~ -", maxToken)
	}
	if err := a.checkInvitation(&t); err != nil {
		return nil, err
	}
	t.MadeBy, t.Created, t.Completed = string(by.UserID), a.now().UnixMilli(), 0
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		added, err := tx.AddRegistrationToken(t)
		if err == nil && !added {
			err = matrix.InvalidParam("There is such a token already.")
		}
		if err == nil {
			a.auditTokens(tx, "registration_token.made", by, t)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Invitation{RegistrationToken: t}, nil
}

func randomToken(length int) string {
	random := make([]byte, length)
	rand.Read(random)
	for i, b := range random {
		random[i] = tokenAlphabet[b%64]
	}
	return string(random)
}

// checkInvitation checks what administrators say of a token.
func (a *Accounts) checkInvitation(t *store.RegistrationToken) error {
	t.EmailDomain = strings.ToLower(t.EmailDomain)
	switch {
	case t.UsesAllowed < -1:
		return matrix.InvalidParam("uses_allowed is a number that is not negative, or null.")
	case t.Expires != 0 && t.Expires <= a.now().UnixMilli():
		return matrix.InvalidParam("expiry_time is in the past.")
	case len(t.Note) > maxTokenNote || !plain(t.Note):
		return matrix.InvalidParam("note has at most %d bytes, and no control characters.", maxTokenNote)
	case t.EmailDomain != "" && !isDomain(t.EmailDomain):
		return matrix.InvalidParam("email_domain is the part of addresses after the @.")
	}
	return nil
}

// isDomain says whether a text can be the domain of e-mail addresses that mail is sent to: of no other an address is ever
// confirmed.
func isDomain(text string) bool {
	_, ok := address.Mailbox("a@" + text)
	return ok && plain(text)
}

// ChangeInvitation lets change change a token, for an administrator (M_NOT_FOUND).
func (a *Accounts) ChangeInvitation(ctx context.Context, by *Session, token string, change func(*store.RegistrationToken)) (*Invitation, error) {
	var now *store.RegistrationToken
	err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
		if now, err = tx.RegistrationToken(token); err != nil {
			return err
		}
		if now == nil {
			return errNoToken()
		}
		expires := now.Expires
		change(now)
		checked := *now
		if checked.Expires == expires {
			checked.Expires = 0 // one that is over may stay so
		}
		if err := a.checkInvitation(&checked); err != nil {
			return err
		}
		now.EmailDomain = checked.EmailDomain
		if _, err := tx.ChangeRegistrationToken(*now); err != nil {
			return err
		}
		a.auditTokens(tx, "registration_token.changed", by, *now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.Invitation(ctx, token)
}

func errNoToken() error { return matrix.NotFound("There is no such token.") }

// DropInvitation removes a token, for an administrator (M_NOT_FOUND). Registrations under way with it fail.
func (a *Accounts) DropInvitation(ctx context.Context, by *Session, token string) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		t, err := tx.RegistrationToken(token)
		if err == nil && t == nil {
			err = errNoToken()
		}
		if err != nil {
			return err
		}
		a.auditTokens(tx, "registration_token.removed", by, *t)
		_, err = tx.DropRegistrationToken(token)
		return err
	})
}

// auditTokens notes what an administrator did with a token, of which no more than the beginning is said.
func (a *Accounts) auditTokens(tx *store.Tx, event string, by *Session, t store.RegistrationToken) {
	a.note(tx, Event{Name: event, By: string(by.UserID), Details: map[string]any{
		"token": t.Token[:min(4, len(t.Token)/2)] + "…", "uses_allowed": t.UsesAllowed, "expires": t.Expires, "note": t.Note,
	}})
}

// Invitation finds a token for an administrator (M_NOT_FOUND).
func (a *Accounts) Invitation(ctx context.Context, token string) (*Invitation, error) {
	var found *store.RegistrationToken
	var pending map[string]int64
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		if found, err = tx.RegistrationToken(token); err != nil {
			return err
		}
		pending, err = tx.PendingRegistrations(OperationRegister, foundToken, a.now().UnixMilli())
		return err
	})
	if err == nil && found == nil {
		err = errNoToken()
	}
	if err != nil {
		return nil, err
	}
	return &Invitation{*found, pending[token]}, nil
}

// Invitations reads a page of tokens in their order, after one. valid says that only those are wanted that can be used, or
// only those that cannot; nil for both. next begins the next page, "" if there is none.
func (a *Accounts) Invitations(ctx context.Context, after string, limit int, valid *bool) (list []Invitation, next string, err error) {
	limit = min(max(limit, 1), maxTokenPage)
	now := a.now().UnixMilli()
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		list, next = nil, ""
		last, read := after, 0
		pending, err := tx.PendingRegistrations(OperationRegister, foundToken, now)
		if err != nil {
			return err
		}
		return tx.RegistrationTokens(after, limit+1, func(t store.RegistrationToken) {
			if read++; read > limit {
				next = last
				return
			}
			last = t.Token
			if valid == nil || *valid == t.Valid(now) {
				list = append(list, Invitation{t, pending[t.Token]})
			}
		})
	})
	return list, next, err
}
