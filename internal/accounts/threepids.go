package accounts

import (
	"context"
	"crypto/sha256"
	"net/http"
	"slices"
	"strconv"
	"time"

	"conclave/internal/mail"
	"conclave/internal/mail/address"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// IdentityServers tell everybody which user an address belongs to, if the user wants that; federation.IdentityServices
// satisfies it. Their errors are for clients.
type IdentityServers interface {
	// Bind has a server publish that an address which it has confirmed (sid, secret) is a user's, and returns which address
	// that was, in canonical form.
	Bind(ctx context.Context, at matrix.ServerName, token, sid, secret string, user matrix.UserID) (medium, address string, err error)
	// Unbind has a server forget that, in this server's own name; supported is false if it does not do such a thing.
	Unbind(ctx context.Context, at matrix.ServerName, user matrix.UserID, medium, address string) (supported bool, err error)
}

// maxThreepids bounds the addresses of an account, and maxBindings what is noted of those that it has published.
const (
	maxThreepids = 20
	maxBindings  = 50
)

// NewAddressProof is the proof of a client that was told a session's ID and chose its secret.
func NewAddressProof(sid, secret string) AddressProof {
	return AddressProof{sid, sha256.Sum256([]byte(secret))}
}

// Threepids reads the addresses of an account.
func (a *Accounts) Threepids(ctx context.Context, user store.UserNID) (list []store.Threepid, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		list = []store.Threepid{}
		return tx.Threepids(user, func(t store.Threepid) { list = append(list, t) })
	})
	return list, err
}

// AddressConfirmed fails (M_THREEPID_AUTH_FAILED) if an address cannot be added with a proof, as things are: so that
// nobody is asked for a password in vain.
func (a *Accounts) AddressConfirmed(ctx context.Context, p AddressProof) error {
	_, err := a.confirmedAddress(ctx, p, ForAdding)
	return err
}

// AddThreepid gives a confirmed address to an account and tells the account's other addresses. lang is the language of
// mails to it, from the network address that asks.
func (a *Accounts) AddThreepid(ctx context.Context, s *Session, p AddressProof, lang, from string) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		v, err := a.takeAddress(tx, p, ForAdding, s.User)
		if err != nil {
			return err
		}
		account, err := tx.LockAccount(s.User) // which counts the addresses one after the other
		if err != nil {
			return err
		}
		if account == nil || account.Deactivated {
			return errDeactivated()
		}
		n := 0
		if err := tx.Threepids(s.User, func(store.Threepid) { n++ }); err != nil {
			return err
		}
		if n >= maxThreepids {
			return matrix.Errorf(http.StatusBadRequest, "M_TOO_LARGE", "An account has at most %d addresses. Remove one first.", maxThreepids)
		}
		if err := a.addAddress(tx, v, s.User, lang); err != nil {
			return err
		}
		a.audit(tx, "address.added", account.ID, "")
		return a.tellOwner(tx, s.User, mail.Added, v.Address, from)
	})
}

// addAddress gives a confirmed address to an account, if it is nobody's (M_THREEPID_IN_USE). The client may learn that: it
// has shown that the address is its user's.
func (a *Accounts) addAddress(tx *store.Tx, v *store.Validation, user store.UserNID, lang string) error {
	added, err := tx.AddThreepid(store.Threepid{
		Medium: mediumEmail, Address: v.Address, User: user, Lang: lang, Validated: v.Confirmed, Added: a.now().UnixMilli(),
	})
	if err == nil && !added {
		err = matrix.Errorf(http.StatusBadRequest, "M_THREEPID_IN_USE", "The address belongs to an account already: log in to that one, or use another address.")
	}
	return err
}

// foldAddress brings an address that a client names to canonical form. ok is false for what cannot be an account's.
func foldAddress(medium, text string) (folded string, ok bool) {
	if medium != mediumEmail {
		return "", false
	}
	return address.Fold(text)
}

