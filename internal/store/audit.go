package store

import "strconv"

// AuditEntry is something that happened and matters for the safety of accounts.
type AuditEntry struct {
	NID     int64 // drawn when it is stored; later ones have higher numbers
	TS      int64 // ms
	Event   string
	User    string // whose account it is about, "" for none
	By      string // who did it, "" for the user, or nobody knows
	Address string // from where
	Details string // a JSON object, "" for none
}

// AddAudit stores an entry. There is no way to change or remove one.
func (tx *Tx) AddAudit(e AuditEntry) error {
	_, err := tx.Exec(`INSERT INTO audit_log (ts, event, user_id, by_user, address, details) VALUES ($1, $2, $3, $4, $5, $6)`,
		e.TS, e.Event, e.User, e.By, e.Address, e.Details)
	return err
}

// AuditQuery asks for entries. Empty texts and zeros stand for any.
type AuditQuery struct {
	User, Event  string
	Since, Until int64 // ms; Until itself is not included
	After        int64 // number of the entry that the page begins behind, 0 for the first page
	Oldest       bool  // first; else the newest
	Limit        int
}

// Audit reads a page of entries.
func (tx *Tx) Audit(q AuditQuery, each func(AuditEntry)) error {
	sql, args := `SELECT nid, ts, event, user_id, by_user, address, details FROM audit_log WHERE TRUE`, []any{}
	where := func(condition string, value any) { // each only if it is asked for, so that an index can serve it
		args = append(args, value)
		sql += ` AND ` + condition + `$` + strconv.Itoa(len(args))
	}
	if q.User != "" {
		where(`user_id = `, q.User)
	}
	if q.Event != "" {
		where(`event = `, q.Event)
	}
	if q.Since != 0 {
		where(`ts >= `, q.Since)
	}
	if q.Until != 0 {
		where(`ts < `, q.Until)
	}
	switch order := ` ORDER BY nid DESC`; {
	case q.Oldest:
		where(`nid > `, q.After)
		sql += ` ORDER BY nid`
	case q.After != 0:
		where(`nid < `, q.After)
		sql += order
	default:
		sql += order
	}
	args = append(args, q.Limit)
	return tx.Query(sql+` LIMIT $`+strconv.Itoa(len(args)), func(r *Row) error {
		each(AuditEntry{r.Int64(0), r.Int64(1), r.Text(2), r.Text(3), r.Text(4), r.Text(5), r.Text(6)})
		return nil
	}, args...)
}

// CountAudit counts the entries of an event since a time (ms), as far as limit.
func (tx *Tx) CountAudit(event string, since int64, limit int) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM audit_log WHERE event = $1 AND ts >= $2 LIMIT $3) AS found`, event, since, limit).Scan(&n)
	return n, err
}

// TrimAudit removes entries of before a time (ms), the oldest first, up to limit, and returns how many. From then on the
// database lets nothing younger be removed with less than a new time.
func (tx *Tx) TrimAudit(before int64, limit int) (int64, error) {
	if _, err := tx.Exec(`UPDATE audit_floor SET before = $1 WHERE id = 1 AND before < $1`, before); err != nil {
		return 0, err
	}
	return tx.Exec(`DELETE FROM audit_log WHERE nid IN (SELECT nid FROM audit_log WHERE ts < $1 ORDER BY ts, nid LIMIT $2)`, before, limit)
}
