package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// maxGroup is how many transactions share one commit.
const maxGroup = 64

// liteWriter carries every write: its goroutine takes all that wait into one transaction, each under a savepoint, so that
// they share one fsync (architecture, law 3).
type liteWriter struct {
	db   *DB
	conn *liteConn

	queue   chan *liteItem
	mu      sync.RWMutex // held for reading while an item is put into the queue
	closed  bool
	ended   chan struct{}
	settled chan []*liteItem // committed or failed, on their way to their callers

	last      int64        // the last position given out; only the writer's goroutine
	taker     *taker       // of the item that runs, once it has taken positions
	dirty     bool         // last has moved since it was stored
	committed atomic.Int64 // the last position of what is committed
}

// liteItem is a write on its way. Only its caller may take it back, and only while it waits.
type liteItem struct {
	do    attempt
	state atomic.Int32
	done  chan struct{}

	out      outcome
	taker    *taker // of the positions that it took; nil for none
	err      error
	panicked any
}

const (
	itemWaits = iota
	itemRuns
	itemTakenBack
)

func newLiteWriter(db *DB, c *sqlite.Conn) *liteWriter {
	w := &liteWriter{
		db: db, queue: make(chan *liteItem, 4*maxGroup), ended: make(chan struct{}), settled: make(chan []*liteItem, 16),
	}
	w.conn = &liteConn{c: c, writer: w}
	go w.work()
	go w.settle()
	return w
}

// close ends the writer once everything in its queue is done.
func (w *liteWriter) close() error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.ended
	return nil
}

func (e *liteEngine) write(ctx context.Context, do attempt) error { return e.writer.write(ctx, do) }

// write hands an item to the writer and waits for its commit.
func (w *liteWriter) write(ctx context.Context, do attempt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	it := &liteItem{do: do, done: make(chan struct{})}
	if err := w.put(ctx, it); err != nil {
		return err
	}
	select {
	case <-it.done:
	case <-ctx.Done():
		if it.state.CompareAndSwap(itemWaits, itemTakenBack) {
			return ctx.Err()
		}
		<-it.done
	}
	if it.panicked != nil {
		panic(it.panicked) // on the goroutine of the caller, whose it is
	}
	return it.err
}

