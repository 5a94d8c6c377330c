package dbtest

import (
	"strings"
	"testing"

	"conclave/internal/store"
)

// Damage runs a statement that has to change something, and returns what puts its table right again: for tests of what
// is found in a database that was damaged. {bytes:…} in the statement stands for bytes in hexadecimal.
func Damage(t testing.TB, db *store.DB, sql string) (repair func()) {
	t.Helper()
	if before, rest, ok := strings.Cut(sql, "{bytes:"); ok {
		hex, after, _ := strings.Cut(rest, "}")
		quoted := "x'" + hex + "'"
		if db.IsPostgres() {
			quoted = `'\x` + hex + "'"
		}
		sql = before + quoted + after
	}
	words := strings.Fields(sql) // UPDATE x, INSERT INTO x, DELETE FROM x
	table := words[1]
	if words[0] != "UPDATE" {
		table = words[2]
	}
	run := func(sql string) (n int64) {
		t.Helper()
		err := db.Write(t.Context(), func(tx *store.Tx) (err error) {
			n, err = tx.Exec(sql)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return n
	}
	run(`CREATE TABLE saved AS SELECT * FROM ` + table)
	if run(sql) == 0 {
		t.Errorf("it changes nothing: %s", sql)
	}
	return func() {
		run(`DELETE FROM ` + table)
		run(`INSERT INTO ` + table + ` SELECT * FROM saved`)
		run(`DROP TABLE saved`)
	}
}

// Findings are what db.Verify reports.
func Findings(t testing.TB, db *store.DB) (list []store.Finding) {
	t.Helper()
	if err := db.Verify(t.Context(), func(f store.Finding) { list = append(list, f) }); err != nil {
		t.Fatal(err)
	}
	return list
}
