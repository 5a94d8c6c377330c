package accounts

import (
	"context"
	"errors"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Acting makes the session of an application service that acts as a user of ours, on one of the user's devices or, with
// device "", on none. That the service may is for the caller to know. It refuses users that do not exist (M_FORBIDDEN) or
// are deactivated (M_USER_DEACTIVATED), and unknown devices (M_UNKNOWN_DEVICE).
func (a *Accounts) Acting(ctx context.Context, service string, user matrix.UserID, device matrix.DeviceID) (*Session, error) {
	account, err := a.find(ctx, string(user))
	switch {
	case err != nil:
		return nil, err
	case account == nil || account.ID != user:
		return nil, matrix.Forbidden("The application service has not registered %s.", user)
	case account.Deactivated:
		return nil, errDeactivated()
	}
	s := &Session{User: account.User, UserID: account.ID, Admin: account.Admin, Locked: account.Locked, Suspended: account.Suspended, Since: time.UnixMilli(account.Created), Service: service}
	// Numbers of devices are positive: this is a place for what is kept by device, such as transactions, that is the
	// user's alone.
	s.Device = -int64(account.User)
	if device == "" {
		return s, nil
	}
	var found *store.Device
	if len(device) <= maxName && plain(string(device)) {
		err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
			found, err = tx.Device(account.User, device)
			return err
		})
	}
	if err == nil && found == nil {
		err = matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN_DEVICE", "%s has no device %.64q.", user, device)
	}
	if err != nil {
		return nil, err
	}
	s.Device, s.DeviceID = found.NID, found.ID
	return s, nil
}

func errDeactivated() error {
	return matrix.Errorf(http.StatusForbidden, "M_USER_DEACTIVATED", "The account is closed for good. Ask the administrator of this server for another one.")
}

// actingAgain is Again for an application service: as long as there are the user and the device.
func (a *Accounts) actingAgain(ctx context.Context, s *Session) (*Session, error) {
	now, err := unlocked(a.Acting(ctx, s.Service, s.UserID, s.DeviceID))
	var known *matrix.Error
	if err != nil && !errors.As(err, &known) {
		return s, nil
	}
	return now, err
}

// LoginActing opens a session for an application service as a user of ours that it may act as.
func (a *Accounts) LoginActing(ctx context.Context, user matrix.UserID, d NewDevice) (*Login, error) {
	account, err := a.find(ctx, string(user))
	if err != nil {
		return nil, err
	}
	if account == nil {
		return nil, matrix.Forbidden("The application service has not registered %s.", user)
	}
	login, write, err := a.open(account.User, account.ID, d, Proof{Shown: []Evidence{ByService}})
	if err == nil {
		err = a.db.Write(ctx, write)
	}
	if err != nil {
		return nil, err
	}
	return login, nil
}

// Provide makes the account of an application service's own user, if there is none. Nobody can log in to it.
func (a *Accounts) Provide(ctx context.Context, user matrix.UserID) error {
	account, err := a.find(ctx, string(user))
	if err != nil || account != nil {
		return err
	}
	_, err = a.Register(ctx, Registration{Username: user.Localpart(), NoLogin: true})
	var taken *matrix.Error
	if errors.As(err, &taken) && taken.Code == "M_USER_IN_USE" { // another node was faster
		return nil
	}
	return err
}

// PutDevice makes a device without a token for a user that an application service acts as, or renames it; made says which.
func (a *Accounts) PutDevice(ctx context.Context, user store.UserNID, id matrix.DeviceID, name, address string) (made bool, err error) {
	if err := checkDevice(id, name); err != nil {
		return false, err
	}
	if id == "" {
		return false, matrix.InvalidParam("A device has an ID.")
	}
	nid, err := a.db.NextNID(store.KindDevice)
	if err != nil {
		return false, err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user)
		if err == nil && (account == nil || account.Deactivated) { // as Acting has it
			err = errDeactivated()
		}
		if err != nil {
			return err
		}
		had, err := tx.Device(user, id)
		if err != nil {
			return err
		}
		made = had == nil
		if !made {
			if name == "" {
				return nil
			}
			if _, err := tx.RenameDevice(user, id, name); err != nil {
				return err
			}
			tx.AfterCommit(a.wake)
			return tx.DeviceListChanged(user)
		}
		taken, err := tx.IsCrossSigningKey(user, string(id))
		if err == nil && taken {
			err = matrix.InvalidParam("A device cannot be called like a public key.")
		}
		if err != nil {
			return err
		}
		_, err = tx.PutDevice(store.Device{NID: nid, User: user, ID: id, Name: name, Seen: a.now().UnixMilli(), Address: address})
		return err
	})
	return made, err
}
