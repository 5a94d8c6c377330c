package store

import "conclave/internal/matrix"

// AppService is how far an application service has been told what concerns it (law 10).
type AppService struct {
	ID      string
	Pos     Pos // what is after it has not been delivered or passed over
	Serial  int64
	Txn     string // the transaction under way, "" if there is none
	Body    string // its content
	TxnTo   Pos    // Pos, once it is acknowledged
	Fails   int    // attempts in a row that failed
	RetryAt int64  // ms; 0 if it does not fail
	fence   int64
}

const appServiceColumns = `id, pos, serial, txn, body, txn_to, fails, retry_at, fence`

func appServiceRow(r *Row) *AppService {
	return &AppService{r.Text(0), Pos(r.Int64(1)), r.Int64(2), r.Text(3), r.Text(4), Pos(r.Int64(5)), r.Int(6), r.Int64(7), r.Int64(8)}
}

// AddAppService begins to keep count for an application service at a position, unless that is done already.
func (tx *Tx) AddAppService(id string, pos Pos) error {
	_, err := tx.Exec(`INSERT INTO app_services (id, pos) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, id, pos)
	return err
}

// AppService reads how far an application service is, nil if it is not known.
func (tx *Tx) AppService(id string) (found *AppService, err error) {
	err = tx.Query(`SELECT `+appServiceColumns+` FROM app_services WHERE id = $1`, func(r *Row) error {
		found = appServiceRow(r)
		return nil
	}, id)
	return found, err
}

// LeaseAppService takes an application service that is due at the time now (ms) for a while, after which the lease ends by
// itself; force takes one that has not ended, which only the single node of a database may do. It is nil if somebody else
// has it.
func (tx *Tx) LeaseAppService(id string, now, leaseMS int64, force bool) (found *AppService, err error) {
	err = tx.Query(`UPDATE app_services SET fence = fence + 1, lease_until = {now} + $2
		WHERE id = $1 AND (lease_until < {now} OR $3) AND retry_at <= $4 RETURNING `+appServiceColumns, func(r *Row) error {
		found = appServiceRow(r)
		return nil
	}, id, leaseMS, force, now)
	return found, err
}

// SaveAppService stores how far a leased application service is and renews the lease, or gives it back if leaseMS is 0. ok is
// false if the lease was lost, and then nothing is stored.
func (tx *Tx) SaveAppService(s AppService, leaseMS int64) (ok bool, err error) {
	n, err := tx.Exec(`UPDATE app_services SET pos = $3, serial = $4, txn = $5, body = $6, txn_to = $7, fails = $8, retry_at = $9,
		lease_until = CASE WHEN $10 = 0 THEN 0 ELSE {now} + $10 END WHERE id = $1 AND fence = $2`,
		s.ID, s.fence, s.Pos, s.Serial, s.Txn, s.Body, s.TxnTo, s.Fails, s.RetryAt, leaseMS)
	return n > 0, err
}

// LocalMembers are the users of a server that have or had to do with a room, and where they stand.
func (tx *Tx) LocalMembers(room RoomNID, server matrix.ServerName, each func(matrix.UserID, MemberRow)) error {
	return tx.Query(`SELECT m.room, m.member, m.server, m.membership, m.event, m.pos, m.joined, m.departed, m.forgotten, u.user_id
		FROM memberships m JOIN users u ON u.nid = m.member
		WHERE m.room = $1 AND m.server = (SELECT nid FROM servers WHERE name = $2)`, func(r *Row) error {
		each(matrix.UserID(r.Text(9)), memberRow(r))
		return nil
	}, room, string(server))
}

// AllReceipts reads a room's receipts that changed after one position and up to another, also those that only their owner may
// see, at most limit, newest first. Who may see which is for the caller to know.
func (tx *Tx) AllReceipts(room RoomNID, after, upTo Pos, limit int, each func(Receipt)) error {
	return tx.Query(`SELECT r.member, u.user_id, r.kind, r.thread, r.event_id, r.place, r.ts FROM receipts r JOIN users u ON u.nid = r.member
		WHERE r.room = $1 AND r.pos > $2 AND r.pos <= $3 AND r.kind IN (1, 2) ORDER BY r.pos DESC LIMIT $4`, func(row *Row) error {
		each(Receipt{room, UserNID(row.Int64(0)), matrix.UserID(row.Text(1)), ReceiptKind(row.Int64(2)), row.Text(3),
			matrix.EventID(row.Text(4)), Pos(row.Int64(5)), row.Int64(6)})
		return nil
	}, room, after, upTo, limit)
}

// SetAppDirectory lists a room in the directory of a network of an application service, or takes it out.
func (tx *Tx) SetAppDirectory(room RoomNID, service, network string, listed bool) error {
	sql := `DELETE FROM app_directory WHERE room = $1 AND service = $2 AND network = $3`
	if listed {
		sql = `INSERT INTO app_directory (room, service, network) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	}
	_, err := tx.Exec(sql, room, service, network)
	return err
}

// AppDirectory reads the rooms that application services list, with service and network, by room, at most limit rows.
func (tx *Tx) AppDirectory(limit int, each func(room RoomNID, service, network string)) error {
	return tx.Query(`SELECT room, service, network FROM app_directory ORDER BY room LIMIT $1`, func(r *Row) error {
		each(RoomNID(r.Int64(0)), r.Text(1), r.Text(2))
		return nil
	}, limit)
}
