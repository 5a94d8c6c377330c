package store

import "strings"

// SignIn is somebody who is about to sign in, by the hash of the secret that they continue with.
type SignIn struct {
	Hash    []byte
	User    UserNID
	Purpose string   // what it may open
	Shown   []string // what was shown so far of being the account's owner
	Expires int64    // ms
	Target  string   // where the client is that it is for, "" if that is whoever has the secret
}

// AddSignIn begins a sign-in, and forgets some that have expired by now (ms).
func (tx *Tx) AddSignIn(s SignIn, now int64) error {
	_, err := tx.Exec(`DELETE FROM sign_ins WHERE hash IN (SELECT hash FROM sign_ins WHERE expires < $1 ORDER BY expires LIMIT 100)`, now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO sign_ins (hash, member, purpose, shown, expires, target) VALUES ($1, $2, $3, $4, $5, $6)`,
		s.Hash, s.User, s.Purpose, strings.Join(s.Shown, " "), s.Expires, s.Target)
	return err
}

func (tx *Tx) signIn(sql string, args ...any) (found *SignIn, err error) {
	err = tx.Query(sql, func(r *Row) error {
		found = &SignIn{append([]byte(nil), r.Bytes(0)...), UserNID(r.Int64(1)), r.Text(2), strings.Fields(r.Text(3)), r.Int64(4), r.Text(5)}
		return nil
	}, args...)
	return found, err
}

// SignIn finds a sign-in by its hash, nil if there is none.
func (tx *Tx) SignIn(hash []byte) (*SignIn, error) {
	return tx.signIn(`SELECT hash, member, purpose, shown, expires, target FROM sign_ins WHERE hash = $1`, hash)
}

// TakeSignIn ends a sign-in and gives it back, nil if there is none or somebody else was first.
func (tx *Tx) TakeSignIn(hash []byte) (*SignIn, error) {
	return tx.signIn(`DELETE FROM sign_ins WHERE hash = $1 RETURNING hash, member, purpose, shown, expires, target`, hash)
}

// SignInShown notes what was shown by now in a sign-in.
func (tx *Tx) SignInShown(hash []byte, shown []string) error {
	_, err := tx.Exec(`UPDATE sign_ins SET shown = $2 WHERE hash = $1`, hash, strings.Join(shown, " "))
	return err
}

// DropSignIns ends what a user has begun to sign in to.
func (tx *Tx) DropSignIns(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM sign_ins WHERE member = $1`, user)
	return err
}

// SetFactorDue notes by when (ms) an account is to have a second factor, unless that is noted already.
func (tx *Tx) SetFactorDue(user UserNID, due int64) error {
	_, err := tx.Exec(`UPDATE accounts SET factor_due = $2 WHERE member = $1 AND factor_due = 0`, user, due)
	return err
}
