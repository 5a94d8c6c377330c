package store

// How many places of an account are known at a time, and how long one is without being seen, in ms.
const (
	maxPlaces = 50
	placeTime = 90 * 24 * 60 * 60 * 1000
)

// NotePlace notes that the owner of an account is at a place now (ms), and forgets those of long ago.
func (tx *Tx) NotePlace(user UserNID, place []byte, now int64) error {
	n, err := tx.Exec(`INSERT INTO known_places (member, place, seen) VALUES ($1, $2, $3)
		ON CONFLICT (member, place) DO UPDATE SET seen = excluded.seen WHERE known_places.seen < excluded.seen - 86400000`, user, place, now)
	if err != nil || n == 0 { // it was noted within the last day
		return err
	}
	_, err = tx.Exec(`DELETE FROM known_places WHERE member = $1 AND (seen < $2 OR place NOT IN (
		SELECT place FROM known_places WHERE member = $1 ORDER BY seen DESC, place LIMIT $3))`, user, now-placeTime, maxPlaces)
	return err
}

// KnowsPlace says whether the owner of an account was at a place lately, at the time now (ms).
func (tx *Tx) KnowsPlace(user UserNID, place []byte, now int64) (known bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM known_places WHERE member = $1 AND place = $2 AND seen >= $3)`, func(r *Row) error {
		known = r.Bool(0)
		return nil
	}, user, place, now-placeTime)
	return known, err
}

// ForgetPlaces forgets where the owner of an account has been.
func (tx *Tx) ForgetPlaces(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM known_places WHERE member = $1`, user)
	return err
}

// Attempts are the wrong second factors of an account.
type Attempts struct {
	Wrong   int
	Latest  int64 // ms
	Blocked int64 // ms until which none is looked at, 0: not
}

// FactorAttempts reads the wrong second factors of an account that somebody has shown.
func (tx *Tx) FactorAttempts(user UserNID, who string) (a Attempts, err error) {
	err = tx.Query(`SELECT wrong, latest, blocked FROM factor_guesses WHERE member = $1 AND who = $2`, func(r *Row) error {
		a = Attempts{int(r.Int64(0)), r.Int64(1), r.Int64(2)}
		return nil
	}, user, who)
	return a, err
}

// SetFactorAttempts replaces them, and forgets those of others that are as old as the time stale (ms).
func (tx *Tx) SetFactorAttempts(user UserNID, who string, a Attempts, stale int64) error {
	if _, err := tx.Exec(`DELETE FROM factor_guesses WHERE member = $1 AND latest < $2`, user, stale); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO factor_guesses (member, who, wrong, latest, blocked) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (member, who) DO UPDATE SET wrong = excluded.wrong, latest = excluded.latest, blocked = excluded.blocked`, user, who, a.Wrong, a.Latest, a.Blocked)
	return err
}

// ClearFactorAttempts forgets them.
func (tx *Tx) ClearFactorAttempts(user UserNID, who string) error {
	_, err := tx.Exec(`DELETE FROM factor_guesses WHERE member = $1 AND who = $2`, user, who)
	return err
}

// Refund puts one into a budget again that was taken out of it, or that turned out to cost nothing.
func (tx *Tx) Refund(key []byte, b Budget) error {
	_, err := tx.Exec(`UPDATE budgets SET until = until - $2 WHERE key = $1`, key, b.Every)
	return err
}
