package store

import "conclave/internal/matrix"

// ReportKind says what is reported.
type ReportKind int16

// The kinds of reports, in the numbers of the database.
const (
	ReportEvent ReportKind = iota + 1
	ReportRoom
	ReportUser
)

// Report is what a user told the administrators of an event, a room or a user.
type Report struct {
	NID      int64
	Kind     ReportKind
	Reporter UserNID
	Room     matrix.RoomID  // of an event or a room
	Event    matrix.EventID // of an event
	User     matrix.UserID  // who is reported: the event's sender, or the user
	Reason   string
	TS       int64 // ms

	ReporterID matrix.UserID // as it is read
}

// PutReport stores a report in the place of an earlier one of the same by the same user. It reports false, and stores nothing, if
// the user has made most reports already that are not dealt with.
func (tx *Tx) PutReport(r Report, most int) (bool, error) {
	n, err := tx.Exec(`DELETE FROM reports WHERE reporter = $1 AND kind = $2 AND room_id = $3 AND event_id = $4 AND user_id = $5`,
		r.Reporter, int64(r.Kind), string(r.Room), string(r.Event), string(r.User))
	if err != nil {
		return false, err
	}
	if n == 0 {
		count := 0
		if _, err := tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM reports WHERE reporter = $1 LIMIT $2) AS found`, r.Reporter, most).Scan(&count); err != nil || count >= most {
			return false, err
		}
	}
	_, err = tx.Exec(`INSERT INTO reports (nid, kind, reporter, room_id, event_id, user_id, reason, ts) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT DO NOTHING`, r.NID, int64(r.Kind), r.Reporter, string(r.Room), string(r.Event), string(r.User), r.Reason, r.TS)
	return err == nil, err
}

// ReportsBy reads what a user has reported, which is not dealt with yet: as many as PutReport lets there be at most.
func (tx *Tx) ReportsBy(user UserNID, each func(Report)) error {
	return tx.Query(selectReports+`WHERE p.reporter = $1 ORDER BY p.nid`, func(r *Row) error {
		each(reportRow(r))
		return nil
	}, user)
}

// ReportQuery asks for reports of one kind. Empty texts stand for any.
type ReportQuery struct {
	Kind        ReportKind
	Reporter    string // a part of the ID of who reported
	Reported    string // a part of the ID of who is reported
	Room        string // a part of the room's ID
	Oldest      bool   // first; else the newest
	From, Limit int
}

const selectReports = `SELECT p.nid, p.kind, p.reporter, p.room_id, p.event_id, p.user_id, p.reason, p.ts, u.user_id FROM reports p JOIN users u ON u.nid = p.reporter `

func reportRow(r *Row) Report {
	return Report{
		NID: r.Int64(0), Kind: ReportKind(r.Int64(1)), Reporter: UserNID(r.Int64(2)), Room: matrix.RoomID(r.Text(3)), Event: matrix.EventID(r.Text(4)),
		User: matrix.UserID(r.Text(5)), Reason: r.Text(6), TS: r.Int64(7), ReporterID: matrix.UserID(r.Text(8)),
	}
}

// Reports reads a page of reports and says how many there are in all.
func (tx *Tx) Reports(q ReportQuery, each func(Report)) (total int, err error) {
	where := `WHERE p.kind = $1 AND u.user_id LIKE $2 ESCAPE '!' AND p.user_id LIKE $3 ESCAPE '!' AND p.room_id LIKE $4 ESCAPE '!'`
	args := []any{int64(q.Kind)}
	for _, part := range []string{q.Reporter, q.Reported, q.Room} {
		args = append(args, "%"+likeExact(part)+"%")
	}
	_, err = tx.QueryRow(`SELECT count(*) FROM reports p JOIN users u ON u.nid = p.reporter `+where, args...).Scan(&total)
	if err != nil {
		return 0, err
	}
	order := ` ORDER BY p.ts DESC, p.nid DESC`
	if q.Oldest {
		order = ` ORDER BY p.ts, p.nid`
	}
	err = tx.Query(selectReports+where+order+` LIMIT $5 OFFSET $6`, func(r *Row) error {
		each(reportRow(r))
		return nil
	}, append(args, q.Limit, q.From)...)
	return total, err
}

// Report reads one report; nil if there is none.
func (tx *Tx) Report(kind ReportKind, nid int64) (found *Report, err error) {
	err = tx.Query(selectReports+`WHERE p.kind = $1 AND p.nid = $2`, func(r *Row) error {
		row := reportRow(r)
		found = &row
		return nil
	}, int64(kind), nid)
	return found, err
}

// DropReport forgets a report; it reports false if there is none.
func (tx *Tx) DropReport(kind ReportKind, nid int64) (bool, error) {
	n, err := tx.Exec(`DELETE FROM reports WHERE kind = $1 AND nid = $2`, int64(kind), nid)
	return n == 1, err
}