func (w *liteWriter) put(ctx context.Context, it *liteItem) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return ErrClosed
	}
	select {
	case w.queue <- it:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work is the writer's goroutine.
func (w *liteWriter) work() {
	defer close(w.settled)
	for first := range w.queue {
		group := w.gather(first)
		if len(group) == 0 {
			continue
		}
		began, err := w.transaction(group)
		if began && err != nil && len(group) > 1 {
			w.db.log.Warn("shared commit failed, trying one by one", "err", err, "items", len(group))
			for i := range group {
				_, err := w.transaction(group[i : i+1])
				group[i].fail(err)
			}
			err = nil
		}
		for _, it := range group {
			it.fail(err)
		}
		w.settled <- group
	}
}

// settle runs what was registered for after the commit, in the order of commits, and wakes the callers.
func (w *liteWriter) settle() {
	defer close(w.ended)
	for group := range w.settled {
		for _, it := range group {
			if it.err == nil && it.panicked == nil {
				it.panicked = runAll(it.out.after)
			}
			close(it.done)
		}
	}
}

// runAll calls functions and returns the value of a panic.
func runAll(list []func()) (panicked any) {
	defer func() { panicked = describePanic(recover()) }()
	for _, do := range list {
		do()
	}
	return nil
}

// describePanic keeps where a panic came from, which the goroutine it is carried to does not show.
func describePanic(v any) any {
	if v == nil {
		return nil
	}
	return fmt.Sprintf("%v\n%s", v, debug.Stack())
}

// gather takes what waits behind first.
func (w *liteWriter) gather(first *liteItem) []*liteItem {
	group := make([]*liteItem, 0, maxGroup)
	for it := first; ; {
		if it.state.CompareAndSwap(itemWaits, itemRuns) {
			group = append(group, it)
		}
		if len(group) == maxGroup {
			return group
		}
		var ok bool
		select {
		case it, ok = <-w.queue:
			if !ok {
				return group
			}
		default:
			return group
		}
	}
}

// fail notes an error of the whole transaction.
func (it *liteItem) fail(err error) {
	if err != nil && it.err == nil {
		it.err = err
	}
}

// errUndone means that SQLite has given up the whole transaction, which it does when the disk is full, say.
var errUndone = errors.New("SQLite has rolled the transaction back")

// transaction runs items and commits them. An item that fails by itself takes none of the others with it. began tells
// whether it is worth while to try them one by one.
func (w *liteWriter) transaction(group []*liteItem) (began bool, err error) {
	ctx, cancel := context.WithTimeout(w.db.ctx, writeTime)
	defer cancel()
	// A long statement is interrupted when the time is over. The channel belongs to this transaction only.
	w.conn.c.SetInterrupt(ctx.Done())
	defer w.conn.c.SetInterrupt(nil)
	if err := w.conn.run("BEGIN IMMEDIATE"); err != nil {
		return false, err
	}
	run := w.savepoint
	if len(group) == 1 { // its failure takes none with it, and a savepoint copies every page that is written
		run = w.runItem
	}
	good := 0
	for _, it := range group {
		if err := run(ctx, it); err != nil {
			return true, errors.Join(err, w.rollback())
		}
		if it.err == nil && it.panicked == nil {
			good++
		}
	}
	if good == 0 {
		return true, w.rollback()
	}
	if err := w.commit(); err != nil {
		return true, errors.Join(err, w.rollback())
	}
	for _, it := range group {
		if it.err == nil && it.panicked == nil {
			w.db.journal.end(it.taker, &it.out.wrote)
		}
	}
	w.committed.Store(w.last)
	return true, nil
}

// savepoint runs one item. The error is not the item's own: it ends the transaction.
func (w *liteWriter) savepoint(ctx context.Context, it *liteItem) error {
	if err := w.conn.run("SAVEPOINT item"); err != nil {
		return err
	}
	if err := w.runItem(ctx, it); err != nil {
		return err
	}
	if it.err != nil || it.panicked != nil {
		w.conn.c.SetInterrupt(nil) // it may have failed because the time is over
		if err := w.conn.run("ROLLBACK TO item"); err != nil {
			return err
		}
		w.conn.c.SetInterrupt(ctx.Done())
	}
	return w.conn.run("RELEASE item")
}

// runItem runs an item: by itself the only one of a transaction, which is rolled back if it fails.
func (w *liteWriter) runItem(ctx context.Context, it *liteItem) error {
	it.out, it.taker, it.err, it.panicked = outcome{}, nil, nil, nil
	w.contain(ctx, it)
	it.taker, w.taker = w.taker, nil
	if w.conn.c.AutocommitEnabled() {
		return errors.Join(errUndone, it.err)
	}
	return nil
}

// contain runs an item and keeps its panic for its caller.
func (w *liteWriter) contain(ctx context.Context, it *liteItem) {
	defer func() {
		if v := recover(); v != nil {
			it.panicked = describePanic(v)
		}
	}()
	it.out, it.err = it.do(ctx, w.conn)
	it.err = interrupted(ctx, it.err)
}

// commit stores the last position with what was written at it, and makes all of it durable.
func (w *liteWriter) commit() error {
	if w.dirty {
		if _, err := w.conn.do("UPDATE stream SET last = ?1", []any{w.last}, nil); err != nil {
			return err
		}
	}
	if err := w.conn.run("COMMIT"); err != nil {
		return err
	}
	w.dirty = false
	return nil
}

func (w *liteWriter) rollback() error {
	w.conn.c.SetInterrupt(nil)
	if w.conn.c.AutocommitEnabled() {
		return nil
	}
	return w.conn.run("ROLLBACK")
}

// take gives out positions. What a failed transaction took is not given out again.
func (w *liteWriter) take(n int) Pos {
	first := w.last + 1
	w.last += int64(n)
	w.dirty = true
	if w.taker == nil {
		w.taker = &taker{}
	}
	w.taker.was(Pos(first), n)
	return Pos(first)
}

// liteMigrating is the writer's connection during a migration.
type liteMigrating struct{ *liteConn }

// migrating runs on the writer's goroutine, but outside its transactions: each migration is one of its own.
func (e *liteEngine) migrating(ctx context.Context, do func(ctx context.Context, m migrating) error) error {
	w := e.writer
	if err := do(ctx, liteMigrating{w.conn}); err != nil {
		return err
	}
	_, err := w.conn.query(ctx, "SELECT last FROM stream", nil, func(r *Row) error {
		w.last = r.Int64(0)
		w.committed.Store(w.last)
		w.db.journal.begin(Pos(w.last))
		return r.err
	})
	return err
}

func (m liteMigrating) hasTable(ctx context.Context, name string) (found bool, err error) {
	_, err = m.query(ctx, "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1", []any{name}, func(*Row) error {
		found = true
		return nil
	})
	return found, err
}

func (m liteMigrating) script(_ context.Context, text string) error {
	return sqlitex.ExecuteScript(m.c, text, nil)
}
