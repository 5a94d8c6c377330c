package store

// How many rows that have run out one call clears away.
const expiredAtOnce = 100

// Factors are the second factors of an account.
type Factors struct {
	TOTP     bool
	Recovery int // unused recovery codes
	Passkeys int
	Since    int64 // ms, 0 if there is neither TOTP nor a passkey
}

// Factors counts the second factors of an account.
func (tx *Tx) Factors(user UserNID) (f Factors, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM totp_seeds WHERE member = $1), (SELECT count(*) FROM recovery_codes WHERE member = $1),
		(SELECT count(*) FROM passkeys WHERE member = $1), coalesce((SELECT second_factor FROM accounts WHERE member = $1), 0)`, func(r *Row) error {
		f = Factors{r.Bool(0), int(r.Int64(1)), int(r.Int64(2)), r.Int64(3)}
		return nil
	}, user)
	return f, err
}

// NoteFactors brings accounts.second_factor up to date after factors were added or removed, now (ms), and returns what
// there is.
func (tx *Tx) NoteFactors(user UserNID, now int64) (Factors, error) {
	_, err := tx.Exec(`UPDATE accounts SET second_factor = CASE
		WHEN NOT EXISTS (SELECT 1 FROM totp_seeds WHERE member = $1) AND NOT EXISTS (SELECT 1 FROM passkeys WHERE member = $1) THEN 0
		WHEN second_factor = 0 THEN $2 ELSE second_factor END WHERE member = $1`, user, now)
	if err != nil {
		return Factors{}, err
	}
	return tx.Factors(user)
}

// factorTables hold what belongs to the second factors of an account, each by its member.
var factorTables = []string{"totp_seeds", "totp_enrolments", "recovery_codes", "passkeys", "passkey_challenges", "factor_guesses"}

// DeleteFactors removes everything about the second factors of an account.
func (tx *Tx) DeleteFactors(user UserNID) error {
	for _, table := range factorTables {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE member = $1`, user); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`UPDATE accounts SET second_factor = 0 WHERE member = $1`, user)
	return err
}

// TOTP is an account's authenticator app.
type TOTP struct {
	Sealed []byte // the seed, encrypted
	Step   int64  // of the last code that was taken
}

// TOTP finds an account's authenticator app, nil if it has none.
func (tx *Tx) TOTP(user UserNID) (found *TOTP, err error) {
	err = tx.Query(`SELECT sealed, step FROM totp_seeds WHERE member = $1`, func(r *Row) error {
		found = &TOTP{append([]byte(nil), r.Bytes(0)...), r.Int64(1)}
		return nil
	}, user)
	return found, err
}

// PutTOTP makes an authenticator app the account's only one, now (ms).
func (tx *Tx) PutTOTP(user UserNID, t TOTP, now int64) error {
	_, err := tx.Exec(`INSERT INTO totp_seeds (member, sealed, step, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (member) DO UPDATE SET sealed = excluded.sealed, step = excluded.step, created = excluded.created`, user, t.Sealed, t.Step, now)
	return err
}

// TakeTOTPStep notes the step of a code that was right; it reports false if a code of that step or a later one was taken
// before.
func (tx *Tx) TakeTOTPStep(user UserNID, step int64) (bool, error) {
	n, err := tx.Exec(`UPDATE totp_seeds SET step = $2 WHERE member = $1 AND step < $2`, user, step)
	return n == 1, err
}

// DeleteTOTP removes an account's authenticator app; it reports false if it has none.
func (tx *Tx) DeleteTOTP(user UserNID) (bool, error) {
	n, err := tx.Exec(`DELETE FROM totp_seeds WHERE member = $1`, user)
	return n == 1, err
}

// Enrolment is a seed whose owner has not shown a code yet.
type Enrolment struct {
	Device  int64 // of the session that began
	Sealed  []byte
	Expires int64 // ms
}

// Enrolment finds what an account is enrolling, nil if it is nothing.
func (tx *Tx) Enrolment(user UserNID) (found *Enrolment, err error) {
	err = tx.Query(`SELECT device, sealed, expires FROM totp_enrolments WHERE member = $1`, func(r *Row) error {
		found = &Enrolment{r.Int64(0), append([]byte(nil), r.Bytes(1)...), r.Int64(2)}
		return nil
	}, user)
	return found, err
}

// PutEnrolment begins an enrolment in the place of an earlier one, and forgets some that have run out by now (ms).
func (tx *Tx) PutEnrolment(user UserNID, e Enrolment, now int64) error {
	_, err := tx.Exec(`DELETE FROM totp_enrolments WHERE member IN (SELECT member FROM totp_enrolments WHERE expires < $1 LIMIT $2)`, now, expiredAtOnce)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO totp_enrolments (member, device, sealed, expires) VALUES ($1, $2, $3, $4)
		ON CONFLICT (member) DO UPDATE SET device = excluded.device, sealed = excluded.sealed, expires = excluded.expires`, user, e.Device, e.Sealed, e.Expires)
	return err
}

// DeleteEnrolment ends an enrolment.
func (tx *Tx) DeleteEnrolment(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM totp_enrolments WHERE member = $1`, user)
	return err
}

// ReplaceRecoveryCodes gives an account a set of recovery codes, by their hashes, in the place of what it had.
func (tx *Tx) ReplaceRecoveryCodes(user UserNID, hashes [][]byte) error {
	if _, err := tx.Exec(`DELETE FROM recovery_codes WHERE member = $1`, user); err != nil {
		return err
	}
	if len(hashes) == 0 {
		return nil
	}
	_, err := tx.Exec(`INSERT INTO recovery_codes (member, hash) SELECT $1, v.value FROM ({blobs $2}) v`, user, hashes)
	return err
}

// TakeRecoveryCode uses up a recovery code; it reports false if the account has none with that hash (any more).
func (tx *Tx) TakeRecoveryCode(user UserNID, hash []byte) (taken bool, err error) {
	err = tx.Query(`DELETE FROM recovery_codes WHERE member = $1 AND hash = $2 RETURNING member`, func(*Row) error {
		taken = true
		return nil
	}, user, hash)
	return taken, err
}
