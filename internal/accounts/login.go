package accounts

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"conclave/internal/mail"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// NewDevice says how a new session's device is to be called.
type NewDevice struct {
	ID      matrix.DeviceID // "" for a new one
	Name    string          // initial_device_display_name
	Address string          // the client's
	Renews  bool            // its tokens are to end, and to be renewed (Refresh)
	Client  string          // the OAuth client that it is of, "" for none
	Mark    string          // of the browser (Caller), "" for none
	Enrols  bool            // the client can lead its user through setting up a second factor that is overdue
}

// Login is a new session.
type Login struct {
	UserID   matrix.UserID
	DeviceID matrix.DeviceID
	Token    string

	RefreshToken string        // "" if the access token does not end
	Lasts        time.Duration // how long the access token does, 0 if it does not end
}

// maxName bounds what people call their devices and themselves, in bytes.
const maxName = 255

// open makes a session for an account whose owner has shown something: its device, and tokens that replace earlier ones of
// that device. It returns the part that belongs into a transaction, which fills the login and refuses (admitted) those for
// whom what they have shown is not enough. There is no other way to a session.
func (a *Accounts) open(user store.UserNID, id matrix.UserID, d NewDevice, p Proof) (*Login, func(*store.Tx) error, error) {
	if err := checkDevice(d.ID, d.Name); err != nil {
		return nil, nil, err
	}
	fresh := d.ID == ""
	if fresh {
		d.ID = matrix.DeviceID(newName(10))
	}
	nid, err := a.db.NextNID(store.KindDevice)
	if err != nil {
		return nil, nil, err
	}
	login := &Login{UserID: id, DeviceID: d.ID}
	return login, func(tx *store.Tx) error {
		account, err := tx.LockAccount(user)
		if err == nil {
			err = a.admitted(tx, account, p)
		}
		if err == nil && !fresh {
			err = deviceFree(tx, user, d.ID)
		}
		if err != nil {
			return err
		}
		had, err := tx.Device(user, d.ID)
		if err != nil {
			return err
		}
		now := a.now().UnixMilli()
		device, err := tx.PutDevice(store.Device{
			NID: nid, User: user, ID: d.ID, Name: d.Name, Seen: now, Address: d.Address, Opened: now, Shown: p.words(), Client: d.Client,
		})
		if err == nil && !fresh {
			tx.AfterCommit(func() { a.ended(user) })
			err = tx.ReplaceTokens(device)
		}
		if err != nil {
			return err
		}
		if err := a.notePlaces(tx, user, d, p); err != nil {
			return err
		}
		a.note(tx, Event{Name: EventLogin, User: id, Address: d.Address, Details: map[string]any{"device": d.ID, "shown": p.words(), "client": d.Client}})
		if err := a.tellSignIn(tx, user, d, p, had == nil); err != nil {
			return err
		}
		return a.issue(tx, login, store.Token{User: user, Device: device, Family: nid}, d.Renews)
	}, nil
}

// deviceFree refuses names of devices that mean something else already.
func deviceFree(tx *store.Tx, user store.UserNID, id matrix.DeviceID) error {
	taken, err := tx.IsCrossSigningKey(user, string(id))
	if err != nil {
		return err
	}
	if taken {
		return matrix.InvalidParam("A device cannot be called like a public key.")
	}
	dehydrated, err := tx.Dehydrated(user)
	if err == nil && dehydrated != nil && dehydrated.ID == id {
		err = matrix.InvalidParam("Nobody can be logged in on a dehydrated device.")
	}
	return err
}

// LoginPassword opens a session by password: the account's, or one that was made for a client (NewAppPassword). Name is a
// user ID of ours or a localpart. Whether the name or the password was wrong cannot be told from the answer or its time
// (M_FORBIDDEN). Where a password is not enough the refusal holds a sign-in to go on with (SignInFactor).
func (a *Accounts) LoginPassword(ctx context.Context, name, password string, d NewDevice) (*Login, error) {
	return a.LoginPasswordBy(ctx, Identifier{User: name}, password, d)
}

// LoginPasswordBy is LoginPassword for an account that is named in any of the ways of Identifier.
func (a *Accounts) LoginPasswordBy(ctx context.Context, by Identifier, password string, d NewDevice) (*Login, error) {
	began := time.Now()
	_, find := a.lookup(by)
	var account *store.Account
	err := a.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = find(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	var owner store.UserNID // 0, which has none, where nobody has the name: looking takes as long (threats A08)
	if account != nil && !account.Deactivated {
		owner = account.User
	}
	app, err := a.appPassword(ctx, owner, password)
	if err != nil {
		return nil, err
	}
	if app != nil {
		if err := a.stillThere(ctx, owner); err != nil {
			return nil, err
		}
		return a.login(ctx, account, d, Proof{Shown: []Evidence{ByAppPassword}}, func(tx *store.Tx, l *Login) error {
			return a.openedBy(tx, app.ID, owner, l.DeviceID)
		})
	}
	account, how, err := a.entered(ctx, began, by, password)
	if err != nil {
		return nil, err
	}
	shown := Proof{Shown: []Evidence{how}}
	login, err := a.login(ctx, account, d, shown, func(*store.Tx, *Login) error { return nil })
	var more unproven
	if errors.As(err, &more) {
		return nil, a.askMore(ctx, account, shown, more)
	}
	return login, err
}

// login opens a session of an account that was looked at outside of the transaction. after is done in it at last.
func (a *Accounts) login(ctx context.Context, account *store.Account, d NewDevice, p Proof, after func(*store.Tx, *Login) error) (*Login, error) {
	login, write, err := a.open(account.User, account.ID, d, p)
	if err != nil {
		return nil, err
	}
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		// The account may have got another password, or its end, in the meantime.
		now, err := tx.LockAccount(account.User)
		if err != nil {
			return err
		}
		if now == nil || now.Deactivated || now.Password != account.Password {
			return errWrongPassword()
		}
		if err := write(tx); err != nil {
			return err
		}
		return after(tx, login)
	})
	if err != nil {
		return nil, err
	}
	return login, nil
}

