package store

import (
	"strings"

	"conclave/internal/matrix"
)

// Account is a user of ours.
type Account struct {
	User        UserNID
	ID          matrix.UserID
	Password    string // argon2id in PHC form, "" if it cannot log in by password
	Admin       bool
	Deactivated bool
	Locked      bool  // can do nothing but log out
	Suspended   bool  // can read and leave, and little else
	Created     int64 // ms
	Guest       bool  // anybody could make it, and it can do little

	SecondFactor int64 // ms since when there is a second factor, 0 if there is none
	FactorDue    int64 // ms by when the server's rule wants one, 0 if it has not been asked for yet
}

const selectAccounts = `SELECT a.member, u.user_id, a.password, a.admin, a.deactivated, a.locked, a.suspended, a.created, a.second_factor, a.factor_due, a.guest FROM accounts a JOIN users u ON u.nid = a.member `

func (tx *Tx) accounts(sql string, each func(Account), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(Account{
			UserNID(r.Int64(0)), matrix.UserID(r.Text(1)), r.Text(2), r.Bool(3), r.Bool(4), r.Bool(5), r.Bool(6), r.Int64(7),
			r.Bool(10), r.Int64(8), r.Int64(9),
		})
		return nil
	}, args...)
}

// Account finds an account by its localpart, nil if there is none.
func (tx *Tx) Account(localpart string) (found *Account, err error) {
	err = tx.accounts(selectAccounts+`WHERE a.localpart = $1`, func(a Account) { found = &a }, localpart)
	return found, err
}

// AccountOf finds the account of a user, nil if it is none of ours.
func (tx *Tx) AccountOf(user UserNID) (found *Account, err error) {
	err = tx.accounts(selectAccounts+`WHERE a.member = $1`, func(a Account) { found = &a }, user)
	return found, err
}

// LockAccount is AccountOf, with the account as it stays until the end of the transaction.
func (tx *Tx) LockAccount(user UserNID) (found *Account, err error) {
	err = tx.accounts(selectAccounts+`WHERE a.member = $1 {lock}`, func(a Account) { found = &a }, user)
	return found, err
}

// StillOpen refuses (M_UNKNOWN_TOKEN) what is stored of a user whose account was closed since the request was let in: whoever
// erases what the user has left may be done with it. The account stays open until the end of the transaction.
func (tx *Tx) StillOpen(user UserNID) error {
	account, err := tx.LockAccount(user)
	if err == nil && account != nil && account.Deactivated {
		err = matrix.UnknownToken(false)
	}
	return err
}

// Accounts reads accounts in the order of their names, after one and at most limit of them.
func (tx *Tx) Accounts(after string, limit int, each func(Account)) error {
	return tx.accounts(selectAccounts+`WHERE a.localpart > $1 ORDER BY a.localpart LIMIT $2`, each, after, limit)
}

// CreateAccount makes an account; it reports false if the name is taken.
func (tx *Tx) CreateAccount(a Account) (bool, error) {
	n, err := tx.Exec(`INSERT INTO accounts (member, localpart, password, admin, created, guest) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		a.User, a.ID.Localpart(), a.Password, a.Admin, a.Created, a.Guest)
	return n == 1, err
}

// SetPassword replaces an account's password hash; it reports false for one that is deactivated.
func (tx *Tx) SetPassword(user UserNID, hash string) (bool, error) {
	n, err := tx.Exec(`UPDATE accounts SET password = $2 WHERE member = $1 AND NOT deactivated`, user, hash)
	return n == 1, err
}

// SetAdmin gives or takes an administrator's rights.
func (tx *Tx) SetAdmin(user UserNID, admin bool) error {
	_, err := tx.Exec(`UPDATE accounts SET admin = $2 WHERE member = $1`, user, admin)
	return err
}

// SetLocked locks an account or lifts the lock.
func (tx *Tx) SetLocked(user UserNID, locked bool) error {
	_, err := tx.Exec(`UPDATE accounts SET locked = $2 WHERE member = $1`, user, locked)
	return err
}

// SetSuspended suspends an account or ends that.
func (tx *Tx) SetSuspended(user UserNID, suspended bool) error {
	_, err := tx.Exec(`UPDATE accounts SET suspended = $2 WHERE member = $1`, user, suspended)
	return err
}

// Deactivate closes an account for good: no password, no second factors, no rights, no key backups, nothing that was about
// to sign in, and nothing of its presence, which may have a status message. Its devices are for the caller to delete.
func (tx *Tx) Deactivate(user UserNID) error {
	if _, err := tx.Exec(`UPDATE accounts SET deactivated = TRUE, admin = FALSE, password = '' WHERE member = $1`, user); err != nil {
		return err
	}
	if err := tx.DeleteFactors(user); err != nil {
		return err
	}
	if err := tx.DeleteBackups(user); err != nil {
		return err
	}
	if err := tx.DropSignIns(user); err != nil {
		return err
	}
	if err := tx.DropAppPasswords(user); err != nil {
		return err
	}
	if err := tx.ForgetPlaces(user); err != nil {
		return err
	}
	if err := tx.ForgetSeenPlaces(user); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM presence WHERE member = $1`, user)
	return err
}

