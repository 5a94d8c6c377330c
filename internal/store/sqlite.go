package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// liteEngine is the embedded SQLite: one connection that writes, owned by one goroutine (sqlitewriter.go), and a pool of
// connections that read.
type liteEngine struct {
	db      *DB
	path    string
	lock    *sqlite.Conn
	writer  *liteWriter
	readers chan *liteConn // a place for each connection; nil is one that has not been opened
}

// liteConn is a connection to SQLite, used by one goroutine at a time.
type liteConn struct {
	c      *sqlite.Conn
	writer *liteWriter // nil for readers
}

// How connections are set up. Foreign keys are not used: rows refer to one another by numbers that nobody reuses.
const (
	liteShared = `PRAGMA busy_timeout = 5000; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF;`
	liteWrites = liteShared + `PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768;
		PRAGMA journal_size_limit = 67108864;`
	liteReads = liteShared + `PRAGMA query_only = ON; PRAGMA cache_size = -8192;`
)

// openSQLite opens the file of a URL like "sqlite:conclave.db" and takes it for this process.
func openSQLite(ctx context.Context, db *DB, o Options) (engine, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(o.URL, "sqlite:"), "//")
	if path == "" || strings.ContainsAny(path, "?#") || path == ":memory:" {
		return nil, errors.New("the URL of an SQLite database must be sqlite: and a file's name")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(o.DataDir, path)
	}
	e := &liteEngine{db: db, path: path}
	if err := e.open(ctx, o); err != nil {
		e.letGo()
		return nil, fmt.Errorf("SQLite file %s: %w", path, err)
	}
	return e, nil
}

