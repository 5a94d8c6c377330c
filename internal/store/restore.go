package store

import (
	"context"
	"crypto/rand"
	"fmt"
)

// generationLeap is how many positions a restore leaves out, before and again behind those that it uses: more than any
// server has given out since its backup, and so few that thousands of restores fit below 2^53.
const generationLeap Pos = 1 << 40

// Restoration is what Restored has done.
type Restoration struct {
	OneTimeKeys int64 // dropped
	Lists       int64 // device lists of other servers' users, to be fetched again
}

// Restored begins a new generation of a database that comes out of a backup (architecture, law 4). What was told to
// clients and servers after the backup is not known here any more, so nothing of it may be given out a second time:
// positions go on far beyond those that may have been used, every sync starts afresh, one-time keys count as claimed and
// fallback keys as used, other servers' device lists are fetched again, and other servers are told of a change of ours,
// whose place in the sequence makes them fetch these. The DB is to be closed afterwards; now is in ms.
func (db *DB) Restored(ctx context.Context, now int64) (done Restoration, err error) {
	generation := make([]byte, 8)
	_, _ = rand.Read(generation) // never fails
	err = db.Write(ctx, func(tx *Tx) (err error) {
		if _, err = tx.Exec(`UPDATE meta SET value = $1 WHERE name = 'generation'`, generation); err != nil {
			return err
		}
		first, err := tx.leap(2 * generationLeap) // what is told below needs positions that are new to everybody, too
		if err != nil {
			return err
		}
		if done.OneTimeKeys, err = tx.dropOneTimeKeys(now); err != nil {
			return err
		}
		if done.Lists, err = tx.Exec(`UPDATE remote_lists SET stale = TRUE, retry_at = 0, fails = 0`); err != nil {
			return err
		}
		return tx.tellListsAgain(first + generationLeap)
	})
	db.journal.disable() // which knows nothing of the leap
	if err != nil {
		return done, fmt.Errorf("beginning a new generation: %w", err)
	}
	return done, nil
}

// leap leaves out positions, and returns the first of them.
func (tx *Tx) leap(n Pos) (first Pos, err error) {
	if tx.db.dialect.postgres { // whose next_positions draws them one after the other
		_, err = tx.QueryRow(leapStream, n).Scan(&first)
		return first, err
	}
	_, err = tx.guard(nil, func(func(*Row) error) (int64, error) {
		first, err = tx.conn.nextPos(tx.ctx, int(n))
		return 0, err
	})
	return first, err
}

// dropOneTimeKeys makes all one-time keys count as claimed, so that an upload that is repeated does not bring them back,
// and fallback keys as used. It returns how many one-time keys there were.
func (tx *Tx) dropOneTimeKeys(now int64) (int64, error) {
	_, err := tx.Exec(`INSERT INTO claimed_keys (device, algorithm, key_id, ts) SELECT device, algorithm, key_id, $1 FROM one_time_keys WHERE TRUE
		ON CONFLICT DO NOTHING`, now)
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(`UPDATE fallback_keys SET used = TRUE`); err != nil {
		return 0, err
	}
	return tx.Exec(`DELETE FROM one_time_keys`)
}

// tellListsAgain notes a change of a device of every user with keys, and of the keys of every user with cross-signing
// keys, at positions from first on.
func (tx *Tx) tellListsAgain(first Pos) error {
	n, err := tx.Exec(`INSERT INTO device_list_changes (pos, member, what, device_id)
		SELECT $1 - 1 + row_number() OVER (ORDER BY d.member), d.member, $2, min(d.device_id)
		FROM device_keys k JOIN devices d ON d.nid = k.device GROUP BY d.member`, first, ListDevice)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO device_list_changes (pos, member, what)
		SELECT $1 - 1 + row_number() OVER (ORDER BY k.member), k.member, $2
		FROM cross_signing_keys k JOIN accounts a ON a.member = k.member WHERE k.usage = 1`, first+Pos(n), ListCrossKeys)
	return err
}
