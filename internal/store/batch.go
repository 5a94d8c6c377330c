package store

import (
	"context"
	"errors"
	"fmt"
)

// Batch is a list of statements that go to the database together, in order, and stop at the first that fails. Nothing
// happens before the function that fills it returns.
type Batch struct {
	db   *DB
	ops  []batchOp
	err  error
	last bool // the second part, whose rows nobody reads

	wrote Commit // what the journal is to hold of it
}

// batchOp is a statement, rows to insert, or positions to take.
type batchOp struct {
	text   string
	args   []any
	insert *Insert
	each   func(*Row) error
	pos    int
	got    func(first Pos)
}

var errRowsInSecond = errors.New("the second part of a Batch2 reads no rows: on PostgreSQL its commit is on the way with it")

func (b *Batch) add(op batchOp, err error) {
	if err == nil && b.last && (op.each != nil || op.pos > 0) {
		err = errRowsInSecond
	}
	if b.err == nil {
		b.err = err
	}
	b.ops = append(b.ops, op)
}

// Query adds a statement, for whose rows each is called. It belongs into the first part.
func (b *Batch) Query(sql string, each func(*Row) error, args ...any) {
	values, types, err := normalise(args)
	text := ""
	if err == nil {
		text, err = b.db.dialect.text(sql, types)
	}
	b.add(batchOp{text: text, args: values, each: each}, err)
}

// Exec adds a statement without rows.
func (b *Batch) Exec(sql string, args ...any) { b.Query(sql, nil, args...) }

// LockRooms takes the locks of rooms until the end of the transaction, without waiting, and calls got for each that it
// has: the others are being written to by another node. On SQLite nobody else can be.
func (b *Batch) LockRooms(rooms []int64, got func(room int64)) {
	b.Query(lockRooms[b.db.dialect.postgres], func(r *Row) error {
		if r.Bool(1) {
			got(r.Int64(0))
		}
		return nil
	}, rooms)
}

// Insert adds rows to be inserted; none is no statement.
func (b *Batch) Insert(in Insert) {
	if in.Rows > 0 {
		b.add(batchOp{insert: &in}, nil)
	}
}

// NextPos takes n consecutive positions, see Tx.NextPos, and calls got with the first. Only the first part can take them:
// put it behind whatever may wait for a lock.
func (b *Batch) NextPos(n int, got func(first Pos)) {
	var err error
	if n < 1 || n > maxPositions {
		err = fmt.Errorf("%d positions at once", n)
	}
	b.add(batchOp{pos: n, got: got}, err)
}

// Batch2 is a transaction in two parts, each of which is one round trip on PostgreSQL: first fills a batch whose rows are
// read; then second decides and fills the batch that writes, which is committed with it. On SQLite it shares its
// transaction with other writes, under a savepoint, as DB.Write does.
//
// If anything fails, or second returns an error, nothing is written; second's own error (ErrAgain, say) is returned as
// it is. Both may be called again, with new batches, if the database had to give up an attempt: what first's rows are
// read into must be reset in first. When Batch2 returns nil it is committed and durable. After a connection that broke
// while committing, Batch2 asks what became of the transaction; ErrUnknown means that it could not find out.
//
// As with Write, ctx counts only until the transaction begins.
func (db *DB) Batch2(ctx context.Context, first func(b *Batch), second func(b *Batch) error) error {
	return db.engine.batch2(ctx, first, second)
}

// fillSecond makes the second batch.
func (db *DB) fillSecond(second func(*Batch) error) (*Batch, error) {
	b := &Batch{db: db, last: true}
	if err := second(b); err != nil {
		return nil, err
	}
	return b, b.err
}

// fillFirst makes the first batch.
func (db *DB) fillFirst(first func(*Batch)) (*Batch, error) {
	b := &Batch{db: db}
	first(b)
	return b, b.err
}

// batch2 on SQLite runs both parts in the writer.
func (e *liteEngine) batch2(ctx context.Context, first func(*Batch), second func(*Batch) error) error {
	return e.writer.write(ctx, func(ctx context.Context, c conn) (outcome, error) {
		b, err := e.db.fillFirst(first)
		if err == nil {
			err = b.runAll(ctx, c)
		}
		if err != nil {
			return outcome{}, err
		}
		if b, err = e.db.fillSecond(second); err != nil {
			return outcome{}, err
		}
		return outcome{wrote: b.wrote}, b.runAll(ctx, c)
	})
}

// runAll runs the statements one after the other.
func (b *Batch) runAll(ctx context.Context, c conn) error {
	for i := range b.ops {
		if err := b.ops[i].run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (op *batchOp) run(ctx context.Context, c conn) error {
	each := op.each
	if each != nil {
		each = func(r *Row) error {
			if err := op.each(r); err != nil {
				return err
			}
			return r.err
		}
	}
	switch {
	case op.insert != nil:
		_, err := c.insert(ctx, op.insert, each)
		return err
	case op.pos > 0:
		first, err := c.nextPos(ctx, op.pos)
		if err == nil {
			op.got(first)
		}
		return err
	default:
		_, err := c.query(ctx, op.text, op.args, each)
		return err
	}
}