func (e *liteEngine) open(ctx context.Context, o Options) error {
	// SQLite gives its other files the permissions of this one.
	flags := os.O_CREATE | os.O_RDWR
	if o.AsIs {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(e.path, flags, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := e.takeLock(ctx, o.LockWait); err != nil {
		return err
	}
	c, err := openLite(e.path, liteWrites)
	if err != nil {
		return err
	}
	e.writer = newLiteWriter(e.db, c)
	n := o.MaxConns
	if n <= 0 {
		n = max(4, 2*runtime.NumCPU())
	}
	e.readers = make(chan *liteConn, n)
	for range n {
		e.readers <- nil
	}
	return nil
}

// openLite opens a connection. The library waits for a busy database until it is interrupted; the pragma sets a time.
func openLite(path, setup string) (*sqlite.Conn, error) {
	name := (&url.URL{Scheme: "file", OmitHost: true, Path: path}).String()
	c, err := sqlite.OpenConn(name, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenURI)
	if err != nil {
		return nil, err
	}
	for pragma := range strings.SplitSeq(setup, ";") {
		if pragma = strings.TrimSpace(pragma); pragma == "" {
			continue
		}
		if err := sqlitex.ExecuteTransient(c, pragma, nil); err != nil {
			_ = c.Close() // the first error says why, and its code
			return nil, err
		}
	}
	return c, nil
}

// takeLock keeps other processes out: an exclusive transaction, for as long as this process lives, on a file beside the
// database. It is SQLite's own lock, so that it works wherever SQLite does and a dead process leaves none behind.
func (e *liteEngine) takeLock(ctx context.Context, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := e.tryLock()
		if err == nil || sqlite.ErrCode(err).ToPrimary() != sqlite.ResultBusy {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("another process is using it: a database of this kind is for one server at a time")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// tryLock asks for the lock once. Opening the file can meet it too.
func (e *liteEngine) tryLock() error {
	c, err := openLite(e.path+"-lock", "PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY")
	if err != nil {
		return err
	}
	if err := sqlitex.ExecuteTransient(c, "BEGIN EXCLUSIVE", nil); err != nil {
		_ = c.Close() // the first error says why
		return err
	}
	e.lock = c
	return nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *liteEngine) close() error {
	err := e.writer.close()
	for range cap(e.readers) {
		if r := <-e.readers; r != nil {
			err = errors.Join(err, r.c.Close())
		}
	}
	// The writer goes last: who closes the last connection folds the log into the database.
	return errors.Join(err, e.letGo())
}

// letGo closes what is left: the writer's connection and the lock.
func (e *liteEngine) letGo() error {
	var err error
	if e.writer != nil {
		err = e.writer.conn.c.Close()
	}
	if e.lock != nil {
		err = errors.Join(err, e.lock.Close())
	}
	return err
}

func (e *liteEngine) ping(ctx context.Context) error {
	return e.read(ctx, false, func(c conn) error {
		_, err := c.query(ctx, "SELECT 1", nil, nil)
		return err
	})
}

func (e *liteEngine) bound(context.Context) (Pos, error) { return Pos(e.writer.committed.Load()), nil }

func (e *liteEngine) boundNow() (Pos, bool) { return Pos(e.writer.committed.Load()), true }

func (e *liteEngine) given(ctx context.Context) (Pos, error) { return e.bound(ctx) }

func (e *liteEngine) read(ctx context.Context, snapshot bool, do func(conn) error) error {
	var r *liteConn
	select {
	case r = <-e.readers:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.db.ctx.Done():
		return ErrClosed
	}
	defer func() { e.readers <- r }()
	if r == nil {
		c, err := openLite(e.path, liteReads)
		if err != nil {
			return fmt.Errorf("another connection to SQLite: %w", err)
		}
		r = &liteConn{c: c}
	}
	if ctx.Done() != nil {
		r.c.SetInterrupt(ctx.Done())
	}
	defer r.c.SetInterrupt(nil)
	if !snapshot {
		return interrupted(ctx, do(r))
	}
	if err := r.run("BEGIN"); err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		r.c.SetInterrupt(nil)
		_ = r.run("ROLLBACK") // nothing was written; if it fails, the connection's next BEGIN says so
	}()
	return interrupted(ctx, do(r))
}

// interrupted names the reason of an error that came because ctx ended.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultInterrupt {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// run runs a statement without parameters or rows.
func (c *liteConn) run(text string) error {
	_, err := c.do(text, nil, nil)
	return err
}

// query takes no notice of ctx: it has been made the connection's interrupt.
func (c *liteConn) query(_ context.Context, text string, args []any, each func(*Row) error) (int64, error) {
	return c.do(text, args, each)
}

func (c *liteConn) do(text string, args []any, each func(*Row) error) (int64, error) {
	stmt, err := c.c.Prepare(text)
	if err != nil {
		return 0, err
	}
	if n := stmt.BindParamCount(); n != len(args) {
		return 0, fmt.Errorf("%d arguments for %d parameters in %q", len(args), n, text)
	}
	for i, arg := range args {
		bindLite(stmt, i+1, arg)
	}
	return c.step(stmt, each)
}

// step runs a statement whose parameters are bound, and makes it ready for the next time.
func (c *liteConn) step(stmt *sqlite.Stmt, each func(*Row) error) (n int64, err error) {
	defer func() {
		if again := stmt.Reset(); err == nil { // it repeats the error of a failed step
			err = again
		}
		_ = stmt.ClearBindings() // only lets go of memory: Prepare clears them too
	}()
	row := Row{lite: stmt}
	for {
		more, err := stmt.Step()
		if err != nil {
			return 0, err
		}
		if !more {
			return int64(c.c.Changes()), nil
		}
		if each != nil {
			if err := each(&row); err != nil {
				return 0, err
			}
		}
	}
}

func bindLite(stmt *sqlite.Stmt, i int, arg any) {
	switch v := arg.(type) {
	case nil:
		stmt.BindNull(i)
	case int64:
		stmt.BindInt64(i, v)
	case string:
		stmt.BindText(i, v)
	case []byte:
		stmt.BindBytes(i, v)
	case bool:
		stmt.BindBool(i, v)
	default:
		stmt.BindText(i, listJSON(v))
	}
}

func (c *liteConn) insert(_ context.Context, in *Insert, each func(*Row) error) (total int64, err error) {
	text := in.sqliteText()
	for row := range in.Rows {
		stmt, err := c.c.Prepare(text)
		if err != nil {
			return 0, err
		}
		for i := range in.Cols {
			in.Cols[i].bind(stmt, i+1, row)
		}
		n, err := c.step(stmt, each)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// bind binds the value of a row.
func (c *Col) bind(stmt *sqlite.Stmt, i, row int) {
	switch c.kind {
	case argInt:
		if v, valid := c.ints(row); valid {
			stmt.BindInt64(i, v)
			return
		}
	case argText:
		if v, valid := c.texts(row); valid {
			stmt.BindText(i, v)
			return
		}
	case argBytes:
		if v := c.blobs(row); v != nil {
			stmt.BindBytes(i, v)
			return
		}
	case argBool:
		stmt.BindBool(i, c.bools(row))
		return
	}
	stmt.BindNull(i)
}

func (c *liteConn) nextPos(_ context.Context, n int) (Pos, error) {
	if c.writer == nil {
		return 0, errors.New("a position outside a transaction that writes")
	}
	return c.writer.take(n), nil
}

func isLiteDuplicate(err error) bool {
	code := sqlite.ErrCode(err)
	return code == sqlite.ResultConstraintUnique || code == sqlite.ResultConstraintPrimaryKey || code == sqlite.ResultConstraintRowID
}
