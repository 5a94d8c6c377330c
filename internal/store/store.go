package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say which database to open and how.
type Options struct {
	URL     string // "sqlite:conclave.db", relative to DataDir, or "postgres://…"
	DataDir string

	// MaxConns bounds the connections of the pool, for SQLite of readers. 0 is a default that suits the machine.
	MaxConns int

	// Cluster lets several nodes share a PostgreSQL database, which needs Redis between them. Otherwise a second node
	// is refused.
	Cluster bool

	// AsIs opens only a database that is there and has the present schema: nothing is created or migrated.
	AsIs bool

	// LockWait is how long to wait for another process to let go of the database; a server that was just restarted may
	// find the old one dying. 0 is 5 seconds.
	LockWait time.Duration

	Logger *slog.Logger // nil is slog.Default()
}

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	engine  engine
	dialect *dialect
	log     *slog.Logger

	// ctx is what transactions run under once they have begun: requests come and go.
	ctx  context.Context
	stop context.CancelFunc

	generation string
	bounds     bounds
	journal    journal
	written    atomic.Int64
	statements atomic.Int64
	erasures   atomic.Uint64 // how often somebody's content was erased by this process
	numbers    numbers
	appends    chan *Append // to the appender

	closing sync.Once

	secretsMu sync.Mutex
	secrets   map[string][]byte
}

// engine is what the two engines have in common: the whole seam, together with conn.
type engine interface {
	read(ctx context.Context, snapshot bool, do func(conn) error) error
	// write runs do in a transaction, perhaps repeatedly, and then the functions that its last run returned.
	write(ctx context.Context, do attempt) error
	batch2(ctx context.Context, first func(*Batch), second func(*Batch) error) error
	// bound is the position up to which everything is committed; boundNow is the same without asking the database, if
	// that is possible.
	bound(ctx context.Context) (Pos, error)
	boundNow() (Pos, bool)
	// given is the last position that was given to a writer of any process.
	given(ctx context.Context) (Pos, error)
	// migrating runs do while no other process migrates.
	migrating(ctx context.Context, do func(ctx context.Context, m migrating) error) error
	ping(ctx context.Context) error
	close() error
}

// attempt is one run of a transaction.
type attempt func(ctx context.Context, c conn) (outcome, error)

// outcome is what is to be done once a transaction is committed: first its rows enter the journal, if it took positions,
// then the functions are called.
type outcome struct {
	wrote Commit
	after []func()
}

// conn is a connection that runs one statement at a time. Its texts are expanded and its arguments normalised.
type conn interface {
	query(ctx context.Context, text string, args []any, each func(*Row) error) (affected int64, err error)
	insert(ctx context.Context, in *Insert, each func(*Row) error) (affected int64, err error)
	nextPos(ctx context.Context, n int) (Pos, error)
}

// Errors of the store.
var (
	// ErrAgain is for the second part of a Batch2: nothing is written, and Batch2 returns it.
	ErrAgain = errors.New("store: prepare again")

	// ErrUnknown means that the connection was lost while committing and that nobody could be asked in time whether
	// the transaction is committed.
	ErrUnknown = errors.New("store: it is not known whether the transaction was committed")

	// ErrClosed means that the database is being closed.
	ErrClosed = errors.New("store: closed")
)

// Open opens a database, creating or migrating it where needed, and takes it for this process.
func Open(ctx context.Context, o Options) (*DB, error) { return open(ctx, o, schema) }

