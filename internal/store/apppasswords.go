package store

// AppPassword is a password that opens one session of an account, for a client that knows of nothing else.
type AppPassword struct {
	ID      string
	User    UserNID
	Name    string // what for
	Created int64  // ms
	Used    int64  // ms, 0: never
	Device  int64  // number of the device that it has opened, 0: none
}

const selectAppPasswords = `SELECT id, member, name, created, used, device FROM app_passwords `

func (tx *Tx) appPasswords(sql string, each func(AppPassword), args ...any) error {
	return tx.Query(sql, func(r *Row) error {
		each(AppPassword{r.Text(0), UserNID(r.Int64(1)), r.Text(2), r.Int64(3), r.Int64(4), r.Int64(5)})
		return nil
	}, args...)
}

// AppPasswords reads a user's app passwords.
func (tx *Tx) AppPasswords(user UserNID, each func(AppPassword)) error {
	return tx.appPasswords(selectAppPasswords+`WHERE member = $1 ORDER BY id`, each, user)
}

// AppPassword finds a user's app password by its hash, nil if there is none.
func (tx *Tx) AppPassword(user UserNID, hash []byte) (found *AppPassword, err error) {
	err = tx.appPasswords(selectAppPasswords+`WHERE hash = $2 AND member = $1`, func(p AppPassword) { found = &p }, user, hash)
	return found, err
}

// AddAppPassword stores a new app password by its hash.
func (tx *Tx) AddAppPassword(p AppPassword, hash []byte) error {
	_, err := tx.Exec(`INSERT INTO app_passwords (id, hash, member, name, created) VALUES ($1, $2, $3, $4, $5)`,
		p.ID, hash, p.User, p.Name, p.Created)
	return err
}

// UseAppPassword notes when (ms) an app password was used, and for which device.
func (tx *Tx) UseAppPassword(id string, used, device int64) error {
	_, err := tx.Exec(`UPDATE app_passwords SET used = $2, device = $3 WHERE id = $1`, id, used, device)
	return err
}

// TakeAppPassword removes a user's app password and gives it back, nil if there is none.
func (tx *Tx) TakeAppPassword(user UserNID, id string) (found *AppPassword, err error) {
	err = tx.appPasswords(`DELETE FROM app_passwords WHERE member = $1 AND id = $2 RETURNING id, member, name, created, used, device`,
		func(p AppPassword) { found = &p }, user, id)
	return found, err
}

// DropAppPasswords removes all app passwords of a user.
func (tx *Tx) DropAppPasswords(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM app_passwords WHERE member = $1`, user)
	return err
}
