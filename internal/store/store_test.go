package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// scratch makes a table that only the tests know.
func scratch(t testing.TB, db *store.DB) {
	t.Helper()
	must(t, db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE scratch (id BIGINT PRIMARY KEY, name {text}, raw {bytes}, flag BOOLEAN, small SMALLINT)`)
		return err
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ids reads the keys of scratch.
func ids(t testing.TB, db *store.DB) (list []int64) {
	t.Helper()
	must(t, db.Read(t.Context(), func(tx *store.Tx) error {
		return tx.Query(`SELECT id FROM scratch ORDER BY id`, func(r *store.Row) error {
			list = append(list, r.Int64(0))
			return nil
		})
	}))
	return list
}

func insert(id int64) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO scratch (id) VALUES ($1)`, id)
		return err
	}
}

func TestValuesComeBackAsTheyWere(t *testing.T) {
	type word string
	texts := []string{"", "plain", "quote\"back\\slash", "line\nbreak\ttab\x01", "ünïcödé 🗝", "'; DROP TABLE scratch; --"}
	blobs := [][]byte{{}, {0}, []byte("\x00\xff\x80'\""), []byte(strings.Repeat("x", 100_000))}
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			for i, text := range texts {
				raw := blobs[i%len(blobs)]
				// The order of appearance of parameters is not that of the arguments.
				if _, err := tx.Exec(`INSERT INTO scratch (small, flag, raw, name, id) VALUES ($5, $4, $3, $2, $1)`,
					store.RoomNID(i), word(text), raw, i%2 == 1, int16(-i)); err != nil {
					return err
				}
			}
			_, err := tx.Exec(`INSERT INTO scratch (id, name, raw, flag, small) VALUES ($1, $2, $3, $4, $5)`, 100, (*string)(nil), []byte(nil), nil, (*int64)(nil))
			return err
		}))
		must(t, db.Read(t.Context(), func(tx *store.Tx) error {
			n := 0
			err := tx.Query(`SELECT id, name, raw, flag, small FROM scratch WHERE id < 100 ORDER BY id`, func(r *store.Row) error {
				i := int(r.Int64(0))
				if r.Text(1) != texts[i] || string(r.Bytes(2)) != string(blobs[i%len(blobs)]) || r.Bool(3) != (i%2 == 1) || r.Int(4) != -i {
					t.Errorf("row %d came back as %q %q %v %d", i, r.Text(1), r.Bytes(2), r.Bool(3), r.Int(4))
				}
				if r.Bytes(2) == nil {
					t.Errorf("row %d: empty bytes came back as NULL", i)
				}
				n++
				return nil
			})
			if n != len(texts) {
				t.Errorf("%d rows", n)
			}
			if err != nil {
				return err
			}
			return tx.Query(`SELECT name, raw, flag, small FROM scratch WHERE id = 100`, func(r *store.Row) error {
				for i := range 4 {
					if !r.IsNull(i) {
						t.Errorf("column %d is not NULL", i)
					}
				}
				if r.Text(0) != "" || r.Bytes(1) != nil || r.Bool(2) || r.Int64(3) != 0 {
					t.Error("a NULL does not read as zero")
				}
				return nil
			})
		}))
		for _, want := range texts {
			var got string
			must(t, db.Read(t.Context(), func(tx *store.Tx) error {
				found, err := tx.QueryRow(`SELECT name FROM scratch WHERE name IN ({texts $1})`, []word{word(want), "no such"}).Scan(&got)
				if !found || got != want {
					t.Errorf("%q found by a list: %v %q", want, found, got)
				}
				return err
			}))
		}
	})
}

func TestListsAndMacros(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		const rows = 500
		in := store.Insert{Table: "scratch", Rows: rows, Cols: []store.Col{
			store.IntCol("id", func(i int) int { return i }),
			store.NullTextCol("name", func(i int) (string, bool) { return fmt.Sprint("n", i), i%5 != 0 }),
			store.BytesCol("raw", func(i int) []byte {
				if i%7 == 0 {
					return nil
				}
				return []byte{byte(i), byte(i >> 8)}
			}),
			store.BoolCol("flag", func(i int) bool { return i%2 == 0 }),
			store.NullIntCol("small", func(i int) (int16, bool) { return int16(i), i%3 != 0 }),
		}}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertRows(in) }))
		count := func(where string, args ...any) (n int) {
			t.Helper()
			must(t, db.Read(t.Context(), func(tx *store.Tx) error {
				_, err := tx.QueryRow(`SELECT count(*) FROM scratch WHERE `+where, args...).Scan(&n)
				return err
			}))
			return n
		}
		for what, c := range map[string][2]int{
			"all":        {count(`id >= $1`, 0), rows},
			"null texts": {count(`name IS NULL`), 100},
			"null bytes": {count(`raw IS NULL`), 72},
			"null ints":  {count(`small IS NULL`), 167},
			"true":       {count(`flag`), 250},
			"ids":        {count(`id IN ({ids $1})`, []int64{1, 2, 3, 9999}), 3},
			"named ids":  {count(`id IN ({ids $1})`, []store.EventNID{1, 2}), 2},
			"no ids":     {count(`id IN ({ids $1})`, []int64(nil)), 0},
			"texts":      {count(`name IN ({texts $1})`, []string{"n1", "n5", "n6"}), 2},
			"blobs":      {count(`raw IN ({blobs $1})`, [][]byte{{1, 0}, {0, 1}, {9, 9, 9}}), 2},
			"rows":       {count(`id IN (SELECT r.value + 1 FROM ({rows $1}) r)`, []int64{1, 2, 1000}), 2},
			"twice":      {count(`id = $1 OR id + 1 = $1 OR small = $2`, 10, 44), 3},
			"wide":       {count(`$1 = 0 OR id = 1`, int64(1)<<40), 1},
			"ilike":      {count(`name {ilike} $1`, "N1_"), 8},
			"least":      {count(`{least}(id, 3) = 3`), rows - 3},
			"quoted":     {count(`name = '{ids $1} -- $2' OR id = $1 -- a comment: $2 {nonsense}`+"\n", 5), 1},
		} {
			if c[0] != c[1] {
				t.Errorf("%s: %d, not %d", what, c[0], c[1])
			}
		}
		var now int64
		must(t, db.Read(t.Context(), func(tx *store.Tx) error {
			_, err := tx.QueryRow(`SELECT {now}`).Scan(&now)
			return err
		}))
		if d := time.Since(time.UnixMilli(now)).Abs(); d > time.Minute {
			t.Errorf("the database's clock is %v away", d)
		}
	})
}

func TestInsertReturning(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		must(t, db.Write(t.Context(), insert(3)))
		var fresh []int64
		var n int64
		must(t, db.Write(t.Context(), func(tx *store.Tx) (err error) {
			fresh = nil
			n, err = tx.InsertReturning(store.Insert{
				Table: "scratch", Rows: 5, Cols: []store.Col{store.IntCol("id", func(i int) int { return i + 1 })},
				Suffix: "ON CONFLICT (id) DO NOTHING RETURNING id",
			}, func(r *store.Row) error {
				fresh = append(fresh, r.Int64(0))
				return nil
			})
			return err
		}))
		slices.Sort(fresh)
		if !slices.Equal(fresh, []int64{1, 2, 4, 5}) || n != 4 {
			t.Errorf("inserted %v (%d)", fresh, n)
		}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error { return tx.InsertRows(store.Insert{Table: "nowhere"}) }))
	})
}
