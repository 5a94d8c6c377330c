package accounts

import (
	"context"
	"encoding/json"

	"golang.org/x/time/rate"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// The names of events whose rows the program itself reads, or that are noted in several places.
const (
	EventRegistered  = "registered"
	EventLogin       = "login"
	EventLoginFailed = "login.failed"
	EventPassword    = "password.changed"
)

// Event is something that matters for the safety of accounts. It holds no secrets, and no names of people who have no
// account: somebody may have typed a password in the place of a name.
type Event struct {
	Name    string
	User    matrix.UserID  // whose account it is about, "" for none
	By      string         // who did it, "" for the user, or nobody knows
	Address string         // from where
	Details map[string]any // nil for none
}

// maxDetails bounds the details of an event, in bytes. Nothing that is noted comes near it.
const maxDetails = 4 << 10

// audit notes an event that matters for the safety of an account: what happened, to whom, and by whom, "" if it was the
// user's own doing or nobody knows.
func (a *Accounts) audit(tx *store.Tx, event string, user matrix.UserID, by string) {
	a.note(tx, Event{Name: event, User: user, By: by})
}

// note writes an event into the transaction that it is about, and logs it once that is committed. If the row cannot be
// written the transaction cannot be committed either: nothing is done that is not noted.
func (a *Accounts) note(tx *store.Tx, e Event) {
	details := ""
	if len(e.Details) > 0 {
		if raw, err := matrix.Encode(e.Details); err == nil && len(raw) <= maxDetails {
			details = string(raw)
		} else {
			details = `{"omitted":true}`
		}
	}
	_ = tx.AddAudit(store.AuditEntry{ // its error is the transaction's
		TS: a.now().UnixMilli(), Event: e.Name, User: string(e.User), By: e.By, Address: e.Address, Details: details,
	})
	tx.AfterCommit(func() { a.log.Info("security event", "event", e.Name, "user", e.User, "by", e.By) })
}

// noteOf is note, for an account whose name nobody has read yet.
func (a *Accounts) noteOf(tx *store.Tx, user store.UserNID, e Event) error {
	account, err := tx.AccountOf(user)
	if err == nil && account != nil {
		e.User = account.ID
		a.note(tx, e)
	}
	return err
}

// Failed logins are noted up to this many at once and a second: whoever guesses must not fill the database.
const (
	failuresAtOnce    = 100
	failuresPerSecond = 0.5
)

func newFailures() *rate.Limiter { return rate.NewLimiter(failuresPerSecond, failuresAtOnce) }

// noteFailed notes a wrong password. It does as much for a name without an account, of which it keeps no more than that
// there was one.
func (a *Accounts) noteFailed(ctx context.Context, account *store.Account) {
	if !a.failures.AllowN(a.now(), 1) {
		return
	}
	e := Event{Name: EventLoginFailed}
	if account != nil {
		e.User = account.ID
	}
	err := a.db.Write(ctx, func(tx *store.Tx) error {
		a.note(tx, e)
		return nil
	})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("noting a failed login failed", "err", err)
	}
}

// maxAuditPage bounds a page of the audit log.
const maxAuditPage = 1000

// Audit reads a page of the audit log, for administrators.
func (a *Accounts) Audit(ctx context.Context, q store.AuditQuery) (entries []store.AuditEntry, err error) {
	q.Limit = min(max(q.Limit, 1), maxAuditPage)
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		entries = nil
		return tx.Audit(q, func(e store.AuditEntry) { entries = append(entries, e) })
	})
	return entries, err
}

// AuditLine is an entry of the audit log as administrators get it.
type AuditLine struct {
	ID      int64           `json:"id"`
	TS      int64           `json:"ts"` // ms
	Event   string          `json:"event"`
	User    string          `json:"user_id,omitempty"`
	By      string          `json:"by,omitempty"`
	Address string          `json:"ip,omitempty"`
	Details json.RawMessage `json:"details,omitempty"`
}

// LineOf is an entry in that form.
func LineOf(e store.AuditEntry) AuditLine {
	return AuditLine{e.NID, e.TS, e.Event, e.User, e.By, e.Address, json.RawMessage(e.Details)}
}
