package store

import "time"

// Bounds of places: how many of a user are kept, and how exact the time is.
const (
	maxSeenPlaces  = 200
	seenPlaceEvery = 24 * time.Hour
)

// SeePlace notes that a user was seen in a place at a time (ms). It reports whether the user was seen there since another
// time, and whether anywhere.
func (tx *Tx) SeePlace(user UserNID, place string, now, since int64) (here, anywhere bool, err error) {
	var last int64
	err = tx.Query(`SELECT place, seen FROM places WHERE member = $1`, func(r *Row) error {
		anywhere = true
		if r.Text(0) == place {
			last = r.Int64(1)
		}
		return nil
	}, user)
	if err != nil {
		return false, false, err
	}
	here = last != 0 && last >= since
	if now-last < seenPlaceEvery.Milliseconds() {
		return here, anywhere, nil
	}
	if _, err := tx.Exec(`INSERT INTO places (member, place, seen) VALUES ($1, $2, $3) ON CONFLICT (member, place) DO UPDATE SET seen = excluded.seen`, user, place, now); err != nil {
		return false, false, err
	}
	if last == 0 {
		_, err = tx.Exec(`DELETE FROM places WHERE member = $1 AND (seen < $2 OR place IN (
			SELECT place FROM places WHERE member = $1 ORDER BY seen DESC, place LIMIT 1000 OFFSET $3))`, user, since, maxSeenPlaces)
	}
	return here, anywhere, err
}

// SeenPlaces reads where a user was seen, and when last (ms).
func (tx *Tx) SeenPlaces(user UserNID, each func(place string, seen int64)) error {
	return tx.Query(`SELECT place, seen FROM places WHERE member = $1 ORDER BY place`, func(r *Row) error {
		each(r.Text(0), r.Int64(1))
		return nil
	}, user)
}

// ForgetSeenPlaces forgets where a user was seen.
func (tx *Tx) ForgetSeenPlaces(user UserNID) error {
	_, err := tx.Exec(`DELETE FROM places WHERE member = $1`, user)
	return err
}
