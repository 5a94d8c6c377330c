package accounts

import (
	"context"
	"crypto/sha256"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of guests.
const (
	guestNameLength = 20
	guestSweep      = 10 * time.Minute
	guestsAtOnce    = 100 // accounts that one look closes
)

func errNoGuests() error {
	return matrix.Errorf(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN", "This server has no guest accounts.")
}

// RegisterGuest makes an account of a guest with its only session (M_GUEST_ACCESS_FORBIDDEN where the server has none). block is the
// part of the network from which it is asked for: it gets so many guests an hour as the configuration says.
func (a *Accounts) RegisterGuest(ctx context.Context, deviceName, address, block string) (*Login, error) {
	if !a.config.Registration.Guests {
		return nil, errNoGuests()
	}
	if err := a.mayHaveGuest(ctx, block); err != nil {
		return nil, err
	}
	id := a.userID("guest-" + lower(newName(guestNameLength)))
	user, err := a.db.User(ctx, id)
	if err != nil {
		return nil, err
	}
	proof := Proof{Shown: []Evidence{ByRegistration}}
	login, open, err := a.open(user.NID, id, NewDevice{Name: deviceName, Address: address}, proof)
	if err != nil {
		return nil, err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account := store.Account{User: user.NID, ID: id, Created: a.now().UnixMilli(), Guest: true}
		made, err := tx.CreateAccount(account)
		if err == nil && !made {
			err = errTaken()
		}
		if err == nil {
			err = firstProfile(tx, user.NID, id.Localpart())
		}
		if err != nil {
			return err
		}
		a.note(tx, Event{Name: EventRegistered, User: id, Address: address, Details: map[string]any{"guest": true}})
		return open(tx)
	})
	if err != nil {
		return nil, err
	}
	return login, nil
}

// mayHaveGuest counts a guest of a block of addresses (M_LIMIT_EXCEEDED), before anything is kept of them: what is refused leaves
// nothing.
func (a *Accounts) mayHaveGuest(ctx context.Context, block string) error {
	var wait int64
	err := a.db.Write(ctx, func(tx *store.Tx) (err error) {
		wait, err = a.spendGuest(tx, block, a.now().UnixMilli())
		return err
	})
	if err == nil && wait > 0 {
		err = matrix.LimitExceeded(wait)
	}
	return err
}

// spendGuest counts a guest of a block of addresses, and says how long (ms) to wait if there are too many.
func (a *Accounts) spendGuest(tx *store.Tx, block string, now int64) (wait int64, err error) {
	most := int64(a.config.Registration.GuestsPerHour)
	if !a.config.RateLimits.Enabled || most == 0 {
		return 0, nil
	}
	if err := tx.ForgetBudgets(now); err != nil {
		return 0, err
	}
	key := sha256.Sum256([]byte("guests " + block))
	return tx.Spend(key[:], store.Budget{Every: time.Hour.Milliseconds() / most, Burst: most}, now)
}

// lower is strings.ToLower for names of our own making.
func lower(name string) string {
	out := []byte(name)
	for i, c := range out {
		if c >= 'A' && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return string(out)
}

// errUpgrade is the same whatever is wrong with the token, so that it tells nothing.
func errUpgrade() error {
	return matrix.Forbidden("guest_access_token is not the token of a guest of that name.")
}

// CheckGuest finds the guest who wants an ordinary account, by its token and name (M_FORBIDDEN).
func (a *Accounts) CheckGuest(ctx context.Context, token, username string) (*Session, error) {
	s, err := a.Authenticate(ctx, token, "")
	if err != nil || !s.Guest || username == "" || s.UserID.Localpart() != username {
		return nil, errUpgrade()
	}
	return s, nil
}

// Upgrade makes an ordinary account of a guest's, as a registration says. The guest's session ends, and what it was in stays.
func (a *Accounts) Upgrade(ctx context.Context, guest *Session, q Registration) (*Login, error) {
	if q.Asks {
		return nil, matrix.Forbidden("Administrators approve of each account here. Ask for a new one, with another name.")
	}
	phc, err := a.firstHash(ctx, q)
	if err != nil {
		return nil, err
	}
	login, open := &Login{UserID: guest.UserID}, func(*store.Tx) error { return nil }
	if q.Device != nil {
		if login, open, err = a.open(guest.User, guest.UserID, *q.Device, q.proof()); err != nil {
			return nil, err
		}
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockAccount(guest.User); err != nil {
			return err
		}
		upgraded, err := tx.UpgradeGuest(guest.User, phc)
		if err == nil && !upgraded {
			err = errUpgrade()
		}
		if err == nil {
			err = a.firstAddress(tx, guest.User, q)
		}
		if err == nil {
			err = tx.AcceptTerms(guest.User, q.Terms, a.now().UnixMilli())
		}
		if err == nil {
			err = a.deleteDevices(tx, guest.User, nil)
		}
		if err != nil {
			return err
		}
		a.note(tx, Event{Name: "guest.upgraded", User: guest.UserID, Address: q.Address})
		return open(tx)
	})
	if err != nil {
		return nil, err
	}
	return login, nil
}

// RunGuests closes the accounts of guests that nobody uses any more. It ends with ctx.
func (a *Accounts) RunGuests(ctx context.Context) error {
	sweep := time.NewTicker(guestSweep)
	defer sweep.Stop()
	for {
		if err := a.closeIdleGuests(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("closing the accounts of guests failed", "err", err)
		}
		select {
		case <-sweep.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Accounts) closeIdleGuests(ctx context.Context) error {
	since := a.now().AddDate(0, 0, -a.config.Registration.GuestIdleDays).UnixMilli()
	for {
		var idle []store.UserNID
		err := a.db.Read(ctx, func(tx *store.Tx) error {
			idle = nil
			return tx.IdleGuests(since, guestsAtOnce, func(user store.UserNID) { idle = append(idle, user) })
		})
		if err != nil || len(idle) == 0 {
			return err
		}
		for _, user := range idle {
			if err := a.closeIdle(ctx, user, since); err != nil {
				return err
			}
		}
	}
}

// closeIdle closes the account of a guest who was idle since a time (ms) when somebody looked, unless it was used meanwhile, or
// is no guest's any more.
func (a *Accounts) closeIdle(ctx context.Context, user store.UserNID, since int64) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user)
		if err != nil || account == nil {
			return err
		}
		if idle, err := tx.IsIdleGuest(user, since); err != nil || !idle {
			return err
		}
		return a.close(tx, account, Closing{User: user, By: "idle"})
	})
}
