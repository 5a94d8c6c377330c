package accounts

import (
	"context"
	"net/http"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of requests for accounts: how many may wait, and how much an applicant and an administrator may say.
const (
	maxRequests    = 1000
	maxReason      = 1000
	maxRequestPage = 500
)

// errAwaiting is told to whoever asked for an account and knows its password.
func errAwaiting() *matrix.Error {
	return matrix.Forbidden("Your account waits for the approval of this server's administrator. You can log in once it is given.").
		WithField("im.conclave.awaiting_approval", true)
}

// CheckReason refuses (M_INVALID_PARAM) reasons that are too long or cannot be shown.
func CheckReason(reason string) error {
	if len(reason) > maxReason || !plain(reason) {
		return matrix.InvalidParam("A reason has at most %d bytes, and no control characters.", maxReason)
	}
	return nil
}

// Asked is the cause of the refusal of somebody who has just asked for an account.
type Asked struct{ Waiting int } // how many wait by then

// Error implements error, for logs.
func (a *Asked) Error() string { return "the account has to be approved" }

// ask stores a request for an account and answers that it waits: as long as nobody approves it there is no account, only
// a name that nobody else can have.
func (a *Accounts) ask(ctx context.Context, name, phc string, q Registration) error {
	if err := CheckReason(q.Reason); err != nil {
		return err
	}
	waiting := 0
	err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
		if waiting, err = tx.CountRegistrationRequests(); err != nil {
			return err
		}
		if waiting >= maxRequests {
			return matrix.Errorf(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "More people wait for an account than the administrator has looked at yet. Try again in some days.")
		}
		request := store.RegistrationRequest{
			Localpart: name, Password: phc, Reason: q.Reason, Address: q.Address, Terms: q.Terms, Lang: q.Lang, Created: a.now().UnixMilli(),
		}
		v, err := a.provenAddress(tx, q)
		if err != nil {
			return err
		}
		if v != nil {
			request.Email = v.Address
		}
		added, err := tx.AddRegistrationRequest(request)
		if err == nil && !added {
			err = errTaken()
		}
		if err == nil {
			a.note(tx, Event{Name: "registration.requested", User: a.userID(name), Address: q.Address})
		}
		return err
	})
	if err != nil {
		return err
	}
	return errAwaiting().With(&Asked{waiting + 1})
}

func (a *Accounts) userID(localpart string) matrix.UserID {
	return matrix.UserID("@" + localpart + ":" + string(a.server))
}

// Requests reads a page of the requests that wait, the oldest first, behind one (nil for the first page), and counts them
// all.
func (a *Accounts) Requests(ctx context.Context, after *store.RegistrationRequest, limit int) (list []store.RegistrationRequest, total int, err error) {
	if after == nil {
		after = &store.RegistrationRequest{}
	}
	limit = min(max(limit, 1), maxRequestPage)
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		list = nil
		if total, err = tx.CountRegistrationRequests(); err != nil {
			return err
		}
		return tx.RegistrationRequests(after.Created, after.Localpart, limit, func(q store.RegistrationRequest) { list = append(list, q) })
	})
	return list, total, err
}

// Approve makes the account that somebody asked for, for an administrator (M_NOT_FOUND).
func (a *Accounts) Approve(ctx context.Context, by *Session, localpart string) (matrix.UserID, error) {
	id := a.userID(localpart)
	if !matrix.ValidLocalpart(localpart) || len(id) > 255 {
		return "", errNoRequest()
	}
	user, err := a.db.User(ctx, id)
	if err != nil {
		return "", err
	}
	return id, a.db.Write(ctx, func(tx *store.Tx) error {
		q, err := takeRequest(tx, localpart)
		if err != nil {
			return err
		}
		account := store.Account{User: user.NID, ID: id, Password: q.Password, Created: a.now().UnixMilli()}
		a.note(tx, Event{Name: "registration.approved", User: id, By: string(by.UserID)})
		made := Registration{Address: q.Address, Terms: q.Terms, Lang: q.Lang}
		if q.Email != "" {
			made.Approved = &store.Validation{Address: q.Email, Confirmed: q.Created}
		}
		return a.create(tx, account, made)
	})
}

// Deny ends a request for an account, for an administrator (M_NOT_FOUND). The name is free again.
func (a *Accounts) Deny(ctx context.Context, by *Session, localpart, reason string) error {
	if err := CheckReason(reason); err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := takeRequest(tx, localpart); err != nil {
			return err
		}
		a.note(tx, Event{Name: "registration.denied", User: a.userID(localpart), By: string(by.UserID), Details: map[string]any{"reason": reason}})
		return nil
	})
}

func takeRequest(tx *store.Tx, localpart string) (*store.RegistrationRequest, error) {
	q, err := tx.TakeRegistrationRequest(localpart)
	if err == nil && q == nil {
		err = errNoRequest()
	}
	return q, err
}

func errNoRequest() error { return matrix.NotFound("Nobody asks for an account of that name.") }
