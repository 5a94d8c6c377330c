package store

import "conclave/internal/matrix"

// AccountQuery says which accounts an administrator wants to see.
type AccountQuery struct {
	After  string // accounts whose localpart comes after it
	Name   string // a part of the user ID, without regard to case; "" for all
	Closed bool   // deactivated accounts too
	Limit  int
}

const whereAccounts = `WHERE ($1 = '' OR lower(u.user_id) LIKE '%' || $1 || '%' ESCAPE '!') AND ($2 OR NOT a.deactivated)`

// FindAccounts reads accounts in the order of their names, each with its profile (a JSON object, or "").
func (tx *Tx) FindAccounts(q AccountQuery, each func(a Account, profile string)) error {
	return tx.Query(`SELECT a.member, u.user_id, a.admin, a.deactivated, a.locked, a.suspended, a.created, p.fields, a.second_factor, a.guest
		FROM accounts a JOIN users u ON u.nid = a.member LEFT JOIN profiles p ON p.member = a.member `+whereAccounts+`
		AND a.localpart > $3 ORDER BY a.localpart LIMIT $4`, func(r *Row) error {
		each(Account{
			User: UserNID(r.Int64(0)), ID: matrix.UserID(r.Text(1)), Admin: r.Bool(2), Deactivated: r.Bool(3), Locked: r.Bool(4),
			Suspended: r.Bool(5), Created: r.Int64(6), SecondFactor: r.Int64(8), Guest: r.Bool(9),
		}, r.Text(7))
		return nil
	}, likeText(q.Name), q.Closed, q.After, q.Limit)
}

// CountAccounts counts what FindAccounts finds on all pages.
func (tx *Tx) CountAccounts(q AccountQuery) (n int, err error) {
	err = tx.Query(`SELECT count(*) FROM accounts a JOIN users u ON u.nid = a.member `+whereAccounts, func(r *Row) error {
		n = int(r.Int64(0))
		return nil
	}, likeText(q.Name), q.Closed)
	return n, err
}

// Admins reads up to limit administrators, the oldest accounts first.
func (tx *Tx) Admins(limit int, each func(Account)) error {
	return tx.accounts(selectAccounts+`WHERE a.admin AND NOT a.deactivated ORDER BY a.created, a.member LIMIT $1`, each, limit)
}