// DeleteThreepid takes an address away from an account, and tells it and the account's other addresses. That the address is
// not the account's is no error: it is what was wanted. If an identity server publishes it, that ends too: unbound is false
// if it could not be brought about, at one that is named or at those that are known.
func (a *Accounts) DeleteThreepid(ctx context.Context, s *Session, medium, text string, at matrix.ServerName, from string) (unbound bool, err error) {
	folded, ok := foldAddress(medium, text)
	if !ok {
		return false, matrix.InvalidParam("There is no such address.")
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockAccount(s.User); err != nil { // which whoever sets a pusher to it does too
			return err
		}
		has, err := tx.Threepid(medium, folded)
		if err != nil || has == nil || has.User != s.User {
			return err
		}
		if err := a.tellOwner(tx, s.User, mail.Removed, folded, from); err != nil { // while it still is one of them
			return err
		}
		a.audit(tx, "address.removed", s.UserID, "")
		_, err = tx.DeleteThreepid(s.User, medium, folded)
		return err
	})
	if err != nil {
		return false, err
	}
	// The address is gone whatever the identity server says.
	unbound, err = a.unbindOne(ctx, s, medium, folded, at)
	return unbound && err == nil, nil
}

// BindThreepid has an identity server publish an address that it has confirmed, and notes where.
func (a *Accounts) BindThreepid(ctx context.Context, s *Session, at matrix.ServerName, token, sid, secret string) error {
	if a.identities == nil {
		return errNoIdentities()
	}
	known, err := a.bindings(ctx, s.User)
	if err != nil {
		return err
	}
	if len(known) >= maxBindings {
		return matrix.Errorf(http.StatusBadRequest, "M_TOO_LARGE", "An account publishes at most %d addresses. End that for one first.", maxBindings)
	}
	medium, bound, err := a.identities.Bind(ctx, at, token, sid, secret, s.UserID)
	if err != nil {
		return err
	}
	closed := false
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(s.User)
		if err != nil {
			return err
		}
		if err := tx.AddBinding(store.Binding{User: s.User, Medium: medium, Address: bound, Server: string(at)}); err != nil {
			return err
		}
		// The account may have been closed while the identity server was asked, which published the address all the same.
		if closed = account == nil || account.Deactivated; !closed {
			return nil
		}
		return tx.AddJob(store.JobUnbind, string(s.UserID), a.now().UnixMilli())
	})
	if err == nil && closed {
		err = matrix.UnknownToken(false)
	}
	return err
}

func errNoIdentities() error {
	return matrix.Errorf(http.StatusForbidden, "M_SERVER_NOT_TRUSTED", "This server asks no identity servers.")
}

// UnbindThreepid has an identity server forget an address of a user: one that is named, or those where it is known to be
// published. It reports false if there is none, or one does not do such a thing.
func (a *Accounts) UnbindThreepid(ctx context.Context, s *Session, medium, text string, at matrix.ServerName) (bool, error) {
	folded, ok := foldAddress(medium, text)
	if !ok && medium != "msisdn" {
		return false, matrix.InvalidParam("There is no such address.")
	}
	if !ok {
		folded = text
	}
	return a.unbindOne(ctx, s, medium, folded, at)
}

func (a *Accounts) unbindOne(ctx context.Context, s *Session, medium, folded string, at matrix.ServerName) (bool, error) {
	list, err := a.bindings(ctx, s.User)
	if err != nil {
		return false, err
	}
	list = slices.DeleteFunc(list, func(b store.Binding) bool {
		return b.Medium != medium || b.Address != folded || at != "" && b.Server != string(at)
	})
	if len(list) == 0 && at != "" {
		list = []store.Binding{{User: s.User, Medium: medium, Address: folded, Server: string(at)}}
	}
	return a.unbind(ctx, s.UserID, list)
}

func (a *Accounts) bindings(ctx context.Context, user store.UserNID) (list []store.Binding, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		list = nil
		return tx.Bindings(user, func(b store.Binding) { list = append(list, b) })
	})
	return list, err
}

