package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Mailer hands mail to the organization's mail server; *mail.Sender does.
type Mailer interface {
	// Send hands one message over. What fails can be tried again, unless it is a *mail.Failure that says otherwise. An
	// error names neither the address nor what the mail says.
	Send(ctx context.Context, m mail.Message) error
}

// Bounds of delivering mail.
const (
	mailWorkers = 4
	mailLease   = 2 * time.Minute // longer than any attempt
	mailSweep   = 5 * time.Second // for mails that are due again, and for wakes that were lost
	minMailWait = 10 * time.Second
	maxMailWait = time.Hour
	mailGiveUp  = 24 * time.Hour // after which a mail is no news
)

// wakeMails says that there is something to send. It never blocks.
func (a *Accounts) wakeMails() {
	select {
	case a.mailHint <- struct{}{}:
	default:
	}
}

// RunMails delivers mail until ctx ends. Each mail is a row that whoever sends it leases, so that any number of nodes can
// deliver; it goes once the mail server has taken it. A crash in between sends it twice rather than never.
func (a *Accounts) RunMails(ctx context.Context) error {
	if a.mail == nil {
		return nil
	}
	places := make(chan struct{}, mailWorkers)
	var workers sync.WaitGroup
	defer workers.Wait()
	ticker := time.NewTicker(mailSweep)
	defer ticker.Stop()
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		m, err := a.leaseMail(ctx)
		if err != nil && ctx.Err() == nil {
			a.log.Error("looking for mail to send failed", "err", err)
		}
		if m != nil {
			workers.Go(func() {
				defer func() { <-places }()
				a.deliverMail(ctx, *m)
			})
			continue
		}
		<-places
		select {
		case <-a.mailHint:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// leaseMail takes the next mail, nil if there is none. Looking is a read; only who finds something writes.
func (a *Accounts) leaseMail(ctx context.Context) (m *store.Mail, err error) {
	now, due := a.now().UnixMilli(), false
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		due, err = tx.MailDue(now)
		return err
	})
	if err != nil || !due {
		return nil, err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		m, err = tx.LeaseMail(now, mailLease.Milliseconds())
		return err
	})
	return m, err
}

// deliverMail makes one attempt at a mail.
func (a *Accounts) deliverMail(ctx context.Context, m store.Mail) {
	end := (*store.Tx).EndMail
	message, err := a.writeMail(ctx, m)
	if err == nil && message != nil {
		err = a.mail.Send(ctx, *message)
	}
	var failure *mail.Failure
	switch {
	case err == nil:
	case ctx.Err() != nil: // ending is nobody's failure
		end = (*store.Tx).ReturnMail
	case errors.As(err, &failure) && failure.Permanent:
		a.log.Warn("a mail was refused and is given up", "mail", m.ID, "kind", m.Kind, "err", err)
	case a.now().Sub(time.UnixMilli(m.Created)) >= mailGiveUp:
		a.log.Warn("a mail could not be sent for a day and is given up", "mail", m.ID, "kind", m.Kind, "err", err)
	default:
		wait := min(minMailWait<<min(m.Fails, 20), maxMailWait)
		a.log.Info("a mail could not be sent and will be tried again", "mail", m.ID, "kind", m.Kind, "fails", m.Fails+1, "err", err)
		due := a.now().Add(wait).UnixMilli()
		end = func(tx *store.Tx, m store.Mail) error { return tx.RetryMail(m, due) }
	}
	// The row is put in order although the process may be ending: nobody should have to wait for the lease's end.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := a.db.Write(finish, func(tx *store.Tx) error { return end(tx, m) }); err != nil {
		a.log.Error("noting what became of a mail failed", "mail", m.ID, "err", err)
	}
}

// writeMail writes a mail of the queue; nil if it would be of no use any more.
func (a *Accounts) writeMail(ctx context.Context, m store.Mail) (*mail.Message, error) {
	var kept mailFacts
	if err := json.Unmarshal([]byte(m.Facts), &kept); err != nil {
		return nil, err
	}
	kind := mail.Kind(m.Kind)
	facts := mail.Facts{
		Server: string(a.server), User: string(kept.User), What: kept.What, From: kept.From, At: time.UnixMilli(kept.At),
		Link: a.publicURL() + "/", Minutes: linkMinutes,
	}
	if kind == mail.Digest {
		wanted, err := a.wantsDigest(ctx, m, kept.Waiting)
		if err != nil || !wanted {
			return nil, err
		}
		facts.Waiting, facts.Stop = kept.Waiting, a.publicURL()+UnsubscribePath+"?token="+url.QueryEscape(kept.Waiting.Token)
	}
	if m.Validation != "" {
		useful, err := a.link(ctx, m.Validation, &kind, &facts)
		if err != nil || !useful {
			return nil, err
		}
	}
	message, err := mail.Compose(kind, m.Lang, facts)
	if err != nil {
		return nil, err
	}
	message.To, message.ID = m.Address, m.ID
	return &message, nil
}

// wantsDigest says whether there still is the pusher that a digest is of: it may have ended while the mail waited.
func (a *Accounts) wantsDigest(ctx context.Context, m store.Mail, w *mail.Waiting) (wanted bool, err error) {
	if w == nil {
		return false, nil
	}
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		p, err := tx.Pusher(w.Pusher)
		wanted = p != nil && p.Key == m.Address
		return err
	})
	return wanted, err
}

// link completes a mail that is to confirm an address: with a link that does, or with the reason why there is nothing to
// confirm, which is for the owner of the address alone. The token exists in this mail and, hashed, in the database.
func (a *Accounts) link(ctx context.Context, validation string, kind *mail.Kind, facts *mail.Facts) (useful bool, err error) {
	random := validation + linkMark + randomText(32)
	hash := sha256.Sum256([]byte(random))
	now := a.now().UnixMilli()
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		useful = false
		v, err := tx.Validation(validation, now)
		if err != nil || v == nil || v.Confirmed != 0 {
			return err
		}
		owner, err := tx.AccountByThreepid(mediumEmail, v.Address)
		if err != nil {
			return err
		}
		useful = true
		facts.User = ""
		if other := unconfirmable(Purpose(v.Purpose), owner); other != "" {
			*kind = other
			if owner != nil {
				facts.User = string(owner.ID)
			}
			return nil
		}
		var of store.UserNID
		switch {
		case v.Purpose == string(ForReset):
			of, facts.User = owner.User, string(owner.ID)
		case v.User != 0:
			if facts.User, err = a.nameOf(tx, v.User); err != nil {
				return err
			}
		}
		facts.Link = a.publicURL() + ConfirmPath + "?token=" + url.QueryEscape(random)
		return tx.AddValidationToken(v, hash[:], of)
	})
	return useful, err
}

// unconfirmable is the mail that says why an address cannot be confirmed, "" if it can. owner is the account that has the
// address already, nil if none has.
func unconfirmable(p Purpose, owner *store.Account) mail.Kind {
	switch {
	case p == ForReset && (owner == nil || owner.Deactivated):
		return mail.Unknown
	case p == ForRegistration && owner != nil:
		return mail.Registered
	case p == ForAdding && owner != nil:
		return mail.Taken
	}
	return ""
}

// nameOf is the ID of a user of ours.
func (a *Accounts) nameOf(tx *store.Tx, user store.UserNID) (string, error) {
	account, err := tx.AccountOf(user)
	if err == nil && account == nil {
		err = fmt.Errorf("user %d has no account: %w", user, matrix.NotFound("There is no such account."))
	}
	if err != nil {
		return "", err
	}
	return string(account.ID), nil
}
