package store

import (
	"crypto/ed25519"

	"conclave/internal/matrix"
)

// ServerKey is a signing key that a server has published. Times are in ms.
type ServerKey struct {
	Server     matrix.ServerName
	ID         matrix.KeyID
	Public     ed25519.PublicKey
	ValidUntil int64
	Expired    int64 // when its server stopped using it, 0 if it has not said so
}

// ServerKeys reads all keys that are known of some servers.
func (tx *Tx) ServerKeys(servers []matrix.ServerName, each func(ServerKey)) error {
	return chunks(servers, func(part []matrix.ServerName) error {
		return tx.Query(`SELECT server, key_id, public, valid_until, expired FROM server_keys WHERE server IN ({texts $1})`, func(r *Row) error {
			each(ServerKey{
				Server: matrix.ServerName(r.Text(0)), ID: matrix.KeyID(r.Text(1)),
				Public: append(ed25519.PublicKey(nil), r.Bytes(2)...), ValidUntil: r.Int64(3), Expired: r.Int64(4),
			})
			return nil
		}, texts(part))
	})
}

// PutServerKey stores a key or what is new about it. The bytes of a key that is known never change: a key ID means one
// key for ever.
func (tx *Tx) PutServerKey(k ServerKey) error {
	_, err := tx.Exec(`INSERT INTO server_keys (server, key_id, public, valid_until, expired) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (server, key_id) DO UPDATE SET valid_until = excluded.valid_until, expired = excluded.expired
		WHERE server_keys.public = excluded.public`,
		string(k.Server), string(k.ID), []byte(k.Public), k.ValidUntil, k.Expired)
	return err
}

// KeyDocument is what a server last answered to getServerKey. Times are in ms.
type KeyDocument struct {
	Server     matrix.ServerName
	JSON       []byte // canonical, with the server's own signatures
	Fetched    int64
	ValidUntil int64
}

// KeyDocuments reads the newest documents of some servers.
func (tx *Tx) KeyDocuments(servers []matrix.ServerName, each func(KeyDocument)) error {
	return chunks(servers, func(part []matrix.ServerName) error {
		return tx.Query(`SELECT server, json, fetched, valid_until FROM server_key_documents WHERE server IN ({texts $1})`, func(r *Row) error {
			each(KeyDocument{matrix.ServerName(r.Text(0)), []byte(r.Text(1)), r.Int64(2), r.Int64(3)})
			return nil
		}, texts(part))
	})
}

// PutKeyDocument stores a server's document in place of an older one.
func (tx *Tx) PutKeyDocument(d KeyDocument) error {
	_, err := tx.Exec(`INSERT INTO server_key_documents (server, json, fetched, valid_until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server) DO UPDATE SET json = excluded.json, fetched = excluded.fetched, valid_until = excluded.valid_until`,
		string(d.Server), string(d.JSON), d.Fetched, d.ValidUntil)
	return err
}

// Cursors are how far a destination has been told, by kind of thing: stream positions.
type Cursors struct {
	PDUs        Pos
	DeviceLists Pos
	ToDevice    Pos
	Others      Pos // receipts and other EDUs that must arrive
}

// IsZero reports whether c is no place at all.
func (c Cursors) IsZero() bool { return c == Cursors{} }

// Destination is a server that gets transactions. Times are in ms.
type Destination struct {
	Server       ServerNID
	At           Cursors
	Goal         Cursors // where the transaction under way leads; zero if none is
	CatchUp      Pos     // up to it only each room's latest event is sent
	Batch        int     // events in one transaction
	Fails        int64   // in a row
	FailingSince int64
	RetryAt      int64 // 0 if it does not fail
	Failure      string
	LastSuccess  int64 // 0 if it never took anything
	Fence        int64
}

const destinationColumns = `server, pdus, device_lists, to_device, others, goal_pdus, goal_devices, goal_messages, goal_others,
	catch_up, batch, fails, failing_since, retry_at, failure, last_success, fence`

func destinationRow(r *Row) Destination {
	return Destination{
		Server:  ServerNID(r.Int64(0)),
		At:      Cursors{Pos(r.Int64(1)), Pos(r.Int64(2)), Pos(r.Int64(3)), Pos(r.Int64(4))},
		Goal:    Cursors{Pos(r.Int64(5)), Pos(r.Int64(6)), Pos(r.Int64(7)), Pos(r.Int64(8))},
		CatchUp: Pos(r.Int64(9)), Batch: int(r.Int64(10)), Fails: r.Int64(11), FailingSince: r.Int64(12),
		RetryAt: r.Int64(13), Failure: r.Text(14), LastSuccess: r.Int64(15), Fence: r.Int64(16),
	}
}

// Destination reads a destination; found is false if nothing was ever sent to it.
func (tx *Tx) Destination(server ServerNID) (d Destination, found bool, err error) {
	err = tx.Query(`SELECT `+destinationColumns+` FROM destinations WHERE server = $1`, func(r *Row) error {
		d, found = destinationRow(r), true
		return nil
	}, server)
	return d, found, err
}

// AddDestination makes the row of a destination unless there is one.
func (tx *Tx) AddDestination(server ServerNID, at Cursors, batch int) error {
	_, err := tx.Exec(`INSERT INTO destinations (server, pdus, device_lists, to_device, others, batch) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (server) DO NOTHING`, server, at.PDUs, at.DeviceLists, at.ToDevice, at.Others, batch)
	return err
}

