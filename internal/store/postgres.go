package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Keys of advisory locks: their two highest bits tell them apart. 01 are positions (schema/000_base.sql), 001 is the
// store's own; small numbers are free for the rows of this database, rooms for instance.
const (
	lockStore   = 1 << 61
	lockNode    = lockStore | 1 // held by the only node of a database
	lockMigrate = lockStore | 2
)

// oldestPostgres is the oldest version of PostgreSQL that is tested.
const oldestPostgres = 15

// pgEngine is PostgreSQL through a pool of connections.
type pgEngine struct {
	db   *DB
	pool *pgxpool.Pool
	node *nodeLock // nil in a cluster
}

// pgConn is a connection of the pool, inside a transaction or not.
type pgConn struct {
	c  *pgx.Conn
	tx *pgTx // nil for reads
}

// pgSettings are those of every connection that its URL does not set. The timeouts end a transaction whose client has
// stopped half-way; the positions it holds keep every reader waiting.
var pgSettings = map[string]string{
	"application_name":                    "conclave",
	"timezone":                            "UTC",
	"jit":                                 "off",
	"statement_timeout":                   "30s",
	"lock_timeout":                        "10s",
	"idle_in_transaction_session_timeout": "10s",

	// A plan is kept for as long as a connection lives, and one that was made while a table was nearly empty would go
	// through all of it ever after. Every statement of a running server is meant to be answered from an index; where none
	// serves, this setting changes nothing.
	"enable_seqscan": "off",
}

// openPostgres connects to a database and takes it for this process, unless it is one of a cluster.
func openPostgres(ctx context.Context, db *DB, o Options) (engine, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("the URL of the PostgreSQL database cannot be read") // the error could show its password
	}
	for name, value := range pgSettings {
		if o.AsIs && name == "enable_seqscan" { // whoever opens a database to inspect it reads all of it
			continue
		}
		if cfg.ConnConfig.RuntimeParams[name] == "" {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	cfg.MaxConns = int32(min(o.MaxConns, 1000))
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = int32(max(8, 4*runtime.NumCPU()))
	}
	cfg.MaxConnIdleTime = 10 * time.Minute
	cfg.AfterConnect = durable
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	e := &pgEngine{db: db, pool: pool}
	if err := e.check(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	if !o.Cluster {
		if e.node, err = takeNodeLock(ctx, db, cfg.ConnConfig, o.LockWait); err != nil {
			pool.Close()
			return nil, err
		}
	}
	return e, nil
}

// durable undoes a setting of the server or the database by which a commit could be lost (architecture, law 2).
func durable(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END`)
	return err
}

// check refuses a server that cannot be used.
func (e *pgEngine) check(ctx context.Context) error {
	return e.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		var version int
		var encoding string
		err := c.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_encoding_to_char(encoding)::text
			FROM pg_database WHERE datname = current_database()`).Scan(&version, &encoding)
		switch {
		case err != nil:
			return err
		case version/10000 < oldestPostgres:
			return fmt.Errorf("this is PostgreSQL %d; %d or newer is needed", version/10000, oldestPostgres)
		case encoding != "UTF8":
			return fmt.Errorf("its encoding is %s; a database with ENCODING 'UTF8' is needed", encoding)
		}
		return nil
	})
}

func (e *pgEngine) close() error {
	e.db.journal.disable()
	e.pool.Close()
	if e.node != nil {
		return e.node.close()
	}
	return nil
}

func (e *pgEngine) ping(ctx context.Context) error { return e.pool.Ping(ctx) }

// bound is one statement: see the function in schema/000_base.sql. If no position was given out meanwhile that is not
// within the bound, and this process alone writes to the database, the journal takes over from here. (A process before
// this one may have died between the two steps of next_positions; what it was given then it cannot use.)
func (e *pgEngine) bound(ctx context.Context) (pos Pos, err error) {
	number := func(c conn, text string) (n Pos, err error) {
		_, err = c.query(ctx, text, nil, func(r *Row) error {
			n = Pos(r.Int64(0))
			return r.err
		})
		return n, err
	}
	err = e.read(ctx, false, func(c conn) error {
		if pos, err = number(c, "SELECT stream_bound()"); err != nil || e.node == nil {
			return err
		}
		given, err := number(c, "SELECT last_value FROM stream")
		if err == nil && given == pos {
			e.db.journal.begin(pos)
		}
		return err
	})
	return pos, err
}

