package store

import "strings"

// OAuthClient is a client that has registered itself.
type OAuthClient struct {
	ID       string
	Metadata string // JSON
	Created  int64  // ms
	Used     int64  // ms when a session of it was last opened, 0: never
}

// OAuthClient finds a client by its ID, nil if there is none.
func (tx *Tx) OAuthClient(id string) (found *OAuthClient, err error) {
	err = tx.Query(`SELECT client, metadata, created, used FROM oauth_clients WHERE client = $1`, func(r *Row) error {
		found = &OAuthClient{r.Text(0), r.Text(1), r.Int64(2), r.Int64(3)}
		return nil
	}, id)
	return found, err
}

// PutOAuthClient registers a client, or notes that it has registered again.
func (tx *Tx) PutOAuthClient(c OAuthClient) error {
	_, err := tx.Exec(`INSERT INTO oauth_clients (client, metadata, created) VALUES ($1, $2, $3)
		ON CONFLICT (client) DO UPDATE SET created = excluded.created`, c.ID, c.Metadata, c.Created)
	return err
}

// idleOAuthClient picks clients that nothing depends on: no session, no browser on the way, no code and no device that waits.
const idleOAuthClient = ` AND NOT EXISTS (SELECT 1 FROM devices d WHERE d.client = c.client AND d.client <> '')
	AND NOT EXISTS (SELECT 1 FROM oauth_visits v WHERE v.client = c.client AND v.client <> '')
	AND NOT EXISTS (SELECT 1 FROM oauth_codes o WHERE o.client = c.client AND o.spent = 0)
	AND NOT EXISTS (SELECT 1 FROM oauth_device_grants g WHERE g.client = c.client)`