func errWrongPassword() error { return matrix.Forbidden("The name or the password is not right.") }

// Check refuses (M_INVALID_PARAM) what no device can be called.
func (d NewDevice) Check() error { return checkDevice(d.ID, d.Name) }

// checkDevice refuses IDs and names that cannot be a device's. An ID that has the form of a public key could be taken
// for a cross-signing key (threats E08).
func checkDevice(id matrix.DeviceID, name string) error {
	if len(id) > maxName || len(name) > maxName || !plain(string(id)) || !plain(name) {
		return matrix.InvalidParam("A device's ID and name have at most %d bytes, and no control characters.", maxName)
	}
	if key, err := base64.RawStdEncoding.DecodeString(string(id)); err == nil && len(key) == 32 {
		return matrix.InvalidParam("A device's ID must not look like a public key.")
	}
	return nil
}

// plain reports whether a text is one that people can read and every database can keep.
func plain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// localpart is what a name means as the localpart of a user of ours, "" if it can be none's. Upper case is forgiven.
func (a *Accounts) localpart(name string) string {
	if strings.HasPrefix(name, "@") {
		id, err := matrix.ParseUserID(name)
		if err != nil || id.Server() != a.server {
			return ""
		}
		name = id.Localpart()
	}
	if name = strings.ToLower(name); !matrix.ValidLocalpart(name) || len(name) > maxName {
		return ""
	}
	return name
}

// find reads the account of a name: a localpart, or a user ID of ours; nil if there is none.
func (a *Accounts) find(ctx context.Context, name string) (account *store.Account, err error) {
	localpart := a.localpart(name)
	if localpart == "" {
		return nil, nil
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

// LogoutAll ends all sessions of a user, and those that somebody is about to open: what was allowed before is not allowed
// any more.
func (a *Accounts) LogoutAll(ctx context.Context, user store.UserNID) error {
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.DropSignIns(user); err != nil {
			return err
		}
		return a.deleteDevices(tx, user, nil)
	})
}

// ChangePassword sets a new password, from the network address that asks, and, if so asked, ends all app passwords and all
// sessions but one: whoever knew the old password may have made them.
func (a *Accounts) ChangePassword(ctx context.Context, s *Session, password, from string, logoutOthers bool) error {
	phc, err := a.newHash(ctx, password)
	if err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		if err := a.passwordIsHere(tx, s.User); err != nil {
			return err
		}
		set, err := tx.SetPassword(s.User, phc)
		if err == nil && !set {
			err = errDeactivated()
		}
		if err != nil {
			return err
		}
		if err := a.tellOwner(tx, s.User, mail.Password, "", from); err != nil {
			return err
		}
		a.note(tx, Event{Name: EventPassword, User: s.UserID, Details: map[string]any{"others_end": logoutOthers}})
		// Whoever was about to sign in has shown the password of before.
		if err := tx.DropSignIns(s.User); err != nil || !logoutOthers {
			return err
		}
		if err := tx.DropAppPasswords(s.User); err != nil {
			return err
		}
		var others []matrix.DeviceID
		err = tx.Devices(s.User, func(d store.Device) {
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

// ResetPassword sets a new password for whoever has lost the old one, and ends all sessions and app passwords: somebody else
// may have had it. A second factor stays. by is the administrator who does it.
func (a *Accounts) ResetPassword(ctx context.Context, by string, user store.UserNID, password string) error {
	phc, err := a.newHash(ctx, password)
	if err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *store.Tx) error {
		account, err := tx.AccountOf(user)
		if err == nil && account != nil {
			err = a.notTheServers(tx, account)
		}
		if err == nil {
			err = a.passwordIsHere(tx, user)
		}
		if err != nil {
			return err
		}
		set, err := tx.SetPassword(user, phc)
		if err == nil && !set {
			err = matrix.NotFound("The account is deactivated.")
		}
		if err == nil {
			err = a.tellOwner(tx, user, mail.Password, "", "")
		}
		if err == nil {
			err = a.noteOf(tx, user, Event{Name: "password.reset", By: by})
		}
		if err == nil {
			err = tx.DropSignIns(user)
		}
		if err == nil {
			err = tx.DropAppPasswords(user)
		}
		if err == nil {
			err = tx.ForgetPlaces(user)
		}
		if err != nil {
			return err
		}
		return a.deleteDevices(tx, user, nil)
	})
}