// HasOwner says whether a person can act as a user: there is a session, or the organization's provider lets somebody in.
func (tx *Tx) HasOwner(user UserNID) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM devices WHERE member = $1) OR EXISTS (SELECT 1 FROM external_ids WHERE member = $1)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, user)
	return yes, err
}

// Device is a session of an account as its owner sees it.
type Device struct {
	NID     int64
	User    UserNID
	ID      matrix.DeviceID
	Name    string
	Seen    int64 // ms
	Address string

	Opened int64    // ms, when somebody last logged in on it; 0 if that is not known
	Shown  []string // what was shown then of being the owner
	Client string   // the OAuth client that the session is of, "" if it is of none
}

const selectDevices = `SELECT d.nid, d.member, d.device_id, d.name, d.seen, d.address, d.opened, d.shown, d.client FROM devices d `

func (tx *Tx) devices(sql string, each func(Device), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(Device{
			r.Int64(0), UserNID(r.Int64(1)), matrix.DeviceID(r.Text(2)), r.Text(3), r.Int64(4), r.Text(5),
			r.Int64(6), strings.Fields(r.Text(7)), r.Text(8),
		})
		return nil
	}, args...)
}

// Devices reads a user's devices.
func (tx *Tx) Devices(user UserNID, each func(Device)) error {
	return tx.devices(selectDevices+`WHERE d.member = $1 ORDER BY d.nid`, each, user)
}

// Device finds a device of a user by its ID, nil if there is none.
func (tx *Tx) Device(user UserNID, id matrix.DeviceID) (found *Device, err error) {
	err = tx.devices(selectDevices+`WHERE d.member = $1 AND d.device_id = $2`, func(d Device) { found = &d }, user, string(id))
	return found, err
}

// DeviceByNID finds a device by its number, nil if there is none.
func (tx *Tx) DeviceByNID(nid int64) (found *Device, err error) {
	err = tx.devices(selectDevices+`WHERE d.nid = $1`, func(d Device) { found = &d }, nid)
	return found, err
}

// PutDevice makes a device, or keeps the one of that ID with its number and name.
func (tx *Tx) PutDevice(d Device) (nid int64, err error) {
	if _, err := tx.Exec(`INSERT INTO devices (nid, member, device_id, name, seen, address, opened, shown, client) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (member, device_id) DO UPDATE SET seen = excluded.seen, address = excluded.address,
			opened = excluded.opened, shown = excluded.shown, client = excluded.client`,
		d.NID, d.User, string(d.ID), d.Name, d.Seen, d.Address, d.Opened, strings.Join(d.Shown, " "), d.Client); err != nil {
		return 0, err
	}
	had, err := tx.Device(d.User, d.ID)
	if err != nil || had == nil {
		return 0, err
	}
	return had.NID, nil
}

// RenameDevice changes what a device is called; it reports false if the user has no such device.
func (tx *Tx) RenameDevice(user UserNID, id matrix.DeviceID, name string) (bool, error) {
	n, err := tx.Exec(`UPDATE devices SET name = $3 WHERE member = $1 AND device_id = $2`, user, string(id), name)
	return n == 1, err
}

// TouchDevice notes when and from where a device was last heard of, and with that its user.
func (tx *Tx) TouchDevice(nid int64, seen int64, address string) error {
	if _, err := tx.Exec(`UPDATE devices SET seen = $2, address = $3 WHERE nid = $1`, nid, seen, address); err != nil {
		return err
	}
	return tx.userSeen(nid)
}

// DeleteDevices removes devices of a user with their tokens, keys and messages: those named, or all if ids is nil. For
// devices that had keys it is a change of the user's device list.
func (tx *Tx) DeleteDevices(user UserNID, ids []matrix.DeviceID) error {
	if err := tx.devicesGone(user, ids); err != nil {
		return err
	}
	which, args := `SELECT nid FROM devices WHERE member = $1`, []any{user}
	if ids != nil {
		which, args = which+` AND device_id IN ({texts $2})`, append(args, texts(ids))
	}
	for _, table := range deviceTables {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE device IN (`+which+`)`, args...); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM devices WHERE nid IN (`+which+`)`, args...)
	return err
}

// deviceTables are the tables whose rows end with the device that they belong to.
var deviceTables = []string{
	"access_tokens", "refresh_tokens", "device_keys", "one_time_keys", "claimed_keys", "fallback_keys", "to_device", "dehydrated_devices", "pushers",
	"sliding_connections",
}

// Profile reads a user's profile as a JSON object, "" if it has none.
func (tx *Tx) Profile(user UserNID) (fields string, err error) {
	err = tx.Query(`SELECT fields FROM profiles WHERE member = $1`, func(r *Row) error {
		fields = r.Text(0)
		return nil
	}, user)
	return fields, err
}

// SetProfile replaces a user's profile, a JSON object.
func (tx *Tx) SetProfile(user UserNID, fields string) error {
	_, err := tx.Exec(`INSERT INTO profiles (member, fields) VALUES ($1, $2) ON CONFLICT (member) DO UPDATE SET fields = excluded.fields`, user, fields)
	return err
}