// PruneOAuthClients forgets some clients without a session: those that never had one and registered before unused (ms),
// those that had one before idle (ms), and of those that never had one the oldest beyond most.
func (tx *Tx) PruneOAuthClients(unused, idle, most int64) error {
	for _, which := range []struct {
		sql  string
		args []any
	}{
		{`c.used = 0 AND c.created < $1`, []any{unused}},
		{`c.used > 0 AND c.used < $1 AND c.created < $1`, []any{idle}},
		{`c.used = 0 AND c.created <= (SELECT created FROM oauth_clients WHERE used = 0 ORDER BY created DESC LIMIT 1 OFFSET $1)`, []any{most}},
	} {
		_, err := tx.Exec(`DELETE FROM oauth_clients WHERE client IN (SELECT c.client FROM oauth_clients c WHERE `+which.sql+idleOAuthClient+` LIMIT 100)`,
			which.args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// UseOAuthClient notes that a session of a client was opened at now (ms).
func (tx *Tx) UseOAuthClient(id string, now int64) error {
	_, err := tx.Exec(`UPDATE oauth_clients SET used = $2 WHERE client = $1`, id, now)
	return err
}

// OAuthVisit is what a browser is in the middle of.
type OAuthVisit struct {
	Hash    []byte
	Purpose string
	Client  string // "" for none
	Details string // JSON
	Guesses int64
	Expires int64 // ms
}

// AddOAuthVisit begins a visit, and forgets some that have expired by now (ms).
func (tx *Tx) AddOAuthVisit(v OAuthVisit, now int64) error {
	_, err := tx.Exec(`DELETE FROM oauth_visits WHERE hash IN (SELECT hash FROM oauth_visits WHERE expires < $1 ORDER BY expires LIMIT $2)`, now, expiredAtOnce)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO oauth_visits (hash, purpose, client, details, expires) VALUES ($1, $2, $3, $4, $5)`,
		v.Hash, v.Purpose, v.Client, v.Details, v.Expires)
	return err
}

func (tx *Tx) oauthVisit(sql string, args ...any) (found *OAuthVisit, err error) {
	err = tx.Query(sql, func(r *Row) error {
		found = &OAuthVisit{append([]byte(nil), r.Bytes(0)...), r.Text(1), r.Text(2), r.Text(3), r.Int64(4), r.Int64(5)}
		return nil
	}, args...)
	return found, err
}

const selectOAuthVisits = `SELECT hash, purpose, client, details, guesses, expires FROM oauth_visits WHERE hash = $1`

// OAuthVisit finds a visit by its hash, nil if there is none.
func (tx *Tx) OAuthVisit(hash []byte) (*OAuthVisit, error) {
	return tx.oauthVisit(selectOAuthVisits, hash)
}

// LockOAuthVisit is OAuthVisit, with the visit as it stays until the end of the transaction.
func (tx *Tx) LockOAuthVisit(hash []byte) (*OAuthVisit, error) {
	return tx.oauthVisit(selectOAuthVisits+` {lock}`, hash)
}

// TakeOAuthVisit ends a visit and gives it back, nil if there is none or somebody else was first.
func (tx *Tx) TakeOAuthVisit(hash []byte) (*OAuthVisit, error) {
	return tx.oauthVisit(`DELETE FROM oauth_visits WHERE hash = $1 RETURNING hash, purpose, client, details, guesses, expires`, hash)
}

// GuessInOAuthVisit counts a guess, unless there were too many; it reports whether it may be looked at.
func (tx *Tx) GuessInOAuthVisit(hash []byte, most int64) (bool, error) {
	n, err := tx.Exec(`UPDATE oauth_visits SET guesses = guesses + 1 WHERE hash = $1 AND guesses < $2`, hash, most)
	return n == 1, err
}

// SetOAuthVisit changes whom a visit is for, and what it is about.
func (tx *Tx) SetOAuthVisit(hash []byte, client, details string) error {
	_, err := tx.Exec(`UPDATE oauth_visits SET client = $2, details = $3 WHERE hash = $1`, hash, client, details)
	return err
}

// OAuthCode is an authorization code, by its hash.
type OAuthCode struct {
	Hash      []byte
	Client    string
	Redirect  string
	Challenge string
	Wanted    string // the device's ID
	User      UserNID
	Shown     []string
	Expires   int64 // ms
	Spent     int64 // ms, 0: not yet
	Family    int64
	Device    int64 // that it has opened, 0: none
}

// AddOAuthCode keeps a code, and forgets some that expired before forget (ms).
func (tx *Tx) AddOAuthCode(c OAuthCode, forget int64) error {
	_, err := tx.Exec(`DELETE FROM oauth_codes WHERE hash IN (SELECT hash FROM oauth_codes WHERE expires < $1 ORDER BY expires LIMIT $2)`, forget, expiredAtOnce)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO oauth_codes (hash, client, redirect, challenge, wanted, member, shown, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		c.Hash, c.Client, c.Redirect, c.Challenge, c.Wanted, c.User, strings.Join(c.Shown, " "), c.Expires)
	return err
}

// OAuthCode finds a code by its hash, nil if there is none.
func (tx *Tx) OAuthCode(hash []byte) (found *OAuthCode, err error) {
	err = tx.Query(`SELECT client, redirect, challenge, wanted, member, shown, expires, spent, family, device FROM oauth_codes WHERE hash = $1`, func(r *Row) error {
		found = &OAuthCode{
			hash, r.Text(0), r.Text(1), r.Text(2), r.Text(3), UserNID(r.Int64(4)), strings.Fields(r.Text(5)),
			r.Int64(6), r.Int64(7), r.Int64(8), r.Int64(9),
		}
		return nil
	}, hash)
	return found, err
}

// SpendOAuthCode notes at now (ms) that a code was shown; it reports false if that was noted before.
func (tx *Tx) SpendOAuthCode(hash []byte, now int64) (bool, error) {
	n, err := tx.Exec(`UPDATE oauth_codes SET spent = $2 WHERE hash = $1 AND spent = 0`, hash, now)
	return n == 1, err
}

// OAuthCodeOpened notes which session a code has opened.
func (tx *Tx) OAuthCodeOpened(hash []byte, device, family int64) error {
	_, err := tx.Exec(`UPDATE oauth_codes SET device = $2, family = $3 WHERE hash = $1`, hash, device, family)
	return err
}

// DropOAuthGrants ends what a user has allowed clients that have not opened their sessions yet.
func (tx *Tx) DropOAuthGrants(user UserNID) error {
	for _, table := range []string{"oauth_codes", "oauth_device_grants", "oauth_approvals"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE member = $1`, user); err != nil {
			return err
		}
	}
	return nil
}
