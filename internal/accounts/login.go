package accounts

import (
	"context"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// NewDevice says how a new session's device is to be called.
type NewDevice struct {
	ID      matrix.DeviceID // "" for a new one
	Name    string          // initial_device_display_name
	Address string          // the client's
}

// Login is a new session.
type Login struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	Token    string
}

// maxName bounds what people call their devices and themselves, in bytes.
const maxName = 255

// open makes a session for an account: its device, and a token that replaces earlier ones of that device. It returns
// the part that belongs into a transaction.
func (a *Accounts) open(user store.UserNID, id matrix.UserID, d NewDevice) (*Login, func(*store.Tx) error, error) {
	if len(d.ID) > 255 || len(d.Name) > maxName {
		return nil, nil, matrix.InvalidParam("A device's ID and name have at most 255 bytes.")
	}
	fresh := d.ID == ""
	if fresh {
		d.ID = matrix.DeviceID(newName(10))
	}
	nid, err := a.db.NextNID(store.KindDevice)
	if err != nil {
		return nil, nil, err
	}
	token, hash := newToken()
	now := a.now().UnixMilli()
	write := func(tx *store.Tx) error {
		device, err := tx.PutDevice(store.Device{NID: nid, User: user, ID: d.ID, Name: d.Name, Seen: now, Address: d.Address})
		if err != nil {
			return err
		}
		if !fresh {
			if err := tx.ReplaceTokens(device); err != nil {
				return err
			}
			tx.AfterCommit(func() { a.ended(user) })
		}
		return tx.AddToken(hash[:], device, user, now)
	}
	return &Login{UserID: id, DeviceID: d.ID, Token: token}, write, nil
}

// LoginPassword opens a session by password. Name is a user ID of ours or a localpart. Whether the name or the
// password was wrong cannot be told from the answer or its time (M_FORBIDDEN).
func (a *Accounts) LoginPassword(ctx context.Context, name, password string, d NewDevice) (*Login, error) {
	account, err := a.checkPasswordOf(ctx, name, password)
	if err != nil {
		return nil, err
	}
	login, write, err := a.open(account.User, account.ID, d)
	if err != nil {
		return nil, err
	}
	return login, a.db.Write(ctx, write)
}

// checkPasswordOf finds the account that a name and password belong to.
func (a *Accounts) checkPasswordOf(ctx context.Context, name, password string) (*store.Account, error) {
	account, err := a.find(ctx, name)
	if err != nil {
		return nil, err
	}
	phc := ""
	if account != nil && !account.Deactivated && len(password) <= maxPassword {
		phc = account.Password
	}
	ok, err := a.verify(ctx, password, phc)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, matrix.Forbidden("The name or the password is not right.")
	}
	return account, nil
}

// find reads the account of a name: a localpart, or a user ID of ours. Upper case is forgiven.
func (a *Accounts) find(ctx context.Context, name string) (account *store.Account, err error) {
	localpart := strings.ToLower(name)
	if strings.HasPrefix(name, "@") {
		id, err := matrix.ParseUserID(name)
		if err != nil || id.Server() != a.server {
			return nil, nil
		}
		localpart = strings.ToLower(id.Localpart())
	}
	err = a.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.Account(localpart)
		return err
	})
	return account, err
}

// Logout ends a session and its device.
func (a *Accounts) Logout(ctx context.Context, s *Session) error {
	return a.DeleteDevices(ctx, s.User, []matrix.DeviceID{s.DeviceID})
}

// LogoutAll ends all sessions of a user.
func (a *Accounts) LogoutAll(ctx context.Context, user store.UserNID) error {
	return a.DeleteDevices(ctx, user, nil)
}

// ChangePassword sets a new password and, if so asked, ends all sessions but one.
func (a *Accounts) ChangePassword(ctx context.Context, s *Session, password string, logoutOthers bool) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	phc, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.SetPassword(s.User, phc); err != nil || !logoutOthers {
			return err
		}
		var others []matrix.DeviceID
		err := tx.Devices(s.User, func(d store.Device) {
			if d.NID != s.Device {
				others = append(others, d.ID)
			}
		})
		if err != nil || len(others) == 0 {
			return err
		}
		return a.deleteDevices(tx, s.User, others)
	})
}
