package store

import "strings"

// The states of a device authorization grant.
const (
	GrantPending  = "pending"
	GrantApproved = "approved"
	GrantDenied   = "denied"
)

// OAuthDeviceGrant is a device that waits until somebody has typed its user code elsewhere.
type OAuthDeviceGrant struct {
	Hash     []byte // of the device code
	UserCode string
	Client   string // "" for this server's own
	Wanted   string // the device's ID, "" for a new one
	State    string
	User     UserNID // who approved
	Shown    []string
	Pause    int64 // ms between two questions
	Polled   int64 // ms of the last one
	Expires  int64 // ms
	Name     string
	Address  string // from where the device asks
}

const selectDeviceGrants = `SELECT hash, user_code, client, wanted, state, member, shown, pause, polled, expires, name, address FROM oauth_device_grants `

func (tx *Tx) oauthDeviceGrant(sql string, args ...any) (found *OAuthDeviceGrant, err error) {
	err = tx.Query(sql, func(r *Row) error {
		found = &OAuthDeviceGrant{
			append([]byte(nil), r.Bytes(0)...), r.Text(1), r.Text(2), r.Text(3), r.Text(4), UserNID(r.Int64(5)), strings.Fields(r.Text(6)),
			r.Int64(7), r.Int64(8), r.Int64(9), r.Text(10), r.Text(11),
		}
		return nil
	}, args...)
	return found, err
}

// AddOAuthDeviceGrant keeps a grant, and forgets some that expired before forget (ms). It reports false if the user code is
// taken.
func (tx *Tx) AddOAuthDeviceGrant(g OAuthDeviceGrant, forget int64) (bool, error) {
	_, err := tx.Exec(`DELETE FROM oauth_device_grants WHERE hash IN
		(SELECT hash FROM oauth_device_grants WHERE expires < $1 ORDER BY expires LIMIT $2)`, forget, expiredAtOnce)
	if err != nil {
		return false, err
	}
	n, err := tx.Exec(`INSERT INTO oauth_device_grants (hash, user_code, client, wanted, state, pause, expires, name, address)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		g.Hash, g.UserCode, g.Client, g.Wanted, g.State, g.Pause, g.Expires, g.Name, g.Address)
	return n == 1, err
}

// OAuthDeviceGrant finds a grant by the hash of its device code, nil if there is none.
func (tx *Tx) OAuthDeviceGrant(hash []byte) (*OAuthDeviceGrant, error) {
	return tx.oauthDeviceGrant(selectDeviceGrants+`WHERE hash = $1`, hash)
}

// OAuthDeviceGrantByCode finds a grant by its user code, nil if there is none.
func (tx *Tx) OAuthDeviceGrantByCode(code string) (*OAuthDeviceGrant, error) {
	return tx.oauthDeviceGrant(selectDeviceGrants+`WHERE user_code = $1`, code)
}

// DecideOAuthDeviceGrant notes what somebody has decided about a grant that waits; it reports false if none does.
func (tx *Tx) DecideOAuthDeviceGrant(g OAuthDeviceGrant) (bool, error) {
	n, err := tx.Exec(`UPDATE oauth_device_grants SET state = $2, member = $3, shown = $4 WHERE hash = $1 AND state = 'pending'`,
		g.Hash, g.State, g.User, strings.Join(g.Shown, " "))
	return n == 1, err
}

// OAuthDeviceGrantPolled notes that a device has asked (at now, ms), and how long it is to wait before it asks again.
func (tx *Tx) OAuthDeviceGrantPolled(hash []byte, now, pause int64) error {
	_, err := tx.Exec(`UPDATE oauth_device_grants SET polled = $2, pause = $3 WHERE hash = $1`, hash, now, pause)
	return err
}

// TakeOAuthDeviceGrant ends a grant; it reports false if somebody else did so first.
func (tx *Tx) TakeOAuthDeviceGrant(hash []byte) (bool, error) {
	n, err := tx.Exec(`DELETE FROM oauth_device_grants WHERE hash = $1`, hash)
	return n == 1, err
}

// Approve notes until when (ms) what a session of user-interactive authentication asks for is approved by its user; ""
// means whichever session comes next. It forgets what was approved before and is over by now (ms).
func (tx *Tx) Approve(user UserNID, session string, until, now int64) error {
	if _, err := tx.Exec(`DELETE FROM oauth_approvals WHERE member = $1 AND expires <= $2`, user, now); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO oauth_approvals (member, session, expires) VALUES ($1, $2, $3)
		ON CONFLICT (member, session) DO UPDATE SET expires = excluded.expires`, user, session, until)
	return err
}

// Approved reports whether a session's user has approved what it asks for, and that is not over by now (ms).
func (tx *Tx) Approved(user UserNID, session string, now int64) (yes bool, err error) {
	err = tx.Query(`SELECT 1 FROM oauth_approvals WHERE member = $1 AND session IN ($2, '') AND expires > $3`, func(*Row) error {
		yes = true
		return nil
	}, user, session, now)
	return yes, err
}

// DropApprovals ends what a user has approved; it reports false if that is nothing (any more).
func (tx *Tx) DropApprovals(user UserNID) (bool, error) {
	n, err := tx.Exec(`DELETE FROM oauth_approvals WHERE member = $1`, user)
	return n > 0, err
}
