package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// schema are the migrations, in the order of their names. They are only ever added: a database remembers the hash of
// each that it has been through.
//
//go:embed schema/*.sql
var schema embed.FS

// migration is a file of the schema.
type migration struct {
	name string
	sql  string
	hash []byte
}

// migrationsIn reads the migrations of a folder "schema", in their order.
func migrationsIn(files fs.FS) ([]migration, error) {
	entries, err := fs.ReadDir(files, "schema")
	if err != nil {
		return nil, err
	}
	list := make([]migration, 0, len(entries))
	for _, e := range entries {
		text, err := fs.ReadFile(files, "schema/"+e.Name())
		if err != nil {
			return nil, err
		}
		hash := sha256.Sum256(text)
		list = append(list, migration{strings.TrimSuffix(e.Name(), ".sql"), string(text), hash[:]})
	}
	return list, nil
}

// SchemaHash names the schema of this program: two with the same hash make the same tables.
func SchemaHash() string {
	list, err := migrationsIn(schema)
	if err != nil {
		return "unreadable" // embedded files can be read
	}
	sum := sha256.New()
	for _, m := range list {
		sum.Write([]byte(m.name))
		sum.Write(m.hash)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// migrating is the connection of a migration.
type migrating interface {
	conn
	hasTable(ctx context.Context, name string) (bool, error)
	// script runs several statements in one transaction.
	script(ctx context.Context, text string) error
}

// migrate brings the database to the newest schema, a transaction for each migration, and refuses one that is newer or
// of another history. With asIs it changes nothing, and refuses an older one too.
func (db *DB) migrate(ctx context.Context, files fs.FS, asIs bool) error {
	list, err := migrationsIn(files)
	if err != nil {
		return err
	}
	return db.engine.migrating(ctx, func(ctx context.Context, m migrating) error {
		done, err := db.applied(ctx, m, list)
		if err != nil {
			return err
		}
		if asIs && done < len(list) {
			return fmt.Errorf("it lacks migration %s: start the server once, which migrates it", list[done].name)
		}
		for _, step := range list[done:] {
			if err := db.apply(ctx, m, step); err != nil {
				return fmt.Errorf("migration %s: %w", step.name, err)
			}
			db.log.Info("database migrated", "migration", step.name)
		}
		return nil
	})
}

// applied compares what the database has been through with the list, and returns how much of it that is.
func (db *DB) applied(ctx context.Context, m migrating, list []migration) (done int, err error) {
	exists, err := m.hasTable(ctx, "migrations")
	if err != nil || !exists {
		return 0, err
	}
	_, err = m.query(ctx, `SELECT name, hash FROM migrations ORDER BY name`, nil, func(r *Row) error {
		name := r.Text(0)
		switch {
		case done == len(list) || list[done].name > name:
			return fmt.Errorf("it was made by a newer version of Conclave: it has migration %s", name)
		case list[done].name < name:
			return fmt.Errorf("it was made by another version of Conclave: it lacks migration %s", list[done].name)
		case !bytes.Equal(list[done].hash, r.Bytes(1)):
			return fmt.Errorf("it was made by another version of Conclave: migration %s is not the same", name)
		}
		done++
		return nil
	})
	return done, err
}

func (db *DB) apply(ctx context.Context, m migrating, step migration) error {
	text, err := db.dialect.expand(step.sql, signature{}, false)
	if err != nil {
		return err
	}
	record := fmt.Sprintf("INSERT INTO migrations (name, hash, applied) VALUES ('%s', {postgres:'\\x%x'}{sqlite:x'%x'}, %d)",
		step.name, step.hash, step.hash, time.Now().UnixMilli())
	record, err = db.dialect.expand(record, signature{}, false)
	if err != nil {
		return err
	}
	return m.script(ctx, text+";\n"+record+";\n")
}

// readMeta draws what a new database needs and reads it.
func (db *DB) readMeta(ctx context.Context) error {
	generation, err := db.meta(ctx, "generation", 8)
	db.generation = hex.EncodeToString(generation)
	return err
}

// meta reads a random value of the database, drawn at its first use.
func (db *DB) meta(ctx context.Context, name string, size int) (value []byte, err error) {
	find := func(tx *Tx) error {
		_, err := tx.QueryRow(`SELECT value FROM meta WHERE name = $1`, name).Scan(&value)
		return err
	}
	if err := db.Read(ctx, find); err != nil || value != nil {
		return value, err
	}
	fresh := make([]byte, size)
	_, _ = rand.Read(fresh) // never fails
	err = db.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, fresh); err != nil {
			return err
		}
		return find(tx)
	})
	return value, err
}

// Generation names this database's history. It is drawn at creation and again after a restore from a backup: a position
// of another generation means nothing here.
func (db *DB) Generation() string { return db.generation }

// Secret is 32 random bytes of this database, drawn at their first use and the same ever after. Nobody but this server
// may learn them.
func (db *DB) Secret(ctx context.Context, name string) ([]byte, error) {
	db.secretsMu.Lock()
	defer db.secretsMu.Unlock()
	if s, ok := db.secrets[name]; ok {
		return s, nil
	}
	s, err := db.meta(ctx, "secret."+name, 32)
	if err != nil {
		return nil, fmt.Errorf("reading a secret of the database: %w", err)
	}
	db.secrets[name] = s
	return s, nil
}
