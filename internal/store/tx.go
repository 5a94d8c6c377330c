package store

import (
	"context"
	"errors"
	"fmt"
)

// Tx runs statements, one at a time, inside DB.Read, DB.Snapshot or DB.Write. It belongs to one goroutine and ends with
// the function it was given to.
type Tx struct {
	db      *DB
	ctx     context.Context
	conn    conn
	writes  bool
	busy    bool     // a statement's rows are being read
	ended   bool     // the function has returned
	failed  error    // the first statement that failed: PostgreSQL lets nothing follow it, so SQLite does not either
	last    Pos      // of those that the transaction took
	changes []Change // that it added
	after   []func()
}

var (
	errNested = errors.New("a statement while the rows of another are being read")
	errEnded  = errors.New("a statement after the end of its transaction")
)

func (tx *Tx) end() { tx.ended = true }

// Context is what the statements run under: the caller's for a Read, the database's own for a Write.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Query runs a statement and calls each for every row, in which no other statement can be run. An error of each ends the
// statement and is returned as it is.
func (tx *Tx) Query(sql string, each func(*Row) error, args ...any) error {
	_, err := tx.run(sql, each, args)
	return err
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(sql string, args ...any) (int64, error) { return tx.run(sql, nil, args) }

// QueryRow prepares a statement of which at most one row is wanted; Found.Scan runs it.
func (tx *Tx) QueryRow(sql string, args ...any) Found { return Found{tx, sql, args} }

// Found is the answer to a QueryRow.
type Found struct {
	tx   *Tx
	sql  string
	args []any
}

// Scan runs the statement and reads its first row, see Row.Scan. It reports whether there is one.
func (f Found) Scan(dest ...any) (found bool, err error) {
	err = f.tx.Query(f.sql, func(r *Row) error {
		if found {
			return nil
		}
		found = true
		return r.Scan(dest...)
	}, f.args...)
	return found, err
}

func (tx *Tx) run(sql string, each func(*Row) error, args []any) (int64, error) {
	values, types, err := normalise(args)
	if err != nil {
		return 0, fmt.Errorf("%w in %q", err, sql)
	}
	text, err := tx.db.dialect.text(sql, types)
	if err != nil {
		return 0, err
	}
	return tx.guard(each, func(each func(*Row) error) (int64, error) {
		return tx.conn.query(tx.ctx, text, values, each)
	})
}

// guard keeps the rules that both engines share around one statement.
func (tx *Tx) guard(each func(*Row) error, run func(func(*Row) error) (int64, error)) (int64, error) {
	switch {
	case tx.ended:
		return 0, errEnded
	case tx.busy:
		return 0, errNested
	case tx.failed != nil:
		return 0, fmt.Errorf("an earlier statement failed: %w", tx.failed)
	}
	var own error // an error of each does not break the transaction
	watched := each
	if each != nil {
		watched = func(r *Row) error {
			own = each(r)
			if own == nil {
				own = r.err
			}
			return own
		}
	}
	tx.busy = true
	tx.db.statements.Add(1)
	defer func() { tx.busy = false }()
	n, err := run(watched)
	if own != nil {
		return n, own
	}
	if err != nil && tx.writes {
		tx.failed = err
	}
	return n, err
}

// AfterCommit registers a function that runs once the transaction is committed, in the order of registration and, on one
// node with SQLite, of commits. It should be quick: others wait behind it.
func (tx *Tx) AfterCommit(do func()) { tx.after = append(tx.after, do) }

// NextPos takes n consecutive positions for persisted changes and returns the first (architecture, law 4). What is not
// used leaves a gap. From here on the transaction should be short: readers on PostgreSQL see no later position before it
// ends.
func (tx *Tx) NextPos(n int) (first Pos, err error) {
	if n < 1 || n > maxPositions {
		return 0, fmt.Errorf("%d positions at once", n)
	}
	_, err = tx.guard(nil, func(func(*Row) error) (int64, error) {
		first, err = tx.conn.nextPos(tx.ctx, n)
		return 0, err
	})
	if err == nil {
		tx.last = first + Pos(n) - 1
	}
	return first, err
}

// maxPositions bounds what one transaction can take.
const maxPositions = 100_000
