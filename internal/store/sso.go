package store

// SSORequest is somebody on the way to the organization's provider of logins and back.
type SSORequest struct {
	State   []byte // SHA-256 of the state
	Browser []byte // SHA-256 of what the browser keeps
	Target  string // where the login token goes, "" with a stage
	Expires int64  // ms
	Stage   string // the session of user-interactive authentication of which it is a stage, "" if somebody signs in
}

// AddSSORequest notes that somebody sets out, and forgets some who have not come back by now (ms).
func (tx *Tx) AddSSORequest(q SSORequest, now int64) error {
	_, err := tx.Exec(`DELETE FROM sso_requests WHERE state IN (SELECT state FROM sso_requests WHERE expires < $1 ORDER BY expires LIMIT 100)`, now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO sso_requests (state, browser, target, expires, stage) VALUES ($1, $2, $3, $4, $5)`,
		q.State, q.Browser, q.Target, q.Expires, q.Stage)
	return err
}

// TakeSSORequest ends a request and gives it back, nil if there is none.
func (tx *Tx) TakeSSORequest(state []byte) (found *SSORequest, err error) {
	err = tx.Query(`DELETE FROM sso_requests WHERE state = $1 RETURNING browser, target, expires, stage`, func(r *Row) error {
		found = &SSORequest{state, append([]byte(nil), r.Bytes(0)...), r.Text(1), r.Int64(2), r.Text(3)}
		return nil
	}, state)
	return found, err
}

// ExternalUser finds whom a provider means by a subject, 0 if nobody is known.
func (tx *Tx) ExternalUser(issuer, subject string) (user UserNID, err error) {
	err = tx.Query(`SELECT member FROM external_ids WHERE issuer = $1 AND subject IN ($2, $3)`, func(r *Row) error {
		user = UserNID(r.Int64(0))
		return nil
	}, issuer, subject, blind(issuer, subject))
	return user, err
}

// HasExternalID says whether a provider means a user by some subject.
func (tx *Tx) HasExternalID(issuer string, user UserNID) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM external_ids WHERE member = $1 AND issuer = $2)`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, user, issuer)
	return yes, err
}

// AddExternalID notes whom a provider means by a subject; it reports false if that is somebody already.
func (tx *Tx) AddExternalID(issuer, subject string, user UserNID) (bool, error) {
	n, err := tx.Exec(`INSERT INTO external_ids (issuer, subject, member) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, issuer, subject, user)
	return n == 1, err
}

// DropExternalIDs forgets whom a provider means by a user; it reports false if that was nobody.
func (tx *Tx) DropExternalIDs(issuer string, user UserNID) (bool, error) {
	n, err := tx.Exec(`DELETE FROM external_ids WHERE member = $1 AND issuer = $2`, user, issuer)
	return n > 0, err
}

// ExternalIDs reads what others than this server call a user: the organization's provider and its directory (Directory), which have
// an ID each.
func (tx *Tx) ExternalIDs(user UserNID, each func(issuer, subject string)) error {
	return tx.Query(`SELECT issuer, subject FROM external_ids WHERE member = $1 ORDER BY issuer, subject`, func(r *Row) error {
		each(r.Text(0), r.Text(1))
		return nil
	}, user)
}
