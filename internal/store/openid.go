package store

import "conclave/internal/matrix"

// AddOpenIDToken keeps an OpenID token by its hash until it expires (ms), and forgets some that have expired by now (ms).
func (tx *Tx) AddOpenIDToken(hash []byte, user UserNID, expires, now int64) error {
	_, err := tx.Exec(`DELETE FROM openid_tokens WHERE hash IN (SELECT hash FROM openid_tokens WHERE expires < $1 ORDER BY expires LIMIT 100)`, now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO openid_tokens (hash, member, expires) VALUES ($1, $2, $3)`, hash, user, expires)
	return err
}

// OpenIDUser finds whose OpenID token it is, "" if it is nobody's, has expired by now (ms) or its account is closed or locked.
func (tx *Tx) OpenIDUser(hash []byte, now int64) (user matrix.UserID, err error) {
	err = tx.Query(`SELECT u.user_id FROM openid_tokens t JOIN accounts a ON a.member = t.member JOIN users u ON u.nid = t.member
		WHERE t.hash = $1 AND t.expires > $2 AND NOT a.deactivated AND NOT a.locked`, func(r *Row) error {
		user = matrix.UserID(r.Text(0))
		return nil
	}, hash, now)
	return user, err
}
