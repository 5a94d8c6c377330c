package accounts

import (
	"context"
	"time"

	"conclave/internal/mail"
	"conclave/internal/store"
)

// How often what has a time is looked at, and how much of it one transaction ends.
const (
	expiryEvery = time.Hour
	expireAtOne = 500

	txnLife = 30 * day // how long a device's transaction is known: repeated later it is a new one
)

const day = 24 * time.Hour

// RunExpiry ends what is too old, until ctx ends: entries of the audit log, requests for accounts that nobody has answered, and
// transactions of devices. Any number of nodes may do so at the same time.
func (a *Accounts) RunExpiry(ctx context.Context) error {
	ticker := time.NewTicker(expiryEvery)
	defer ticker.Stop()
	for {
		if err := a.expire(ctx); err != nil {
			return err // and is started again after a pause
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// expire ends all that is too old now.
func (a *Accounts) expire(ctx context.Context) error {
	if days := a.config.Audit.RetentionDays; days > 0 {
		if err := a.trimAudit(ctx, a.now().Add(-time.Duration(days)*day)); err != nil {
			return err
		}
	}
	if err := a.forgetTxns(ctx, a.now().Add(-txnLife)); err != nil {
		return err
	}
	days := a.config.Registration.RequestDays
	if days == 0 {
		return nil
	}
	for {
		n, err := a.expireRequests(ctx, a.now().Add(-time.Duration(days)*day))
		if err != nil || n < expireAtOne {
			return err
		}
	}
}

// trimAudit removes entries of before a time, and notes how many: whoever reads the log learns that something was there.
func (a *Accounts) trimAudit(ctx context.Context, before time.Time) error {
	for {
		var n int64
		err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
			if n, err = tx.TrimAudit(before.UnixMilli(), expireAtOne); err == nil && n > 0 {
				a.note(tx, Event{Name: "audit.trimmed", By: "retention", Details: map[string]any{"entries": n, "before": before.UnixMilli()}})
			}
			return err
		})
		if err != nil || n < expireAtOne {
			return err
		}
	}
}

// forgetTxns forgets what transactions of before a time were answered.
func (a *Accounts) forgetTxns(ctx context.Context, before time.Time) error {
	for {
		var n int64
		err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.ForgetTxns(before.UnixMilli(), expireAtOne)
			return err
		})
		if err != nil || n < expireAtOne {
			return err
		}
	}
}

// expireRequests ends requests for accounts of before a time. Their names are free again, and whoever has given an address
// is told.
func (a *Accounts) expireRequests(ctx context.Context, before time.Time) (n int, err error) {
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		n = 0
		var over []store.RegistrationRequest
		if err := tx.ExpireRegistrationRequests(before.UnixMilli(), expireAtOne, func(q store.RegistrationRequest) { over = append(over, q) }); err != nil {
			return err
		}
		n = len(over)
		for _, q := range over {
			id := a.userID(q.Localpart)
			a.note(tx, Event{Name: "registration.expired", User: id, By: "retention"})
			if q.Email == "" || !a.Mails() {
				continue
			}
			if err := a.addMail(tx, store.Mail{Address: q.Email, Kind: string(mail.Expired), Lang: q.Lang}, mailFacts{User: id, From: q.Address, At: q.Created}); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}
