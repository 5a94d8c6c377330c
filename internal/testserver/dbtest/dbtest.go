// Package dbtest gives a test its own databases, of both engines.
//
// Each runs a test on SQLite and on PostgreSQL. PostgreSQL is a private cluster without a network address: the one that
// CONCLAVE_TEST_POSTGRES names, or one that the first test of this machine starts and all others share, and that ends by
// itself when nobody has used it for a while. The command pgrun starts one for as long as another command runs. A
// machine without PostgreSQL fails the test.
//
// Unless CONCLAVE_TEST_FSYNC is set, the clusters do not wait for the disk (fsync=off) and stay in memory where there is
// room, which is good enough for every test but those that measure or cut the power. SQLite always waits.
package dbtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"conclave/internal/store"
)

// Env is the environment variable with the URL of a cluster; its user may create databases.
const Env = "CONCLAVE_TEST_POSTGRES"

// Engines are the names of the engines.
var Engines = []string{"sqlite", "postgres"}

// Each runs a test as a subtest for each engine, on a new database. The engines run at the same time, since one waits
// for its disk or its server where the other has work; Each returns when both have ended.
func Each(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	var all sync.WaitGroup
	for _, engine := range Engines {
		all.Go(func() { t.Run(engine, func(t *testing.T) { test(t, Open(t, engine)) }) })
	}
	all.Wait()
}

// EachInTurn is Each with one engine after the other, for tests that measure the time or the memory of the process.
func EachInTurn(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	for _, engine := range Engines {
		t.Run(engine, func(t *testing.T) { test(t, Open(t, engine)) })
	}
}

// Open opens a new database of an engine, until the end of the test.
func Open(t testing.TB, engine string) *store.DB {
	t.Helper()
	url := URL(t, engine)
	if file, ok := strings.CutPrefix(url, "sqlite:"); ok {
		data, err := sqliteTemplate()
		if err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return OpenURL(t, url)
}

// OpenURL opens a database, until the end of the test.
func OpenURL(t testing.TB, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return db
}

// URL is that of a new database of an engine, with the schema and nothing else, for store.Open. It is removed at the end
// of the test.
func URL(t testing.TB, engine string) string {
	t.Helper()
	if engine == "sqlite" {
		return "sqlite:" + filepath.Join(t.TempDir(), "conclave.db") // which makes its schema when it is opened
	}
	return createDatabase(t, ` TEMPLATE `+template(t))
}

// sqliteTemplate is the file of a SQLite database with the schema and nothing else, made once in this process: copying it
// is several times faster than migrating. Each copy draws its own generation and secrets.
var sqliteTemplate = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "conclave-template-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system removes it if this fails
	path := filepath.Join(dir, "conclave.db")
	if err := migrated(context.Background(), "sqlite:"+path); err != nil {
		return nil, err
	}
	return os.ReadFile(path) //nolint:gosec // just made
})

// migrated makes the schema in an empty database, which then forgets that it was opened.
func migrated(ctx context.Context, url string) error {
	db, err := store.Open(ctx, store.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	err = db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM meta`)
		return err
	})
	return errors.Join(err, db.Close()) // who closes a SQLite database last writes its log into it
}

// EmptyURL is that of a new database without a schema.
func EmptyURL(t testing.TB, engine string) string {
	t.Helper()
	if engine == "sqlite" {
		return URL(t, engine)
	}
	return createDatabase(t, " TEMPLATE template0 ENCODING 'UTF8'")
}

// createDatabase makes a database of the cluster for a test.
func createDatabase(t testing.TB, how string) string {
	t.Helper()
	cluster := clusterURL(t)
	var random [8]byte
	_, _ = rand.Read(random[:])
	name := "test_" + hex.EncodeToString(random[:])
	admin(t, cluster, "CREATE DATABASE "+name+how)
	t.Cleanup(func() { admin(t, cluster, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return withDatabase(t, cluster, name)
}

// withDatabase is a cluster's URL for one of its databases.
func withDatabase(t testing.TB, cluster, name string) string {
	t.Helper()
	u, err := url.Parse(cluster)
	if err != nil {
		t.Fatalf("%s: %v", Env, err)
	}
	u.Path = "/" + name
	return u.String()
}

// admin runs a statement on the cluster.
func admin(t testing.TB, cluster, sql string) {
	t.Helper()
	ctx := context.Background() // also in a cleanup, when the test's own has ended
	c, err := pgx.Connect(ctx, cluster)
	if err != nil {
		t.Fatalf("connecting to the PostgreSQL of the tests: %v", err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// made remembers the clusters of this process that have the template.
var made sync.Map

// templateLock is the advisory lock under which the template is made: several packages are tested at once.
const templateLock = 7271

// template makes a database with the schema, once per cluster and schema, and returns its name. Copying it is several
// times faster than migrating.
func template(t testing.TB) string {
	t.Helper()
	cluster := clusterURL(t)
	name := "template_" + store.SchemaHash()
	once, _ := made.LoadOrStore(cluster+name, &sync.Mutex{})
	mu := once.(*sync.Mutex)
	mu.Lock()
	defer mu.Unlock()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, cluster)
	if err != nil {
		t.Fatalf("connecting to the PostgreSQL of the tests: %v", err)
	}
	defer func() { _ = c.Close(ctx) }()
	if _, err := c.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		t.Fatal(err)
	}
	var ready bool
	// A database under its own name is complete: it is renamed last.
	if err := c.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", name).Scan(&ready); err != nil {
		t.Fatal(err)
	}
	if !ready {
		draft := name + "_draft"
		admin(t, cluster, "DROP DATABASE IF EXISTS "+draft+" WITH (FORCE)")
		admin(t, cluster, "CREATE DATABASE "+draft+" TEMPLATE template0 ENCODING 'UTF8'")
		if err := migrated(ctx, withDatabase(t, cluster, draft)); err != nil {
			t.Fatal(err)
		}
		admin(t, cluster, "ALTER DATABASE "+draft+" RENAME TO "+name)
	}
	return name
}
