package accounts

import (
	"context"
	"crypto/sha256"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

const (
	maxAppPasswords   = 50 // of an account
	appPasswordGroups = 5
	appPasswordGroup  = 5 // letters, of five bits each
)

// AppPasswords reads a user's app passwords: what each is for and when it was used, never the password.
func (a *Accounts) AppPasswords(ctx context.Context, user store.UserNID) (list []store.AppPassword, err error) {
	err = a.db.Read(ctx, func(tx *store.Tx) error {
		list = nil
		return tx.AppPasswords(user, func(p store.AppPassword) { list = append(list, p) })
	})
	return list, err
}

// NewAppPassword makes a password for one client that knows of no second factor. It is shown this once. That the session's
// owner has confirmed it is for the caller to see to.
func (a *Accounts) NewAppPassword(ctx context.Context, s *Session, name string) (id, password string, err error) {
	if name == "" || len(name) > maxName || !plain(name) {
		return "", "", matrix.InvalidParam("An app password has a name: what it is for, in at most %d bytes.", maxName)
	}
	groups := make([]string, appPasswordGroups)
	for i := range groups {
		groups[i] = newName(appPasswordGroup)
	}
	id, password = strings.ToLower(newName(12)), strings.Join(groups, "-")
	hash := sha256.Sum256([]byte(password))
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		n := 0
		if err := tx.AppPasswords(s.User, func(store.AppPassword) { n++ }); err != nil {
			return err
		}
		if n >= maxAppPasswords {
			return matrix.Forbidden("You have %d app passwords. Remove some that you do not use.", n)
		}
		a.audit(tx, "app_password.made", account.ID, "")
		return tx.AddAppPassword(store.AppPassword{ID: id, User: s.User, Name: name, Created: a.now().UnixMilli()}, hash[:])
	})
	return id, password, err
}

// RemoveAppPassword removes an app password, and ends the session that it has opened (M_NOT_FOUND).
func (a *Accounts) RemoveAppPassword(ctx context.Context, s *Session, id string) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := a.ownAccount(tx, s)
		if err != nil {
			return err
		}
		p, err := tx.TakeAppPassword(s.User, id)
		if err == nil && p == nil {
			err = matrix.NotFound("You have no such app password.")
		}
		if err != nil {
			return err
		}
		a.audit(tx, "app_password.removed", account.ID, "")
		return a.endDevice(tx, s.User, p.Device)
	})
}

// endDevice ends a device by its number, if it is there.
func (a *Accounts) endDevice(tx *store.Tx, user store.UserNID, nid int64) error {
	device, err := tx.DeviceByNID(nid)
	if err != nil || device == nil {
		return err
	}
	return a.deleteDevices(tx, user, []matrix.DeviceID{device.ID})
}

// appPassword finds the app password that somebody shows, nil if it is none.
func (a *Accounts) appPassword(ctx context.Context, user store.UserNID, password string) (found *store.AppPassword, err error) {
	if len(password) != appPasswordGroups*(appPasswordGroup+1)-1 {
		return nil, nil
	}
	hash := sha256.Sum256([]byte(strings.ToUpper(password)))
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.AppPassword(user, hash[:])
		return err
	})
	return found, err
}

// openedBy notes in the transaction of a login that an app password has opened it. The session that it had opened before
// ends: it is for one.
func (a *Accounts) openedBy(tx *store.Tx, id string, user store.UserNID, deviceID matrix.DeviceID) error {
	var p *store.AppPassword
	if err := tx.AppPasswords(user, func(q store.AppPassword) {
		if q.ID == id {
			p = &q
		}
	}); err != nil {
		return err
	}
	if p == nil { // it was removed in this moment
		return errWrongPassword()
	}
	device, err := tx.Device(user, deviceID)
	if err != nil {
		return err
	}
	if p.Device != 0 && p.Device != device.NID {
		if err := a.endDevice(tx, user, p.Device); err != nil {
			return err
		}
	}
	return tx.UseAppPassword(id, a.now().UnixMilli(), device.NID)
}
