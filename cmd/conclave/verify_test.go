package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/cluster"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// TestVerify runs the command over a sound database, a damaged one, and none.
func TestVerify(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			dir := t.TempDir()
			url := dbtest.URL(t, engine)
			file := filepath.Join(dir, "config.yaml")
			text := fmt.Sprintf("server_name: one.example\ndata_dir: %q\ndatabase: {url: %q}\n", dir, url)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if engine == "sqlite" {
				if code, out, line := call("verify", "-config", file); code != 1 || out != "" || strings.Count(line, "\n") != 1 {
					t.Errorf("without a database: code %d, %q, %q", code, out, line)
				}
			}
			change(t, url, func(db *store.DB) error {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				key := ed25519.NewKeyFromSeed(make([]byte, 32))
				r, err := rooms.New(ctx, rooms.Options{DB: db, Bus: cluster.NewLocal(), Identity: rooms.Identity{Name: "one.example", KeyID: "ed25519:a", Key: key}})
				if err != nil {
					return err
				}
				alice, err := r.User(ctx, "@alice:one.example")
				if err != nil {
					return err
				}
				_, err = r.Create(ctx, rooms.CreateRequest{Creator: rooms.Sender{NID: alice.NID, ID: "@alice:one.example"}})
				return err
			})
			for _, args := range [][]string{{"verify", "-config", file}, {"verify", "-config", file, "-full"}} {
				if code, out, err := call(args...); code != 0 || err != "" || strings.Count(out, "\n") != 1 || !strings.Contains(out, "1 rooms") {
					t.Errorf("%v over a sound database: code %d, %q, %q", args, code, out, err)
				}
			}
			change(t, url, func(db *store.DB) error {
				return db.Write(t.Context(), func(tx *store.Tx) error {
					if _, err := tx.Exec(`DELETE FROM memberships`); err != nil {
						return err
					}
					_, err := tx.Exec(`UPDATE events SET ts = 1`)
					return err
				})
			})
			code, out, err := call("verify", "-config", file)
			if code != 1 || !strings.Contains(out, "memberships: ") || strings.Contains(out, "texts: ") || strings.Count(err, "\n") != 1 {
				t.Errorf("a damaged database: code %d, %q, %q", code, out, err)
			}
			code, out, err = call("verify", "-config", file, "-full")
			if code != 1 || !strings.Contains(out, "texts: ") || strings.Count(err, "\n") != 1 {
				t.Errorf("a damaged database in full: code %d, %q, %q", code, out, err)
			}
		})
	}
}

// change opens a database, changes it and closes it again.
func change(t *testing.T, url string, do func(*store.DB) error) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := do(db); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	var printed []string
	l := &findings{perRule: map[string]int{}, print: func(f store.Finding) { printed = append(printed, f.Rule) }}
	for n := range 1000 {
		l.add(store.Finding{Rule: fmt.Sprint(n % 40)})
		l.add(store.Finding{Rule: "often"})
	}
	if l.total != 2000 || len(printed) != maxFindings || l.printed != maxFindings {
		t.Errorf("%d found, %d printed", l.total, len(printed))
	}
	often := 0
	for _, rule := range printed {
		if rule == "often" {
			often++
		}
	}
	if often != maxPerRule {
		t.Errorf("one rule has %d of the lines", often)
	}
}
