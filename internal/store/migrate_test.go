package store_test

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// upTo are the first n migrations, all of them with n < 0.
func upTo(t *testing.T, n int) (fstest.MapFS, int) {
	t.Helper()
	names, err := fs.Glob(store.Schema, "schema/*.sql")
	must(t, err)
	files := fstest.MapFS{}
	for i, name := range names {
		if n >= 0 && i >= n {
			break
		}
		text, err := fs.ReadFile(store.Schema, name)
		must(t, err)
		files[name] = &fstest.MapFile{Data: text}
	}
	return files, len(names)
}

// TestMigrationsFromEverySchema opens a database at every earlier schema and then at the present one: what was in it is
// still there, and every table that the verification looks at can be read.
func TestMigrationsFromEverySchema(t *testing.T) {
	_, all := upTo(t, -1)
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			for n := 1; n <= all; n++ {
				url := dbtest.EmptyURL(t, engine)
				o := store.Options{URL: url, Logger: slog.New(slog.DiscardHandler)}
				files, _ := upTo(t, n)
				old, err := store.OpenSchema(t.Context(), o, files)
				must(t, err)
				generation := old.Generation()
				var pos store.Pos
				must(t, old.Write(t.Context(), func(tx *store.Tx) (err error) {
					pos, err = tx.AddChange(1, 2, 3)
					return err
				}))
				must(t, old.Close())
				asIs := o
				asIs.AsIs = true
				if db, err := store.Open(t.Context(), asIs); (err == nil) != (n == all) {
					t.Errorf("as it is after %d migrations: %v", n, err)
				} else if err == nil {
					must(t, db.Close())
				}
				db, err := store.Open(t.Context(), o)
				must(t, err)
				if bound, err := db.StreamBound(t.Context()); db.Generation() != generation || bound < pos || err != nil {
					t.Errorf("from schema %d: generation %q, then %q; position %d, then %d: %v", n, generation, db.Generation(), pos, bound, err)
				}
				must(t, db.Verify(t.Context(), func(f store.Finding) { t.Errorf("from schema %d: %s: %s", n, f.Rule, f.Text) }))
				must(t, db.Close())
			}
		})
	}
}

// TestForeignSchemasAreRefused opens databases that another version of the server made.
func TestForeignSchemasAreRefused(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			for what, change := range map[string]func(fstest.MapFS){
				"newer version": func(f fstest.MapFS) {
					f["schema/999_more.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE more (x BIGINT)")}
				},
				"is not the same": func(f fstest.MapFS) {
					f["schema/020_accounts.sql"].Data = append(f["schema/020_accounts.sql"].Data, "\n-- changed\n"...)
				},
				"lacks migration": func(f fstest.MapFS) { delete(f, "schema/030_ephemeral.sql") },
			} {
				o := store.Options{URL: dbtest.EmptyURL(t, engine), Logger: slog.New(slog.DiscardHandler)}
				files, _ := upTo(t, -1)
				change(files)
				other, err := store.OpenSchema(t.Context(), o, files)
				must(t, err)
				must(t, other.Close())
				db, err := store.Open(t.Context(), o)
				if err == nil {
					must(t, db.Close())
				}
				if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestBrokenMigrationLeavesNothing stops in the middle of a migration: the database is as it was before it.
func TestBrokenMigrationLeavesNothing(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			o := store.Options{URL: dbtest.EmptyURL(t, engine), Logger: slog.New(slog.DiscardHandler)}
			files, _ := upTo(t, -1)
			files["schema/999_more.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE half (x BIGINT); CREATE TABLE half (x BIGINT)")}
			if db, err := store.OpenSchema(t.Context(), o, files); err == nil {
				must(t, db.Close())
				t.Fatal("a migration that cannot be")
			}
			files["schema/999_more.sql"].Data = []byte("CREATE TABLE half (x BIGINT)")
			db, err := store.OpenSchema(t.Context(), o, files)
			must(t, err)
			must(t, db.Close())
		})
	}
}

// TestAsItIs creates nothing where there is nothing.
func TestAsItIs(t *testing.T) {
	dir := t.TempDir()
	if db, err := store.Open(t.Context(), store.Options{URL: "sqlite:none.db", DataDir: dir, AsIs: true}); err == nil {
		must(t, db.Close())
		t.Error("a database that is not there was opened")
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
	db, err := store.Open(t.Context(), store.Options{URL: dbtest.EmptyURL(t, "postgres"), AsIs: true})
	if err == nil {
		must(t, db.Close())
		t.Error("an empty database was opened as it is")
	}
}
