package accounts

import (
	"context"
	"slices"
	"time"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Evidence is a kind of thing by which somebody shows that an account is theirs. A session keeps what opened it.
type Evidence string

// The kinds of evidence.
const (
	ByPassword     Evidence = "password"
	ByTOTP         Evidence = "totp"
	ByRecoveryCode Evidence = "recovery"
	ByPasskey      Evidence = "passkey" // with the authenticator's own check of the person: two factors in one
	ByLoginToken   Evidence = "token"   // a single-use token that another session of the account has asked for and confirmed
	BySSO          Evidence = "sso"
	BySSOAnew      Evidence = "sso_anew"  // beside BySSO: the provider has asked them just now, not only known them again
	ByDirectory    Evidence = "directory" // a password that the organization's directory has checked
	ByAppPassword  Evidence = "app_password"
	ByService      Evidence = "service" // an application service acts as its own user
	ByRegistration Evidence = "registration"
)

// second are the kinds of evidence that count as a second factor, or that a session with one has made.
var second = []Evidence{ByTOTP, ByRecoveryCode, ByPasskey, ByAppPassword, ByService}

// Proof is what somebody has shown before a session is opened.
type Proof struct {
	Shown  []Evidence
	Enrols bool // the client can lead its user through setting up a second factor, and is let in to do so
}

func (p Proof) has(e Evidence) bool { return slices.Contains(p.Shown, e) }

func (p Proof) secondFactor() bool {
	return slices.ContainsFunc(p.Shown, func(e Evidence) bool { return slices.Contains(second, e) })
}

// words are a proof as the store keeps it.
func (p Proof) words() []string {
	words := make([]string, len(p.Shown))
	for i, e := range p.Shown {
		words[i] = string(e)
	}
	return words
}

func proofOf(words []string) Proof {
	p := Proof{Shown: make([]Evidence, len(words))}
	for i, w := range words {
		p.Shown[i] = Evidence(w)
	}
	return p
}

// unproven refuses somebody who is who they say, as far as they have shown, but has not shown enough. It is a type of its
// own because M_FORBIDDEN has many other reasons.
type unproven struct{ why *matrix.Error }

// Error implements error.
func (u unproven) Error() string { return u.why.Error() }

// Unwrap gives what the client is told.
func (u unproven) Unwrap() error { return u.why }

// errFactorMissing is told to clients that have not shown the account's second factor.
func (a *Accounts) errFactorMissing() error {
	return unproven{matrix.Forbidden("This account has two-factor login. Sign in at %s, or make an app password there and use it in this client.", a.publicURL())}
}

// Refusal is why somebody was refused, as the cause of the error: our pages tell it in the language of whoever reads them.
type Refusal struct {
	Why  string // the last part of the key of a text of the pages
	What string // that belongs into it
}

// Error implements error, for logs.
func (r *Refusal) Error() string { return r.Why }

// errMustEnrol is told to clients that cannot set up a second factor.
func (a *Accounts) errMustEnrol() error {
	return unproven{matrix.Forbidden("This server wants two-factor login from you. Sign in at %s and set it up; then make an app password there for this client.", a.publicURL()).With(&Refusal{Why: "must_enrol"})}
}

func (a *Accounts) publicURL() string {
	if a.config.PublicURL != "" {
		return a.config.PublicURL
	}
	return "https://" + string(a.server)
}

// admitted says whether somebody may open a session of an account by what was shown. It is the one gate that every road to
// a session passes (open), so that none leads around the second factor (threats A10). The account is locked in tx.
func (a *Accounts) admitted(tx *store.Tx, account *store.Account, p Proof) error {
	switch {
	case account == nil || account.Deactivated:
		return errDeactivated()
	case a.leftDirectory(tx, account.User):
		return errGone()
	case account.Locked: // told only to whoever has shown something
		return matrix.UserLocked()
	case p.secondFactor():
		return nil
	case account.SecondFactor != 0:
		return a.errFactorMissing()
	case account.Guest, !a.wantsFactor(account.Admin):
		return nil
	}
	now := a.now().UnixMilli()
	if account.FactorDue == 0 {
		account.FactorDue = now + a.grace().Milliseconds()
		if err := tx.SetFactorDue(account.User, account.FactorDue); err != nil {
			return err
		}
	}
	if now >= account.FactorDue && !p.Enrols && !p.has(ByRegistration) {
		return a.errMustEnrol()
	}
	return nil
}

// grace is how long somebody whom the server's rule asks for a second factor may go without, from when they are first seen
// under the rule.
func (a *Accounts) grace() time.Duration { return time.Duration(a.config.Auth.GraceHours) * time.Hour }

// wantsFactor says whether the rule of the server asks an account for a second factor.
func (a *Accounts) wantsFactor(admin bool) bool {
	switch a.config.Auth.Require2FA {
	case config.Require2FAAll:
		return true
	case config.Require2FAAdmins:
		return admin
	}
	return false
}

// FactorWanted says whether the rule of the server asks a user for a second factor, and by when (ms): 0 if nobody is waiting
// for it, because there is one, or because the time has not begun.
func (a *Accounts) FactorWanted(ctx context.Context, user store.UserNID) (required bool, due int64, err error) {
	account, err := a.accountOf(ctx, user)
	if err != nil || !a.wantsFactor(account.Admin) {
		return false, 0, err
	}
	if account.SecondFactor == 0 {
		due = account.FactorDue
	}
	return true, due, nil
}