// open is Open for a list of migrations.
func open(ctx context.Context, o Options, files fs.FS) (*DB, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.LockWait == 0 {
		o.LockWait = 5 * time.Second
	}
	db := &DB{log: o.Logger, secrets: map[string][]byte{}, appends: make(chan *Append)}
	db.ctx, db.stop = context.WithCancel(context.Background())
	var err error
	switch {
	case strings.HasPrefix(o.URL, "sqlite:"):
		db.dialect = &dialect{}
		db.engine, err = openSQLite(ctx, db, o)
	case strings.HasPrefix(o.URL, "postgres://"), strings.HasPrefix(o.URL, "postgresql://"):
		db.dialect = &dialect{postgres: true}
		db.engine, err = openPostgres(ctx, db, o)
	default:
		err = errors.New("its URL begins neither with sqlite: nor with postgres://")
	}
	if err != nil {
		db.stop()
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if err := db.prepare(ctx, files, o.AsIs); err != nil {
		_ = db.Close() // the first error says why
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	go db.appender()
	return db, nil
}

// prepare brings the schema up to date, or finds it so, and reads what is kept in memory.
func (db *DB) prepare(ctx context.Context, files fs.FS, asIs bool) error {
	if err := db.migrate(ctx, files, asIs); err != nil {
		return err
	}
	if err := db.readMeta(ctx); err != nil {
		return err
	}
	if _, err := db.StreamBound(ctx); err != nil {
		return err
	}
	return nil
}

// Close waits for what is under way, for some seconds at most, and lets go of the database. Closing again does nothing.
func (db *DB) Close() (err error) {
	db.closing.Do(func() { err = db.close() })
	return err
}

func (db *DB) close() error {
	late := time.AfterFunc(closeTime, db.stop)
	defer late.Stop()
	db.numbers.close()
	err := db.engine.close()
	db.stop()
	return err
}

// closeTime is how long Close waits for transactions before it interrupts them.
const closeTime = 10 * time.Second

// Ping asks the database for a sign of life.
func (db *DB) Ping(ctx context.Context) error { return db.engine.ping(ctx) }

// IsPostgres reports whether the database is PostgreSQL; for people and measurements, never to choose SQL.
func (db *DB) IsPostgres() bool { return db.dialect.postgres }

// Statements is how many statements transactions have run so far, each for itself; for tests and measurements.
func (db *DB) Statements() int64 { return db.statements.Load() }

// Read runs do with one connection. Each statement sees what was committed when it began; use Snapshot where several
// must agree. It ends with ctx. do must not call the DB's own methods: it would wait for a second connection while it
// holds one.
func (db *DB) Read(ctx context.Context, do func(tx *Tx) error) error {
	return db.read(ctx, false, do)
}

// Snapshot is Read with one consistent view of the database, taken at the first statement.
func (db *DB) Snapshot(ctx context.Context, do func(tx *Tx) error) error {
	return db.read(ctx, true, do)
}

func (db *DB) read(ctx context.Context, snapshot bool, do func(tx *Tx) error) error {
	return db.engine.read(ctx, snapshot, func(c conn) error {
		tx := &Tx{db: db, ctx: ctx, conn: c}
		defer tx.end()
		return do(tx)
	})
}

// Write runs do in a transaction, and returns once it is durable. do may be run again, if the database had to give up an
// attempt, so it must set what it changes outside rather than add to it; effects belong into Tx.AfterCommit. If do
// fails, or any statement in it, nothing is written.
//
// ctx counts until do begins; from then on it runs under the database's own context, for some seconds at most. do must
// not call the DB's own methods: on SQLite it would wait for itself.
func (db *DB) Write(ctx context.Context, do func(tx *Tx) error) error {
	return db.engine.write(ctx, func(ctx context.Context, c conn) (outcome, error) {
		tx := &Tx{db: db, ctx: ctx, conn: c, writes: true}
		defer tx.end()
		err := do(tx)
		if err == nil {
			err = tx.failed
		}
		out := outcome{wrote: Commit{Changes: tx.changes}, after: tx.after}
		if tx.last != 0 {
			out.after = append([]func(){func() { db.wrote(tx.last) }}, tx.after...)
		}
		return out, err
	})
}

// Times that bound the work of one call.
const (
	writeTime = 30 * time.Second // a transaction that writes: others may be waiting for its positions (architecture, law 4)
	readTime  = 10 * time.Second // a question of the store's own
)
