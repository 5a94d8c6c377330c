package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

func TestWriteIsAllOrNothing(t *testing.T) {
	own := errors.New("changed my mind")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		ran := false
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { ran = true })
			must(t, insert(1)(tx))
			return own
		})
		if err != own {
			t.Errorf("the closure's error came back as %v", err)
		}
		// An error that the closure hides counts all the same: PostgreSQL has given up the transaction by then.
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { ran = true })
			must(t, insert(2)(tx))
			if err := insert(2)(tx); !store.IsDuplicate(err) {
				t.Errorf("a second row of a key: %v", err)
			}
			if err := insert(3)(tx); err == nil {
				t.Error("a statement after one that failed")
			}
			return nil
		})
		if !store.IsDuplicate(err) {
			t.Errorf("hidden error: %v", err)
		}
		if got := ids(t, db); got != nil || ran {
			t.Errorf("left behind: %v, after commit %v", got, ran)
		}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			tx.AfterCommit(func() { ran = true })
			return insert(4)(tx)
		}))
		if got := ids(t, db); !slices.Equal(got, []int64{4}) || !ran {
			t.Errorf("written: %v, after commit %v", got, ran)
		}
	})
}

func TestPanicReachesItsCaller(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		func() {
			defer func() {
				if v := fmt.Sprint(recover()); !strings.Contains(v, "oh no") {
					t.Errorf("recovered %q", v)
				}
			}()
			_ = db.Write(t.Context(), func(tx *store.Tx) error {
				must(t, insert(1)(tx))
				panic("oh no")
			})
		}()
		must(t, db.Write(t.Context(), insert(2)))
		if got := ids(t, db); !slices.Equal(got, []int64{2}) {
			t.Errorf("after a panic: %v", got)
		}
	})
}

func TestRulesOfTransactions(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		must(t, db.Write(t.Context(), insert(1)))
		var kept *store.Tx
		own := errors.New("enough")
		must(t, db.Read(t.Context(), func(tx *store.Tx) error {
			kept = tx
			err := tx.Query(`SELECT 1`, func(*store.Row) error {
				return tx.Query(`SELECT 2`, func(*store.Row) error { return nil })
			})
			if err == nil {
				t.Error("a statement inside another")
			}
			if err := tx.Query(`SELECT 1`, func(*store.Row) error { return own }); err != own {
				t.Errorf("the callback's error came back as %v", err)
			}
			for _, wrong := range []func(r *store.Row){
				func(r *store.Row) { r.Int64(0) }, func(r *store.Row) { r.Bytes(1) }, func(r *store.Row) { r.Text(1) },
			} {
				if err := tx.Query(`SELECT 'text', id FROM scratch`, func(r *store.Row) error { wrong(r); return nil }); err == nil {
					t.Error("a column read as what it is not")
				}
			}
			if _, err := tx.Exec(`SELECT $1`, 1.5); err == nil {
				t.Error("a number with a fraction as an argument")
			}
			return tx.Query(`SELECT 1`, func(*store.Row) error { return nil })
		}))
		if err := kept.Query(`SELECT 1`, func(*store.Row) error { return nil }); err == nil {
			t.Error("a statement after the end")
		}
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			// The callback's own error does not break the transaction.
			if err := tx.Query(`SELECT 1`, func(*store.Row) error { return own }); err != own {
				t.Errorf("the callback's error came back as %v", err)
			}
			return insert(2)(tx)
		}))
		if err := db.Read(t.Context(), insert(3)); err == nil && !db.IsPostgres() {
			t.Error("a read that writes")
		}
		if err := db.Snapshot(t.Context(), insert(4)); err == nil {
			t.Error("a snapshot that writes")
		}
	})
}

