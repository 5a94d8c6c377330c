package store

// Threepid is an address (third-party identifier) of an account, in canonical form.
type Threepid struct {
	Medium    string // "email"
	Address   string
	User      UserNID
	Lang      string // of mails to it
	Validated int64  // ms
	Added     int64  // ms
}

const selectThreepids = `SELECT medium, address, member, lang, validated, added FROM threepids `

func (tx *Tx) threepids(sql string, each func(Threepid), args ...any) error {
	return tx.Query(selectThreepids+sql, func(r *Row) error {
		each(Threepid{r.Text(0), r.Text(1), UserNID(r.Int64(2)), r.Text(3), r.Int64(4), r.Int64(5)})
		return nil
	}, args...)
}

// Threepids reads the addresses of an account, oldest first.
func (tx *Tx) Threepids(user UserNID, each func(Threepid)) error {
	return tx.threepids(`WHERE member = $1 ORDER BY added, medium, address`, each, user)
}

// ThreepidsOf reads the addresses of several accounts.
func (tx *Tx) ThreepidsOf(users []UserNID, each func(Threepid)) error {
	list := make([]int64, len(users))
	for i, u := range users {
		list[i] = int64(u)
	}
	return tx.threepids(`WHERE member IN ({ids $1}) ORDER BY member, added, medium, address`, each, list)
}

// Threepid finds whose an address is, nil if it is nobody's.
func (tx *Tx) Threepid(medium, address string) (found *Threepid, err error) {
	err = tx.threepids(`WHERE medium = $1 AND address = $2`, func(t Threepid) { found = &t }, medium, address)
	return found, err
}

// AddThreepid gives an address to an account; it reports false if it is somebody's already.
func (tx *Tx) AddThreepid(t Threepid) (bool, error) {
	n, err := tx.Exec(`INSERT INTO threepids (medium, address, member, lang, validated, added) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (medium, address) DO NOTHING`, t.Medium, t.Address, t.User, t.Lang, t.Validated, t.Added)
	return n == 1, err
}

// DeleteThreepid takes an address away from an account, and ends the account's pushers to it; it reports false if it was not
// the account's.
func (tx *Tx) DeleteThreepid(user UserNID, medium, address string) (bool, error) {
	if medium == "email" && address != "" {
		if err := tx.DeletePushersTo(user, address); err != nil {
			return false, err
		}
	}
	n, err := tx.Exec(`DELETE FROM threepids WHERE medium = $1 AND address = $2 AND member = $3`, medium, address, user)
	return n == 1, err
}

// DeleteThreepids takes all addresses away from an account, and ends the pushers to them and whatever was under way to confirm
// more for it.
func (tx *Tx) DeleteThreepids(user UserNID) error {
	if err := tx.DeletePushersTo(user, ""); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM threepids WHERE member = $1`, user); err != nil {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM validation_tokens WHERE validation IN (SELECT id FROM validations WHERE member = $1)`, user); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM validations WHERE member = $1`, user)
	return err
}

// AccountByThreepid finds the account that an address belongs to, nil if there is none.
func (tx *Tx) AccountByThreepid(medium, address string) (found *Account, err error) {
	err = tx.accounts(selectAccounts+`JOIN threepids t ON t.member = a.member WHERE t.medium = $1 AND t.address = $2`,
		func(a Account) { found = &a }, medium, address)
	return found, err
}

// Binding says that an identity server tells everybody whose an address is.
type Binding struct {
	User            UserNID
	Medium, Address string
	Server          string
}

// AddBinding notes a binding.
func (tx *Tx) AddBinding(b Binding) error {
	_, err := tx.Exec(`INSERT INTO threepid_bindings (member, medium, address, server) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		b.User, b.Medium, b.Address, b.Server)
	return err
}

// EndBinding forgets a binding.
func (tx *Tx) EndBinding(b Binding) error {
	_, err := tx.Exec(`DELETE FROM threepid_bindings WHERE member = $1 AND medium = $2 AND address = $3 AND server = $4`,
		b.User, b.Medium, b.Address, b.Server)
	return err
}

// ForgetBindings forgets all bindings of a user.
func (tx *Tx) ForgetBindings(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM threepid_bindings WHERE member = $1`, user)
	return err
}

// Bindings reads the bindings of a user.
func (tx *Tx) Bindings(user UserNID, each func(Binding)) error {
	return tx.Query(`SELECT medium, address, server FROM threepid_bindings WHERE member = $1 ORDER BY medium, address, server`, func(r *Row) error {
		each(Binding{user, r.Text(0), r.Text(1), r.Text(2)})
		return nil
	}, user)
}
