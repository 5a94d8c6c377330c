package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxTries is how often a transaction is tried that the database has to give up.
const maxTries = 6

// errNotCommitted means that an attempt has left nothing behind.
var errNotCommitted = errors.New("the connection broke before the transaction was committed")

// try runs one attempt after another, as long as they fail without fault of their own and have left nothing.
func (e *pgEngine) try(ctx context.Context, once func(ctx context.Context, c *pgx.Conn) error) error {
	wait := 5 * time.Millisecond
	for n := 1; ; n++ {
		err := e.once(ctx, once)
		if err == nil || n == maxTries || !(retryable(err) || errors.Is(err, errNotCommitted)) {
			return err
		}
		e.db.log.Debug("transaction is tried again", "err", err, "try", n)
		if err := pause(ctx, wait+rand.N(wait)); err != nil {
			return err
		}
		wait *= 3
	}
}

// once gives an attempt a connection and, from there on, the database's own context.
func (e *pgEngine) once(ctx context.Context, do func(ctx context.Context, c *pgx.Conn) error) error {
	if e.node != nil && e.node.lost.Load() {
		return errors.New("store: another server may be using this database")
	}
	c, err := e.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	own, cancel := context.WithTimeout(e.db.ctx, writeTime)
	defer cancel()
	return do(own, c.Conn())
}

// Statements around every transaction. Its number is taken at the beginning: it is what one can ask for if the answer to
// the commit is lost.
const (
	pgBegin  = "BEGIN ISOLATION LEVEL READ COMMITTED"
	pgXID    = "SELECT pg_current_xact_id()::text"
	pgCommit = "COMMIT"
)

// pgTx is a transaction under way.
type pgTx struct {
	e    *pgEngine
	c    *pgx.Conn
	xid  string
	open bool

	taker *taker // of positions; nil if it takes none
}

// take must be called before positions are asked for, took with what was given.
func (t *pgTx) take() {
	if t.taker == nil {
		t.taker = t.e.db.journal.take()
	}
}

func (t *pgTx) took(first Pos, n int) { t.e.db.journal.took(t.taker, first, n) }

// done puts what is committed into the journal.
func (t *pgTx) done(c *Commit) {
	t.e.db.journal.end(t.taker, c)
	t.taker = nil
}

func (e *pgEngine) write(ctx context.Context, do attempt) error {
	var out outcome
	err := e.try(ctx, func(ctx context.Context, c *pgx.Conn) error {
		t := &pgTx{e: e, c: c}
		defer t.end()
		if err := t.send(ctx, t.begin(&pgx.Batch{})); err != nil {
			return t.broken(err)
		}
		var err error
		if out, err = do(ctx, pgConn{c, t}); err != nil {
			return t.broken(err)
		}
		b := &pgx.Batch{}
		b.Queue(pgCommit)
		return t.commit(ctx, b, &out.wrote)
	})
	if err != nil {
		return err
	}
	for _, f := range out.after {
		f()
	}
	return nil
}

// batch2 sends each part together with what begins or ends the transaction.
func (e *pgEngine) batch2(ctx context.Context, first func(*Batch), second func(*Batch) error) error {
	return e.try(ctx, func(ctx context.Context, c *pgx.Conn) error {
		t := &pgTx{e: e, c: c}
		defer t.end()
		part, err := e.db.fillFirst(first)
		if err != nil {
			return err
		}
		b := t.begin(&pgx.Batch{})
		part.queue(b, t)
		if err := t.send(ctx, b); err != nil {
			return t.broken(err)
		}
		if part, err = e.db.fillSecond(second); err != nil {
			return err
		}
		b = &pgx.Batch{}
		part.queue(b, t)
		b.Queue(pgCommit)
		return t.commit(ctx, b, &part.wrote)
	})
}

// queue adds the statements of a part.
func (b *Batch) queue(to *pgx.Batch, t *pgTx) {
	for i := range b.ops {
		op := &b.ops[i]
		each := op.each
		var q *pgx.QueuedQuery
		switch {
		case op.insert != nil:
			q = to.Queue(op.insert.postgresText(), op.insert.arrays()...)
		case op.pos > 0:
			t.take()
			q = to.Queue(nextPositions, int64(op.pos))
			each = func(r *Row) error {
				first := Pos(r.Int64(0))
				t.took(first, op.pos)
				op.got(first)
				return nil
			}
		default:
			q = to.Queue(op.text, op.args...)
		}
		if each != nil {
			collectRows(q, each)
		}
	}
}

// collectRows reads the rows of a queued statement.
func collectRows(q *pgx.QueuedQuery, each func(*Row) error) {
	q.Query(func(rows pgx.Rows) error {
		_, err := readRows(rows, func(r *Row) error {
			if err := each(r); err != nil {
				return err
			}
			return r.err
		})
		return err
	})
}

// begin puts the beginning of the transaction into a batch.
func (t *pgTx) begin(b *pgx.Batch) *pgx.Batch {
	b.Queue(pgBegin)
	collectRows(b.Queue(pgXID), func(r *Row) error {
		t.xid = r.Text(0)
		return nil
	})
	t.open = true
	return b
}

func (t *pgTx) send(ctx context.Context, b *pgx.Batch) error { return t.c.SendBatch(ctx, b).Close() }

// end rolls back what has not been committed; after a panic too.
func (t *pgTx) end() {
	if t.open {
		rollback(t.c)
	}
	t.done(nil)
}

// broken marks an error before the commit that came with the end of the connection: another try can do no harm.
func (t *pgTx) broken(err error) error {
	if t.c.IsClosed() {
		return fmt.Errorf("%w: %w", errNotCommitted, err)
	}
	return err
}

// commit sends a batch that ends with the commit. If its answer is lost, it asks what became of the transaction, which
// holds up those who follow the stream until that is known.
func (t *pgTx) commit(ctx context.Context, b *pgx.Batch, wrote *Commit) error {
	err := t.sendCommit(ctx, b)
	switch {
	case err == nil:
		t.done(wrote)
	case errors.Is(err, ErrUnknown):
		t.e.db.journal.disable()
	}
	return err
}

func (t *pgTx) sendCommit(ctx context.Context, b *pgx.Batch) error {
	n, committed := 0, false
	for _, q := range b.QueuedQueries {
		last := n == len(b.QueuedQueries)-1
		n++
		q.Fn = func(br pgx.BatchResults) error {
			tag, err := br.Exec()
			if err == nil && last {
				committed = tag.String() == pgCommit
			}
			return err
		}
	}
	err := t.send(ctx, b)
	switch {
	case committed: // whatever came after it
		t.open = false
		return nil
	case err == nil:
		t.open = false // the server says ROLLBACK to a COMMIT after an error
		return errNotCommitted
	case !t.c.IsClosed():
		return err // a statement failed, and the commit behind it was not run
	}
	t.open = false
	return t.ask(err)
}

// ask finds out, on another connection, what became of the transaction.
func (t *pgTx) ask(lost error) error {
	ctx, cancel := context.WithTimeout(t.e.db.ctx, askTime)
	defer cancel()
	for {
		var status *string
		err := t.e.pool.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", t.xid).Scan(&status)
		switch {
		case err != nil: // the server may be starting again
		case status == nil:
			return fmt.Errorf("%w: it is too long ago: %w", ErrUnknown, lost)
		case *status == "committed":
			return nil
		case *status == "aborted":
			return fmt.Errorf("%w: %w", errNotCommitted, lost)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%w: %w", ErrUnknown, lost)
		}
	}
}

// askTime is how long to ask for the fate of a transaction.
const askTime = 15 * time.Second