// unbind ends bindings and reports whether all ended. The error is the last one's.
func (a *Accounts) unbind(ctx context.Context, user matrix.UserID, list []store.Binding) (all bool, err error) {
	if a.identities == nil || len(list) == 0 {
		return false, nil
	}
	all = true
	for _, b := range list {
		supported, failed := a.identities.Unbind(ctx, matrix.ServerName(b.Server), user, b.Medium, b.Address)
		if failed != nil || !supported {
			all, err = false, failed
			continue
		}
		if failed := a.db.Write(ctx, func(tx *store.Tx) error { return tx.EndBinding(b) }); failed != nil {
			return false, failed
		}
	}
	return all, err
}

// unbindTime bounds how long somebody who closes an account waits for identity servers. What they did not do by then is
// tried again later.
const unbindTime = 10 * time.Second

// UnbindAll has identity servers forget all addresses of a user, and reports whether they did.
func (a *Accounts) UnbindAll(ctx context.Context, s *Session) (bool, error) {
	list, err := a.bindings(ctx, s.User)
	if err != nil || len(list) == 0 {
		return err == nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, unbindTime)
	defer cancel()
	all, err := a.unbind(ctx, s.UserID, list)
	return all && err == nil, nil
}

// dropAddresses takes all addresses away from an account that is closed.
func (a *Accounts) dropAddresses(tx *store.Tx, account *store.Account) error {
	if err := tx.DeleteThreepids(account.User); err != nil {
		return err
	}
	published := false
	if err := tx.Bindings(account.User, func(store.Binding) { published = true }); err != nil || !published {
		return err
	}
	return tx.AddJob(store.JobUnbind, string(account.ID), a.now().UnixMilli())
}

// Times of the job that has identity servers forget the addresses of closed accounts.
const (
	unbindLease = 5 * time.Minute
	unbindSweep = time.Minute
	unbindRetry = time.Hour
	unbindTries = 72 // and then it is given up
)

// RunUnbinds does that until ctx ends, for those where it could not be done when the account was closed.
func (a *Accounts) RunUnbinds(ctx context.Context) error {
	ticker := time.NewTicker(unbindSweep)
	defer ticker.Stop()
	for {
		if err := a.unbindClosed(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("having identity servers forget the addresses of a closed account failed", "err", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// unbindClosed works at one closed account.
func (a *Accounts) unbindClosed(ctx context.Context) error {
	now, due := a.now().UnixMilli(), false
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		due, err = tx.JobDue(store.JobUnbind, now)
		return err
	})
	if err != nil || !due {
		return err
	}
	var job *store.Job
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		job, err = tx.LeaseJob(store.JobUnbind, now, unbindLease.Milliseconds())
		return err
	})
	if err != nil || job == nil {
		return err
	}
	id := matrix.UserID(job.Key)
	user, err := a.db.User(ctx, id)
	if err != nil {
		return err
	}
	list, err := a.bindings(ctx, user.NID)
	if err != nil {
		return err
	}
	work, cancel := context.WithTimeout(ctx, unbindLease/2)
	defer cancel()
	all, _ := a.unbind(work, id, list)   // why not is told by all: it is tried again, or given up
	tries, _ := strconv.Atoi(job.Cursor) // "" at first
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockAccount(user.NID); err != nil { // which whoever publishes one in the last moment does too
			return err
		}
		left := 0
		if err := tx.Bindings(user.NID, func(store.Binding) { left++ }); err != nil {
			return err
		}
		if left == 0 || tries >= unbindTries {
			mine, err := tx.EndJob(*job)
			if err != nil || !mine {
				return err
			}
			return tx.ForgetBindings(user.NID) // what was given up nobody tries again, and it names addresses of somebody who is gone
		}
		due := a.now()
		if !all || len(list) == 0 {
			due = due.Add(unbindRetry)
		}
		job.Cursor = strconv.Itoa(tries + 1)
		_, err := tx.SaveJob(*job, due.UnixMilli(), 0)
		return err
	})
}
