package store

import "strings"

// UIASession is a session of user-interactive authentication.
type UIASession struct {
	ID        string
	User      UserNID // 0 where nobody is logged in yet
	Operation string
	Body      []byte // a keyed hash of the request's device and body
	Completed []string
	Expires   int64  // ms
	Data      string // what the stages have found out, as JSON; "" for nothing
	Flows     string // by which it can be completed, as JSON
}

const selectUIASessions = `SELECT id, member, operation, body, completed, expires, data, flows FROM uia_sessions WHERE id = $1`

// UIASession finds a session, nil if there is none.
func (tx *Tx) UIASession(id string) (*UIASession, error) {
	return tx.uiaSession(selectUIASessions, id)
}

// LockUIASession is UIASession, with the session as it stays until the end of the transaction.
func (tx *Tx) LockUIASession(id string) (*UIASession, error) {
	return tx.uiaSession(selectUIASessions+` {lock}`, id)
}

func (tx *Tx) uiaSession(sql, id string) (found *UIASession, err error) {
	err = tx.Query(sql, func(r *Row) error {
		found = &UIASession{
			r.Text(0), UserNID(r.Int64(1)), r.Text(2), append([]byte(nil), r.Bytes(3)...), strings.Fields(r.Text(4)), r.Int64(5), r.Text(6), r.Text(7),
		}
		return nil
	}, id)
	return found, err
}

// AddUIASession stores a new session and drops those that ended before now (ms).
func (tx *Tx) AddUIASession(s UIASession, now int64) error {
	if _, err := tx.Exec(`DELETE FROM uia_sessions WHERE expires < $1`, now); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO uia_sessions (id, member, operation, body, completed, expires, data, flows) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		s.ID, s.User, s.Operation, s.Body, strings.Join(s.Completed, " "), s.Expires, s.Data, s.Flows)
	return err
}

// AdvanceUIASession stores what a session has reached; it reports false if the session has ended in the meantime.
func (tx *Tx) AdvanceUIASession(s UIASession) (bool, error) {
	n, err := tx.Exec(`UPDATE uia_sessions SET completed = $2, data = $3, flows = $4 WHERE id = $1`, s.ID, strings.Join(s.Completed, " "), s.Data, s.Flows)
	return n == 1, err
}

// TakeUIASession ends a session; it reports false if somebody else did so first.
func (tx *Tx) TakeUIASession(id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM uia_sessions WHERE id = $1`, id)
	return n == 1, err
}