// LeaseDestination takes a destination to work for it, unless somebody else has it or it is not to be tried again yet
// at the time now (ms). The lease ends by itself; force takes one that has not ended, which only the single node of a
// database may do, at its start.
func (tx *Tx) LeaseDestination(server ServerNID, now, leaseMS int64, force bool) (d Destination, ok bool, err error) {
	err = tx.Query(`UPDATE destinations SET fence = fence + 1, lease_until = {now} + $2
		WHERE server = $1 AND (lease_until < {now} OR $3) AND retry_at <= $4 RETURNING `+destinationColumns, func(r *Row) error {
		d, ok = destinationRow(r), true
		return nil
	}, server, leaseMS, force, now)
	return d, ok, err
}

// SaveDestination stores what has changed and renews the lease, or gives it back if leaseMS is 0. ok is false if the
// lease was lost, and then nothing is stored.
func (tx *Tx) SaveDestination(d Destination, leaseMS int64) (ok bool, err error) {
	n, err := tx.Exec(`UPDATE destinations SET pdus = $3, device_lists = $4, to_device = $5, others = $6,
		goal_pdus = $7, goal_devices = $8, goal_messages = $9, goal_others = $10, catch_up = $11, batch = $12,
		fails = $13, failing_since = $14, retry_at = $15, failure = $16, last_success = $17,
		lease_until = CASE WHEN $18 = 0 THEN 0 ELSE {now} + $18 END
		WHERE server = $1 AND fence = $2`,
		d.Server, d.Fence, d.At.PDUs, d.At.DeviceLists, d.At.ToDevice, d.At.Others,
		d.Goal.PDUs, d.Goal.DeviceLists, d.Goal.ToDevice, d.Goal.Others, d.CatchUp, d.Batch,
		d.Fails, d.FailingSince, d.RetryAt, d.Failure, d.LastSuccess, leaseMS)
	return n == 1, err
}

// WaitingDestinations reads which destinations are due for another attempt at the time now (ms), and which were left
// by a worker that died.
func (tx *Tx) WaitingDestinations(now int64, limit int, each func(matrix.ServerName)) error {
	return tx.Query(`SELECT s.name FROM destinations d JOIN servers s ON s.nid = d.server
		WHERE d.lease_until = 0 AND d.retry_at <> 0 AND d.retry_at <= $1 OR d.lease_until <> 0 AND d.lease_until < {now}
		LIMIT $2`, func(r *Row) error {
		each(matrix.ServerName(r.Text(0)))
		return nil
	}, now, limit)
}

// ReviveDestination forgets a destination's failures, because it has shown to be alive. It reports whether there were
// any.
func (tx *Tx) ReviveDestination(server ServerNID) (bool, error) {
	n, err := tx.Exec(`UPDATE destinations SET fails = 0, failing_since = 0, retry_at = 0 WHERE server = $1 AND retry_at <> 0`, server)
	return n == 1, err
}

// SetAside is something that a destination would not take.
type SetAside struct {
	TS     int64 // ms
	Item   string
	Reason string
}

// AddSetAside notes something that a destination would not take, and forgets what is older than since.
func (tx *Tx) AddSetAside(server ServerNID, a SetAside, since int64) error {
	if _, err := tx.Exec(`DELETE FROM set_aside WHERE server = $1 AND ts < $2`, server, since); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO set_aside (server, ts, item, reason) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server, ts, item) DO NOTHING`, server, a.TS, a.Item, a.Reason)
	return err
}

// SetAsideItems reads what a destination would not take, newest first.
func (tx *Tx) SetAsideItems(server ServerNID, limit int, each func(SetAside)) error {
	return tx.Query(`SELECT ts, item, reason FROM set_aside WHERE server = $1 ORDER BY ts DESC LIMIT $2`, func(r *Row) error {
		each(SetAside{r.Int64(0), r.Text(1), r.Text(2)})
		return nil
	}, server, limit)
}

// InboundTxn reads what a transaction of another server was answered; found is false if it has not come before.
func (tx *Tx) InboundTxn(origin ServerNID, txn string) (answer []byte, found bool, err error) {
	err = tx.Query(`SELECT answer FROM inbound_txns WHERE origin = $1 AND txn_id = $2`, func(r *Row) error {
		answer, found = []byte(r.Text(0)), true
		return nil
	}, origin, txn)
	return answer, found, err
}

// AddInboundTxn notes a transaction and its answer. ok is false if it has been noted before.
func (tx *Tx) AddInboundTxn(origin ServerNID, txn string, answer []byte, ts int64) (ok bool, err error) {
	n, err := tx.Exec(`INSERT INTO inbound_txns (origin, txn_id, answer, ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (origin, txn_id) DO NOTHING`, origin, txn, string(answer), ts)
	return n == 1, err
}

// ForgetInboundTxns deletes transactions from before a time (ms), limit at most, and returns how many.
func (tx *Tx) ForgetInboundTxns(before int64, limit int) (int64, error) {
	return tx.Exec(`DELETE FROM inbound_txns WHERE (origin, txn_id) IN
		(SELECT origin, txn_id FROM inbound_txns WHERE ts < $1 ORDER BY ts LIMIT $2)`, before, limit)
}