func TestSnapshotDoesNotMove(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		for _, snapshot := range []bool{false, true} {
			read, want := db.Read, 1
			if snapshot {
				read, want = db.Snapshot, 0
			}
			count := func(tx *store.Tx) (n int, err error) {
				_, err = tx.QueryRow(`SELECT count(*) FROM scratch`).Scan(&n)
				return n, err
			}
			must(t, read(t.Context(), func(tx *store.Tx) error {
				before, err := count(tx)
				if err != nil {
					return err
				}
				must(t, db.Write(t.Context(), insert(int64(before)+1)))
				after, err := count(tx)
				if after-before != want {
					t.Errorf("snapshot %v: %d rows, then %d", snapshot, before, after)
				}
				return err
			}))
		}
	})
}

func TestContextEndsReadsButNotWrites(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan struct{})
		failed := make(chan error)
		go func() {
			failed <- db.Read(ctx, func(tx *store.Tx) error {
				close(started)
				return tx.Query(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`, func(*store.Row) error { return nil })
			})
		}()
		<-started
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("a read whose context ended: %v", err)
		}
		// The connection is as good as new.
		if got := ids(t, db); got != nil {
			t.Errorf("rows: %v", got)
		}
		if err := db.Write(ctx, insert(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("a write whose context had ended before: %v", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		must(t, db.Write(ctx, func(tx *store.Tx) error {
			cancel()
			return insert(2)(tx)
		}))
		if got := ids(t, db); !slices.Equal(got, []int64{2}) {
			t.Errorf("rows: %v", got)
		}
	})
}

// A writer holds the queue, so that others gather behind it; one that fails takes none of the others with it, and one
// whose caller leaves is not run.
func TestWritersShareACommit(t *testing.T) {
	db := dbtest.Open(t, "sqlite")
	scratch(t, db)
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			close(held)
			<-hold
			return insert(0)(tx)
		}))
	})
	<-held
	left, leave := context.WithCancel(t.Context())
	var order []int64
	for id := int64(1); id <= 50; id++ {
		all.Go(func() {
			ctx := t.Context()
			if id%10 == 0 {
				ctx = left
			}
			err := db.Write(ctx, func(tx *store.Tx) error {
				tx.AfterCommit(func() { order = append(order, id) })
				if err := insert(id)(tx); err != nil {
					return err
				}
				if id%7 == 0 {
					return insert(id)(tx)
				}
				return nil
			})
			switch {
			case id%10 == 0 && !errors.Is(err, context.Canceled), id%10 != 0 && id%7 == 0 && !store.IsDuplicate(err),
				id%10 != 0 && id%7 != 0 && err != nil:
				t.Errorf("write %d: %v", id, err)
			}
		})
	}
	leave()
	close(hold)
	all.Wait()
	var want []int64
	for id := int64(0); id <= 50; id++ {
		if id == 0 || id%7 != 0 && id%10 != 0 {
			want = append(want, id)
		}
	}
	if got := ids(t, db); !slices.Equal(got, want) {
		t.Errorf("rows: %v", got)
	}
	if len(order) != len(want)-1 {
		t.Errorf("after commit: %v", order)
	}
}

func TestNumbers(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		var mu sync.Mutex
		seen := map[int64]bool{}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 800 {
					n, err := db.NextNID(store.KindEvent)
					mu.Lock()
					if err != nil || n <= 0 || seen[n] {
						t.Errorf("number %d, again %v: %v", n, seen[n], err)
					}
					seen[n] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if n, err := db.NextNID(store.KindRoom); n != 1 || err != nil {
			t.Errorf("another kind begins with %d: %v", n, err)
		}
		if _, err := db.NextNID(0); err == nil {
			t.Error("a number of no kind")
		}
	})
}

// A database that is opened again goes on where it was.
func TestReopen(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			url := dbtest.URL(t, engine)
			type state struct {
				generation string
				secret     string
				nid        int64
				pos        store.Pos
			}
			look := func() (s state) {
				db, err := store.Open(t.Context(), store.Options{URL: url})
				must(t, err)
				defer func() { must(t, db.Close()) }()
				before, err := db.StreamBound(t.Context())
				must(t, err)
				s.generation = db.Generation()
				secret, err := db.Secret(t.Context(), "statetree")
				must(t, err)
				s.secret = string(secret)
				s.nid, err = db.NextNID(store.KindUser)
				must(t, err)
				must(t, db.Write(t.Context(), func(tx *store.Tx) error {
					s.pos, err = tx.AddChange(1, 2, 3)
					return err
				}))
				if s.pos <= before {
					t.Errorf("position %d after %d", s.pos, before)
				}
				return s
			}
			a, b := look(), look()
			if a.generation != b.generation || len(a.generation) != 16 || a.secret != b.secret || len(a.secret) != 32 {
				t.Errorf("generation or secret changed: %q, %q", a.generation, b.generation)
			}
			if b.nid <= a.nid || b.pos <= a.pos {
				t.Errorf("numbers went back: %d and %d after %d and %d", b.nid, b.pos, a.nid, a.pos)
			}
		})
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			url := dbtest.URL(t, engine)
			first := dbtest.OpenURL(t, url)
			_, err := store.Open(t.Context(), store.Options{URL: url, LockWait: time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), "using") {
				t.Errorf("a second server: %v", err)
			}
			// One that is just ending is waited for.
			opened := make(chan error)
			go func() {
				second, err := store.Open(t.Context(), store.Options{URL: url, LockWait: time.Minute})
				if err == nil {
					err = second.Close()
				}
				opened <- err
			}()
			must(t, first.Close())
			must(t, <-opened)
		})
	}
	t.Run("cluster", func(t *testing.T) {
		url := dbtest.URL(t, "postgres")
		for range 2 {
			db, err := store.Open(t.Context(), store.Options{URL: url, Cluster: true})
			must(t, err)
			defer func() { must(t, db.Close()) }()
		}
	})
}

func TestOpenRefusesBadURLs(t *testing.T) {
	dir := t.TempDir()
	for _, url := range []string{"", "mysql://x", "sqlite:", "sqlite::memory:", "sqlite:a?mode=ro", "postgres://u:geheim@%zz/x"} {
		db, err := store.Open(t.Context(), store.Options{URL: url, DataDir: dir})
		if err == nil {
			must(t, db.Close())
			t.Errorf("%q was opened", url)
			continue
		}
		if strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: the error is %q", url, err)
		}
	}
	db, err := store.Open(t.Context(), store.Options{URL: "sqlite:with space & ünïcode%20.db", DataDir: dir})
	must(t, err)
	must(t, db.Close())
	if found, _ := filepath.Glob(filepath.Join(dir, "with space & ünïcode%20.db")); len(found) != 1 {
		t.Error("the file is not where it should be")
	}
}

func TestColdStart(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			url := dbtest.URL(t, engine)
			must(t, dbtest.OpenURL(t, url).Close())
			best := time.Hour
			for range 5 {
				start := time.Now()
				db, err := store.Open(t.Context(), store.Options{URL: url})
				must(t, err)
				best = min(best, time.Since(start))
				must(t, db.Close())
			}
			if best > 100*time.Millisecond {
				t.Errorf("a cold start takes %v", best)
			}
			t.Log(best)
		})
	}
}

func TestCloseWaitsForWrites(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		scratch(t, db)
		var begun, written atomic.Int32
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for n := int64(0); ; n++ {
					err := db.Write(t.Context(), func(tx *store.Tx) error {
						begun.Add(1)
						return insert(int64(i)<<32 + n)(tx)
					})
					if err != nil {
						return
					}
					written.Add(1)
				}
			})
		}
		for written.Load() < 20 {
			time.Sleep(time.Millisecond)
		}
		must(t, db.Close())
		all.Wait()
		if b, w := begun.Load(), written.Load(); b != w {
			t.Errorf("%d began, %d were written", b, w)
		}
	})
}
