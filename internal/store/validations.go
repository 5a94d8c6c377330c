package store

// Validation is the way of an address from "somebody says it is theirs" to "it is" and what follows from that.
type Validation struct {
	ID        string  // the sid of clients
	Purpose   string  // what it may be used for, and nothing else
	Address   string  // in canonical form
	Secret    []byte  // SHA-256 of the client_secret
	User      UserNID // for whose account, 0 for nobody's yet
	Owner     UserNID // whose the address was when the mail was written, 0 if that says nothing
	Attempt   int64   // the highest send_attempt
	NextLink  string
	Confirmed int64 // ms, 0 if it is not
	Expires   int64 // ms
}

const validationColumns = `id, purpose, address, secret, member, owner, attempt, next_link, confirmed, expires`

func validationRow(r *Row) *Validation {
	return &Validation{
		r.Text(0), r.Text(1), r.Text(2), append([]byte(nil), r.Bytes(3)...), UserNID(r.Int64(4)), UserNID(r.Int64(5)), r.Int64(6), r.Text(7),
		r.Int64(8), r.Int64(9),
	}
}

// AskValidation begins a validation, or goes on with the one of the same purpose, address, secret and user. again is false
// if that one has seen this attempt or is confirmed: then nothing is to be sent. now is in ms.
func (tx *Tx) AskValidation(v Validation, now int64) (id string, again bool, err error) {
	if err := tx.endValidations(now); err != nil {
		return "", false, err
	}
	keep := func(r *Row) error {
		id = r.Text(0)
		return nil
	}
	err = tx.Query(`INSERT INTO validations (id, purpose, address, secret, member, attempt, next_link, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (address, purpose, secret, member) DO UPDATE SET attempt = excluded.attempt, next_link = excluded.next_link, expires = excluded.expires
		WHERE validations.attempt < excluded.attempt AND validations.confirmed = 0 RETURNING id`, keep,
		v.ID, v.Purpose, v.Address, v.Secret, v.User, v.Attempt, v.NextLink, v.Expires)
	if err != nil || id != "" {
		return id, err == nil, err
	}
	err = tx.Query(`SELECT id FROM validations WHERE address = $1 AND purpose = $2 AND secret = $3 AND member = $4`, keep, v.Address, v.Purpose, v.Secret, v.User)
	return id, false, err
}

// endValidations drops those that are too late at the time now (ms), with their tokens.
func (tx *Tx) endValidations(now int64) error {
	if _, err := tx.Exec(`DELETE FROM validation_tokens WHERE expires < $1`, now); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM validations WHERE expires < $1`, now)
	return err
}

// Validation finds a validation that is not too late at the time now (ms), nil if there is none.
func (tx *Tx) Validation(id string, now int64) (found *Validation, err error) {
	err = tx.Query(`SELECT `+validationColumns+` FROM validations WHERE id = $1 AND expires >= $2`, func(r *Row) error {
		found = validationRow(r)
		return nil
	}, id, now)
	return found, err
}

// ValidationByToken finds what a token confirms, by its hash: nil if there is nothing, or it is too late at the time now (ms).
func (tx *Tx) ValidationByToken(hash []byte, now int64) (found *Validation, err error) {
	err = tx.Query(`SELECT `+validationColumns+` FROM validations WHERE expires >= $2 AND id = (
		SELECT validation FROM validation_tokens WHERE hash = $1 AND expires >= $2)`, func(r *Row) error {
		found = validationRow(r)
		return nil
	}, hash, now)
	return found, err
}

// AddValidationToken keeps a token of a validation by its hash, and whose the address is now: 0 if that says nothing.
func (tx *Tx) AddValidationToken(v *Validation, hash []byte, owner UserNID) error {
	if owner != v.Owner {
		if _, err := tx.Exec(`UPDATE validations SET owner = $2 WHERE id = $1`, v.ID, owner); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`INSERT INTO validation_tokens (hash, validation, expires) VALUES ($1, $2, $3)`, hash, v.ID, v.Expires)
	return err
}

// Confirm uses a token, by its hash, at the time now (ms), and ends all tokens of its validation, which can be used until a
// time (ms). Of several who come at once one gets the validation; nil says that there was nothing to confirm any more.
func (tx *Tx) Confirm(hash []byte, now, until int64) (found *Validation, err error) {
	err = tx.Query(`UPDATE validations SET confirmed = $2, expires = $3 WHERE confirmed = 0 AND expires >= $2 AND id = (
		SELECT validation FROM validation_tokens WHERE hash = $1 AND expires >= $2) RETURNING `+validationColumns, func(r *Row) error {
		found = validationRow(r)
		return nil
	}, hash, now, until)
	if err == nil && found != nil {
		_, err = tx.Exec(`DELETE FROM validation_tokens WHERE validation = $1`, found.ID)
	}
	return found, err
}

// TakeValidation uses a confirmed validation up, at the time now (ms): whoever comes after gets nil, and so does who has
// another secret, another purpose or another account.
func (tx *Tx) TakeValidation(id, purpose string, secret []byte, user UserNID, now int64) (found *Validation, err error) {
	err = tx.Query(`DELETE FROM validations WHERE id = $1 AND purpose = $2 AND secret = $3 AND (member = 0 OR member = $4)
		AND confirmed <> 0 AND expires >= $5 RETURNING `+validationColumns, func(r *Row) error {
		found = validationRow(r)
		return nil
	}, id, purpose, secret, user, now)
	return found, err
}