func (e *pgEngine) boundNow() (Pos, bool) { return e.db.journal.bound() }

func (e *pgEngine) given(ctx context.Context) (pos Pos, err error) {
	err = e.read(ctx, false, func(c conn) error {
		_, err := c.query(ctx, "SELECT last_value FROM stream", nil, func(r *Row) error {
			pos = Pos(r.Int64(0))
			return r.err
		})
		return err
	})
	return pos, err
}

func (e *pgEngine) read(ctx context.Context, snapshot bool, do func(conn) error) error {
	c, err := e.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	if !snapshot {
		return do(pgConn{c: c.Conn()})
	}
	if _, err := c.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return err
	}
	defer rollback(c.Conn())
	return do(pgConn{c: c.Conn()})
}

// rollback ends a transaction whatever became of it; a connection that cannot be saved is closed.
func rollback(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	if c.IsClosed() {
		return
	}
	if _, err := c.Exec(ctx, "ROLLBACK"); err != nil {
		_ = c.Close(ctx) // the server ends the transaction with it
	}
}

func (c pgConn) query(ctx context.Context, text string, args []any, each func(*Row) error) (int64, error) {
	rows, err := c.c.Query(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return readRows(rows, each)
}

// readRows calls each for the rows of a result and closes it.
func readRows(rows pgx.Rows, each func(*Row) error) (int64, error) {
	defer rows.Close()
	row := Row{}
	for rows.Next() {
		if each == nil {
			continue
		}
		if row.fields == nil {
			row.fields = rows.FieldDescriptions()
		}
		row.values = rows.RawValues()
		if err := each(&row); err != nil {
			return 0, err
		}
	}
	rows.Close()
	return rows.CommandTag().RowsAffected(), rows.Err()
}

func (c pgConn) insert(ctx context.Context, in *Insert, each func(*Row) error) (int64, error) {
	return c.query(ctx, in.postgresText(), in.arrays(), each)
}

const nextPositions = "SELECT next_positions($1::bigint)"

func (c pgConn) nextPos(ctx context.Context, n int) (first Pos, err error) {
	if c.tx == nil {
		return 0, errors.New("store: positions are only for transactions that write")
	}
	c.tx.take()
	defer func() {
		if err == nil {
			c.tx.took(first, n)
		}
	}()
	_, err = c.query(ctx, nextPositions, []any{int64(n)}, func(r *Row) error {
		first = Pos(r.Int64(0))
		return r.err
	})
	return first, err
}

// migrating holds a lock on one connection, on which the migrations are free of timeouts.
func (e *pgEngine) migrating(ctx context.Context, do func(ctx context.Context, m migrating) error) error {
	return e.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		m := pgMigrating{pgConn{c: c.Conn()}}
		// Nearly always there is nothing to do, and then nobody needs to wait.
		for _, text := range []string{
			"SET statement_timeout = 0", "SET lock_timeout = 0", fmt.Sprintf("SELECT pg_advisory_lock(%d)", lockMigrate),
		} {
			if _, err := c.Exec(ctx, text); err != nil {
				return err
			}
		}
		defer func() {
			_ = c.Conn().Close(context.WithoutCancel(ctx)) // and with it the lock and the settings
		}()
		return do(ctx, m)
	})
}

type pgMigrating struct{ pgConn }

func (m pgMigrating) hasTable(ctx context.Context, name string) (found bool, err error) {
	_, err = m.query(ctx, "SELECT to_regclass($1::text) IS NOT NULL", []any{name}, func(r *Row) error {
		found = r.Bool(0)
		return r.err
	})
	return found, err
}

func (m pgMigrating) script(ctx context.Context, text string) error {
	_, err := m.c.Exec(ctx, "BEGIN;\n"+text+"\nCOMMIT;") // without arguments: the simple protocol, any number of statements
	if err != nil {
		rollback(m.c)
	}
	return err
}

// IsDuplicate reports whether a statement failed because a row with that key exists.
func IsDuplicate(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "23505"
	}
	return isLiteDuplicate(err)
}

// retryable reports whether a transaction failed for no fault of its own: another try may succeed. Nothing of it is
// committed.
func retryable(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	return pg.Code == "40001" || pg.Code == "40P01" || strings.HasPrefix(pg.Code, "57P0")
}
