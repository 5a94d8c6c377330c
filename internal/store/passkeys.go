package store

// Passkey is a public key that an account proves itself by (WebAuthn).
type Passkey struct {
	ID         string // ours
	User       UserNID
	Credential []byte // the authenticator's ID
	Name       string
	Record     string // JSON
	SignCount  int64
	Created    int64 // ms
	Used       int64 // ms, 0: never
}

const selectPasskeys = `SELECT id, member, credential, name, record, sign_count, created, used FROM passkeys `

func (tx *Tx) passkeys(sql string, each func(Passkey), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(Passkey{r.Text(0), UserNID(r.Int64(1)), append([]byte(nil), r.Bytes(2)...), r.Text(3), r.Text(4), r.Int64(5), r.Int64(6), r.Int64(7)})
		return nil
	}, args...)
}

// Passkeys reads the passkeys of an account, the oldest first.
func (tx *Tx) Passkeys(user UserNID, each func(Passkey)) error {
	return tx.passkeys(selectPasskeys+`WHERE member = $1 ORDER BY created, id`, each, user)
}

// PasskeyByCredential finds a passkey by the authenticator's ID of it, nil if nobody has it.
func (tx *Tx) PasskeyByCredential(credential []byte) (found *Passkey, err error) {
	err = tx.passkeys(selectPasskeys+`WHERE credential = $1`, func(p Passkey) { found = &p }, credential)
	return found, err
}

// AddPasskey adds a passkey; it reports false if somebody has it already.
func (tx *Tx) AddPasskey(p Passkey) (bool, error) {
	n, err := tx.Exec(`INSERT INTO passkeys (id, member, credential, name, record, sign_count, created, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`, p.ID, p.User, p.Credential, p.Name, p.Record, p.SignCount, p.Created, p.Used)
	return n == 1, err
}

// UsePasskey notes a use, with the count of the authenticator. It reports false if the account has no such passkey, or if
// the count did not rise: then there may be two of what should be one. An authenticator that does not count says 0 always.
func (tx *Tx) UsePasskey(user UserNID, credential []byte, count, now int64) (bool, error) {
	n, err := tx.Exec(`UPDATE passkeys SET sign_count = $3, used = $4
		WHERE member = $1 AND credential = $2 AND (sign_count < $3 OR sign_count = 0 AND $3 = 0)`, user, credential, count, now)
	return n == 1, err
}

// RenamePasskey changes what a passkey is called; it reports false if the account has no such passkey.
func (tx *Tx) RenamePasskey(user UserNID, id, name string) (bool, error) {
	n, err := tx.Exec(`UPDATE passkeys SET name = $3 WHERE member = $1 AND id = $2`, user, id, name)
	return n == 1, err
}

// DeletePasskey removes a passkey; it reports false if the account has no such passkey.
func (tx *Tx) DeletePasskey(user UserNID, id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM passkeys WHERE member = $1 AND id = $2`, user, id)
	return n == 1, err
}

// PasskeyChallenge is a challenge that was given out.
type PasskeyChallenge struct {
	Challenge string
	User      UserNID // 0 where nobody has said who they are
	Device    int64   // of the session that adds a passkey, else 0
	Purpose   string
	Ceremony  string // JSON
	Expires   int64  // ms
}

// challengesOf is how many challenges one user can have under way: older ones end.
const challengesOf = 20

// AddPasskeyChallenge keeps a challenge, and forgets some that have run out by now (ms).
func (tx *Tx) AddPasskeyChallenge(c PasskeyChallenge, now int64) error {
	_, err := tx.Exec(`DELETE FROM passkey_challenges WHERE challenge IN
		(SELECT challenge FROM passkey_challenges WHERE expires < $1 ORDER BY expires LIMIT $2)`, now, expiredAtOnce)
	if err != nil {
		return err
	}
	if c.User != 0 {
		_, err := tx.Exec(`DELETE FROM passkey_challenges WHERE challenge IN (SELECT challenge FROM passkey_challenges
			WHERE member = $1 ORDER BY expires DESC LIMIT $2 OFFSET $3)`, c.User, expiredAtOnce, challengesOf-1)
		if err != nil {
			return err
		}
	}
	_, err = tx.Exec(`INSERT INTO passkey_challenges (challenge, member, device, purpose, ceremony, expires) VALUES ($1, $2, $3, $4, $5, $6)`,
		c.Challenge, c.User, c.Device, c.Purpose, c.Ceremony, c.Expires)
	return err
}

// TakePasskeyChallenge ends a challenge and returns what its answer is held against; "" if none was given to that user
// and device for that purpose, or it has run out by now (ms).
func (tx *Tx) TakePasskeyChallenge(c PasskeyChallenge, now int64) (ceremony string, err error) {
	err = tx.Query(`DELETE FROM passkey_challenges WHERE challenge = $1 AND member = $2 AND device = $3 AND purpose = $4 AND expires > $5
		RETURNING ceremony`, func(r *Row) error {
		ceremony = r.Text(0)
		return nil
	}, c.Challenge, c.User, c.Device, c.Purpose, now)
	return ceremony, err
}
