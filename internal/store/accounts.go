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

	SecondFactor int64 // ms since when it has a second factor, 0: it has none
}

const selectAccounts = `SELECT a.member, u.user_id, a.password, a.admin, a.deactivated, a.locked, a.suspended, a.created, a.second_factor FROM accounts a JOIN users u ON u.nid = a.member `

func (tx *Tx) accounts(sql string, each func(Account), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(Account{UserNID(r.Int64(0)), matrix.UserID(r.Text(1)), r.Text(2), r.Bool(3), r.Bool(4), r.Bool(5), r.Bool(6), r.Int64(7), r.Int64(8)})
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

// Accounts reads accounts in the order of their names, after one and at most limit of them.
func (tx *Tx) Accounts(after string, limit int, each func(Account)) error {
	return tx.accounts(selectAccounts+`WHERE a.localpart > $1 ORDER BY a.localpart LIMIT $2`, each, after, limit)
}

// CreateAccount makes an account; it reports false if the name is taken.
func (tx *Tx) CreateAccount(a Account) (bool, error) {
	n, err := tx.Exec(`INSERT INTO accounts (member, localpart, password, admin, created) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		a.User, a.ID.Localpart(), a.Password, a.Admin, a.Created)
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

// Deactivate closes an account for good: no password, no second factors, no rights, no key backups, and nothing of its
// presence, which may have a status message. Its devices are for the caller to delete.
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
	_, err := tx.Exec(`DELETE FROM presence WHERE member = $1`, user)
	return err
}

// Device is a session of an account as its owner sees it.
type Device struct {
	NID     int64
	User    UserNID
	ID      matrix.DeviceID
	Name    string
	Seen    int64 // ms
	Address string
}

const selectDevices = `SELECT d.nid, d.member, d.device_id, d.name, d.seen, d.address FROM devices d `

func (tx *Tx) devices(sql string, each func(Device), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(Device{r.Int64(0), UserNID(r.Int64(1)), matrix.DeviceID(r.Text(2)), r.Text(3), r.Int64(4), r.Text(5)})
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

// PutDevice makes a device, or keeps the one of that ID with its number. An empty name changes nothing.
func (tx *Tx) PutDevice(d Device) (nid int64, err error) {
	if _, err := tx.Exec(`INSERT INTO devices (nid, member, device_id, name, seen, address) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (member, device_id) DO UPDATE SET seen = excluded.seen, address = excluded.address`,
		d.NID, d.User, string(d.ID), d.Name, d.Seen, d.Address); err != nil {
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

// TouchDevice notes when and from where a device was last heard of.
func (tx *Tx) TouchDevice(nid int64, seen int64, address string) error {
	_, err := tx.Exec(`UPDATE devices SET seen = $2, address = $3 WHERE nid = $1`, nid, seen, address)
	return err
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
	"access_tokens", "device_keys", "one_time_keys", "claimed_keys", "fallback_keys", "to_device", "dehydrated_devices", "pushers",
	"sliding_connections",
}

// AddToken stores the hash of a new access token.
func (tx *Tx) AddToken(hash []byte, device int64, user UserNID, created int64) error {
	_, err := tx.Exec(`INSERT INTO access_tokens (hash, device, member, created) VALUES ($1, $2, $3, $4)`, hash, device, user, created)
	return err
}

// ReplaceTokens ends the earlier tokens of a device.
func (tx *Tx) ReplaceTokens(device int64) error {
	_, err := tx.Exec(`DELETE FROM access_tokens WHERE device = $1`, device)
	return err
}

// TokenOwner is whom an access token speaks for.
type TokenOwner struct {
	Account
	Device Device
}

// TokenOwner finds the owner of a token by the token's hash, nil if there is none.
func (tx *Tx) TokenOwner(hash []byte) (found *TokenOwner, err error) {
	err = tx.Query(`SELECT a.member, u.user_id, a.admin, a.deactivated, d.nid, d.device_id, d.seen, d.name, a.created, a.locked, a.suspended, a.second_factor
		FROM access_tokens t JOIN accounts a ON a.member = t.member JOIN users u ON u.nid = a.member JOIN devices d ON d.nid = t.device
		WHERE t.hash = $1`, func(r *Row) error {
		user := UserNID(r.Int64(0))
		found = &TokenOwner{
			Account: Account{
				User: user, ID: matrix.UserID(r.Text(1)), Admin: r.Bool(2), Deactivated: r.Bool(3), Created: r.Int64(8),
				Locked: r.Bool(9), Suspended: r.Bool(10), SecondFactor: r.Int64(11),
			},
			Device: Device{NID: r.Int64(4), User: user, ID: matrix.DeviceID(r.Text(5)), Seen: r.Int64(6), Name: r.Text(7)},
		}
		return nil
	}, hash)
	return found, err
}

// UIASession is a session of user-interactive authentication.
type UIASession struct {
	ID        string
	User      UserNID // 0 where nobody is logged in yet
	Operation string
	Body      []byte // SHA-256 of the request's body
	Completed []string
	Expires   int64 // ms
}

// UIASession finds a session, nil if there is none.
func (tx *Tx) UIASession(id string) (found *UIASession, err error) {
	err = tx.Query(`SELECT id, member, operation, body, completed, expires FROM uia_sessions WHERE id = $1`, func(r *Row) error {
		found = &UIASession{r.Text(0), UserNID(r.Int64(1)), r.Text(2), append([]byte(nil), r.Bytes(3)...), strings.Fields(r.Text(4)), r.Int64(5)}
		return nil
	}, id)
	return found, err
}

// PutUIASession stores a session and drops those that ended before now (ms).
func (tx *Tx) PutUIASession(s UIASession, now int64) error {
	if _, err := tx.Exec(`DELETE FROM uia_sessions WHERE expires < $1`, now); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO uia_sessions (id, member, operation, body, completed, expires) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (id) DO UPDATE SET completed = excluded.completed`, s.ID, s.User, s.Operation, s.Body, strings.Join(s.Completed, " "), s.Expires)
	return err
}

// TakeUIASession ends a session; it reports false if somebody else did so first.
func (tx *Tx) TakeUIASession(id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM uia_sessions WHERE id = $1`, id)
	return n == 1, err
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
