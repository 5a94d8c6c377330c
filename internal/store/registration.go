package store

import "encoding/json"

// RegistrationToken lets people make accounts who know it.
type RegistrationToken struct {
	Token       string
	UsesAllowed int64 // -1: any number
	Completed   int64 // accounts that were made with it
	Expires     int64 // ms, 0: never
	EmailDomain string
	Note        string
	MadeBy      string
	Created     int64 // ms
}

// Valid reports whether an account could be made with the token at a time (ms).
func (t *RegistrationToken) Valid(now int64) bool {
	return (t.Expires == 0 || now < t.Expires) && (t.UsesAllowed < 0 || t.Completed < t.UsesAllowed)
}

const selectTokens = `SELECT token, uses_allowed, completed, expires, email_domain, note, made_by, created FROM registration_tokens `

func (tx *Tx) registrationTokens(sql string, each func(RegistrationToken), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(RegistrationToken{r.Text(0), r.Int64(1), r.Int64(2), r.Int64(3), r.Text(4), r.Text(5), r.Text(6), r.Int64(7)})
		return nil
	}, args...)
}

// RegistrationToken finds a token, nil if there is none.
func (tx *Tx) RegistrationToken(token string) (found *RegistrationToken, err error) {
	err = tx.registrationTokens(selectTokens+`WHERE token = $1`, func(t RegistrationToken) { found = &t }, token)
	return found, err
}

// RegistrationTokens reads up to limit tokens in their order, after one.
func (tx *Tx) RegistrationTokens(after string, limit int, each func(RegistrationToken)) error {
	return tx.registrationTokens(selectTokens+`WHERE token > $1 ORDER BY token LIMIT $2`, each, after, limit)
}

// AddRegistrationToken stores a new token; it reports false if there is one already.
func (tx *Tx) AddRegistrationToken(t RegistrationToken) (bool, error) {
	n, err := tx.Exec(`INSERT INTO registration_tokens (token, uses_allowed, expires, email_domain, note, made_by, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`, t.Token, t.UsesAllowed, t.Expires, t.EmailDomain, t.Note, t.MadeBy, t.Created)
	return n == 1, err
}

// ChangeRegistrationToken replaces what an administrator may change of a token; it reports false if there is none.
func (tx *Tx) ChangeRegistrationToken(t RegistrationToken) (bool, error) {
	n, err := tx.Exec(`UPDATE registration_tokens SET uses_allowed = $2, expires = $3, email_domain = $4, note = $5 WHERE token = $1`,
		t.Token, t.UsesAllowed, t.Expires, t.EmailDomain, t.Note)
	return n == 1, err
}

// DropRegistrationToken removes a token; it reports false if there is none.
func (tx *Tx) DropRegistrationToken(token string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM registration_tokens WHERE token = $1`, token)
	return n == 1, err
}

// UseRegistrationToken counts a use of a token and gives the token as it is then, nil if it cannot be used at that time
// (ms). Two transactions cannot have the same use.
func (tx *Tx) UseRegistrationToken(token string, now int64) (found *RegistrationToken, err error) {
	err = tx.registrationTokens(`UPDATE registration_tokens SET completed = completed + 1
		WHERE token = $1 AND (expires = 0 OR expires > $2) AND (uses_allowed < 0 OR completed < uses_allowed)
		RETURNING token, uses_allowed, completed, expires, email_domain, note, made_by, created`,
		func(t RegistrationToken) { found = &t }, token, now)
	return found, err
}

// maxPending bounds how many sessions are looked at to count those that are under way.
const maxPending = 10_000

// PendingRegistrations counts the registrations under way, at a time (ms), by what they have found out under a name, such
// as the token that was shown.
func (tx *Tx) PendingRegistrations(operation, name string, now int64) (map[string]int64, error) {
	pending := map[string]int64{}
	err := tx.Query(`SELECT data FROM uia_sessions WHERE operation = $1 AND expires > $2 AND data <> '' LIMIT $3`, func(r *Row) error {
		var found map[string]string
		if err := json.Unmarshal([]byte(r.Text(0)), &found); err != nil {
			return err
		}
		if value := found[name]; value != "" {
			pending[value]++
		}
		return nil
	}, operation, now, maxPending)
	return pending, err
}

// RegistrationRequest is an account that waits for an administrator's word.
type RegistrationRequest struct {
	Localpart string
	Password  string // argon2id in PHC form
	Email     string // confirmed, "" for none
	Lang      string // of mails to it
	Reason    string // the applicant's words
	Address   string // where the request came from
	Terms     []AcceptedTerms
	Created   int64 // ms
}

const selectRequests = `SELECT localpart, password, email, lang, reason, address, terms, created FROM registration_requests `

func (tx *Tx) registrationRequests(sql string, each func(RegistrationRequest), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		q := RegistrationRequest{
			Localpart: r.Text(0), Password: r.Text(1), Email: r.Text(2), Lang: r.Text(3), Reason: r.Text(4), Address: r.Text(5), Created: r.Int64(7),
		}
		q.Terms = ParseTerms(r.Text(6))
		each(q)
		return nil
	}, args...)
}

// RegistrationRequest finds the request for a name, nil if there is none.
func (tx *Tx) RegistrationRequest(localpart string) (found *RegistrationRequest, err error) {
	err = tx.registrationRequests(selectRequests+`WHERE localpart = $1`, func(q RegistrationRequest) { found = &q }, localpart)
	return found, err
}

// RegistrationRequests reads up to limit requests, the oldest first, after one of a time (ms) and a name.
func (tx *Tx) RegistrationRequests(created int64, after string, limit int, each func(RegistrationRequest)) error {
	return tx.registrationRequests(selectRequests+`WHERE created > $1 OR created = $1 AND localpart > $2 ORDER BY created, localpart LIMIT $3`,
		each, created, after, limit)
}

// CountRegistrationRequests counts the requests that wait.
func (tx *Tx) CountRegistrationRequests() (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM registration_requests`).Scan(&n)
	return n, err
}

// AddRegistrationRequest stores a request; it reports false if somebody has asked for that name already.
func (tx *Tx) AddRegistrationRequest(q RegistrationRequest) (bool, error) {
	n, err := tx.Exec(`INSERT INTO registration_requests (localpart, password, email, lang, reason, address, terms, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
		q.Localpart, q.Password, q.Email, q.Lang, q.Reason, q.Address, TermsText(q.Terms), q.Created)
	return n == 1, err
}

// TakeRegistrationRequest ends a request and gives it back, nil if there is none or somebody else was first.
func (tx *Tx) TakeRegistrationRequest(localpart string) (found *RegistrationRequest, err error) {
	err = tx.registrationRequests(`DELETE FROM registration_requests WHERE localpart = $1
		RETURNING localpart, password, email, lang, reason, address, terms, created`, func(q RegistrationRequest) { found = &q }, localpart)
	return found, err
}

// ExpireRegistrationRequests ends requests of before a time (ms), the oldest first, up to limit.
func (tx *Tx) ExpireRegistrationRequests(before int64, limit int, each func(RegistrationRequest)) error {
	return tx.registrationRequests(`DELETE FROM registration_requests WHERE localpart IN (
		SELECT localpart FROM registration_requests WHERE created < $1 ORDER BY created, localpart LIMIT $2)
		RETURNING localpart, password, email, lang, reason, address, terms, created`, each, before, limit)
}
