package media

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/s3"
)

// world is a Media over a database, with a clock and another server.
type world struct {
	*Media
	t       *testing.T
	db      *store.DB
	dir     string
	options Options
	clock   atomic.Int64 // ms
	remote  *otherServer
	s3      *s3.Service // nil: files are in a folder
}

// each runs a test on both databases with files in a folder, and in a bucket.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, db *store.DB) { test(t, newWorld(t, db)) })
	t.Run("s3", func(t *testing.T) { test(t, inBucket(t)) })
}

// inBucket is a world whose files are in a bucket.
func inBucket(t *testing.T) *world {
	w := prepare(t, dbtest.Open(t, "postgres"))
	w.s3 = s3.Start(t)
	w.options.Config.Media.Store = "s3"
	w.options.Config.Media.S3 = config.S3{Endpoint: w.s3.URL, Region: "us-east-1", Bucket: s3.Bucket, AccessKey: s3.AccessKey, SecretKey: s3.SecretKey}
	w.restart()
	return w
}

const us = matrix.ServerName("us.test")

func newWorld(t *testing.T, db *store.DB) *world {
	t.Helper()
	w := prepare(t, db)
	w.restart()
	return w
}

func prepare(t *testing.T, db *store.DB) *world {
	w := &world{t: t, db: db, dir: t.TempDir(), remote: &otherServer{}}
	w.clock.Store(time.Now().UnixMilli())
	conf := &config.Config{DataDir: w.dir, Media: config.Media{MaxUploadBytes: 1 << 20, MaxResumableBytes: 1 << 30}, RateLimits: config.RateLimits{Enabled: true}}
	w.options = Options{
		DB: db, Config: conf, Server: us, Remote: w.remote, Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { return time.UnixMilli(w.clock.Load()) },
	}
	return w
}

func (w *world) restart() {
	w.t.Helper()
	m, err := New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Media = m
}

func (w *world) pass(d time.Duration) { w.clock.Add(d.Milliseconds()) }

// tree lists the files of the store, markers and half-written ones too.
func (w *world) tree() (list []string) {
	w.t.Helper()
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(filepath.Join(w.dir, "media"), path)
			list = append(list, name)
		}
		return err
	})
	must(w.t, err)
	if w.s3 != nil {
		for _, object := range w.s3.Objects() {
			if object != bucketProbe {
				list = append(list, object)
			}
		}
	}
	return list
}

func (w *world) files(n int) {
	w.t.Helper()
	if got := w.tree(); len(got) != n {
		w.t.Errorf("the store has %d files, want %d: %q", len(got), n, got)
	}
}

func (w *world) upload(content []byte) string {
	w.t.Helper()
	id, err := w.Upload(w.t.Context(), 1, Upload{Type: "text/plain", Name: "a.txt", Length: int64(len(content)), Body: bytes.NewReader(content)})
	must(w.t, err)
	return id
}

// read opens a content and reads it whole.
func (w *world) read(q Query) ([]byte, *Content, error) {
	w.t.Helper()
	c, err := w.Open(w.t.Context(), q)
	if err != nil {
		return nil, nil, err
	}
	defer c.File.Close()
	data, err := io.ReadAll(c.File)
	must(w.t, err)
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], c.Hash) || int64(len(data)) != c.Size {
		w.t.Errorf("%d bytes with hash %x are said to be %d with %x", len(data), sum, c.Size, c.Hash)
	}
	return data, c, nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// wantCode checks the errcode and status of an error.
func wantCode(t testing.TB, err error, status int, code string) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Errorf("error %v, want %d %s", err, status, code)
	}
}

func TestUploadsComeBackAsTheyWere(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, size := range []int{0, 1, 200_000, 1 << 20} {
			content := random(size)
			got, c, err := w.read(Query{Server: us, ID: w.upload(content)})
			must(t, err)
			if !bytes.Equal(got, content) || c.Type != "text/plain" || c.Name != "a.txt" {
				t.Errorf("%d bytes came back as %d, %q %q", size, len(got), c.Type, c.Name)
			}
		}
		w.files(4)
		w.restart()
		w.files(4)
	})
}

func TestWhatIsNotWholeLeavesNothing(t *testing.T) {
	proof.Of(t, "ME-06")
	each(t, func(t *testing.T, w *world) {
		broken := errors.New("broken")
		for name, in := range map[string]Upload{
			"announced too large":  {Length: 1<<20 + 1, Body: strings.NewReader("x")},
			"too large":            {Length: -1, Body: io.LimitReader(zeros{}, 1<<20+1)},
			"endless":              {Length: -1, Body: zeros{}},
			"cut off":              {Length: 100, Body: io.MultiReader(strings.NewReader("x"), iotest.ErrReader(io.ErrUnexpectedEOF))},
			"broken":               {Length: 100, Body: io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken))},
			"name with a newline":  {Name: "a\nb", Body: strings.NewReader("x")},
			"name with a NUL":      {Name: "a\x00b", Body: strings.NewReader("x")},
			"name that is no text": {Name: "a\xffb", Body: strings.NewReader("x")},
			"endless name":         {Name: strings.Repeat("x", 256), Body: strings.NewReader("x")},
		} {
			_, err := w.Upload(t.Context(), 1, in)
			switch {
			case strings.Contains(name, "too large"), name == "endless":
				wantCode(t, err, 413, "M_TOO_LARGE")
			case name == "cut off":
				wantCode(t, err, 400, "M_UNKNOWN")
			case name == "broken":
				if !errors.Is(err, broken) {
					t.Errorf("%s: %v", name, err)
				}
			default:
				wantCode(t, err, 400, "M_INVALID_PARAM")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Upload(ctx, 1, Upload{Body: strings.NewReader("x")}); err == nil {
			t.Error("an upload was stored for a request that had ended")
		}
		w.files(0)
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestHostileNamesReachNoFile(t *testing.T) {
	proof.Of(t, "ME-01", "M01")
	each(t, func(t *testing.T, w *world) {
		w.upload([]byte("here"))
		before := w.tree()
		for _, id := range []string{"", ".", "..", "../..", "..\\..", "a/b", "a\x00b", "a b", "%2e%2e", "․․", "a.b", strings.Repeat("a", 256), "\xff"} {
			for _, server := range []matrix.ServerName{us, "them.test", "..", "../..", "a/b", "", "x\x00"} {
				_, _, err := w.read(Query{Server: server, ID: id, Remote: true})
				wantCode(t, err, 404, "M_NOT_FOUND")
				wantCode(t, w.Fill(t.Context(), 1, server, id, Upload{Body: strings.NewReader("x")}), 404, "M_NOT_FOUND")
			}
		}
		_, _, err := w.read(Query{Server: "../them", ID: "good", Remote: true})
		wantCode(t, err, 404, "M_NOT_FOUND")
		if after := w.tree(); !slices.Equal(before, after) {
			t.Errorf("the store changed from %q to %q", before, after)
		}
		if n := w.remote.asked.Load(); n != 0 {
			t.Errorf("another server was asked %d times for what cannot be", n)
		}
		for _, key := range []string{"", "..", "../../../etc/passwd", strings.Repeat("g", 32), strings.Repeat("a", 31)} {
			if _, err := w.blobs.open(t.Context(), key, 1); err == nil {
				t.Errorf("the store opened %q", key)
			}
		}
	})
}

func TestReservedIDs(t *testing.T) {
	proof.Of(t, "ME-03")
	each(t, func(t *testing.T, w *world) {
		id, expires, err := w.Reserve(t.Context(), 1)
		must(t, err)
		if want := w.clock.Load() + 24*60*60*1000; expires != want {
			t.Errorf("expires at %d, want %d", expires, want)
		}
		_, _, err = w.read(Query{Server: us, ID: id})
		wantCode(t, err, 504, "M_NOT_YET_UPLOADED")
		in := func() Upload { return Upload{Type: "text/plain", Body: strings.NewReader("later")} }
		wantCode(t, w.Fill(t.Context(), 2, us, id, in()), 403, "M_FORBIDDEN")
		wantCode(t, w.Fill(t.Context(), 1, us, "unknown", in()), 404, "M_NOT_FOUND")
		wantCode(t, w.Fill(t.Context(), 1, "them.test", id, in()), 404, "M_NOT_FOUND")

		// Somebody waits already when the content comes.
		got := make(chan string, 1)
		go func() {
			data, _, err := w.read(Query{Server: us, ID: id, Wait: time.Minute})
			got <- fmt.Sprint(string(data), err)
		}()
		must(t, w.Fill(t.Context(), 1, us, id, in()))
		if text := <-got; text != "later<nil>" {
			t.Errorf("who waited got %s", text)
		}
		wantCode(t, w.Fill(t.Context(), 1, us, id, in()), 409, "M_CANNOT_OVERWRITE_MEDIA")
		wantCode(t, w.Fill(t.Context(), 1, us, w.upload([]byte("x")), in()), 409, "M_CANNOT_OVERWRITE_MEDIA")
		w.files(2)

		for range maxReserved {
			id, _, err = w.Reserve(t.Context(), 1)
			must(t, err)
		}
		_, _, err = w.Reserve(t.Context(), 1)
		wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
		_, _, err = w.Reserve(t.Context(), 2)
		must(t, err)
		w.pass(25 * time.Hour)
		_, _, err = w.read(Query{Server: us, ID: id, Wait: time.Minute})
		wantCode(t, err, 404, "M_NOT_FOUND")
		wantCode(t, w.Fill(t.Context(), 1, us, id, in()), 404, "M_NOT_FOUND")
		_, _, err = w.Reserve(t.Context(), 1)
		must(t, err)
		w.files(2)
	})
}

func TestOneOfManyUploadsFillsAnID(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		id, _, err := w.Reserve(t.Context(), 1)
		must(t, err)
		var group sync.WaitGroup
		var filled atomic.Int64
		for i := range 8 {
			group.Go(func() {
				err := w.Fill(t.Context(), 1, us, id, Upload{Body: strings.NewReader(fmt.Sprint(i))})
				if err == nil {
					filled.Add(1)
					return
				}
				wantCode(t, err, 409, "M_CANNOT_OVERWRITE_MEDIA")
			})
		}
		group.Wait()
		if filled.Load() != 1 {
			t.Errorf("%d uploads filled one ID", filled.Load())
		}
		w.files(1)
	})
}

// TestCrashes leaves what a crash would leave at each place, and starts again.
func TestCrashes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		keptID := w.upload([]byte("kept"))
		row := func(id string) *store.Media {
			row, err := w.row(t.Context(), Query{Server: us, ID: id})
			must(t, err)
			return row
		}
		// While a file is written.
		d, err := w.blobs.draft()
		must(t, err)
		_, err = d.Write([]byte("half"))
		must(t, err)
		must(t, d.file.Close())
		// Between the file and its row.
		d, err = w.blobs.draft()
		must(t, err)
		must(t, d.keep(t.Context()))
		// Between the row and the removal of the marker.
		must(t, w.blobs.mark(row(keptID).File))
		// Between the removal of a row and that of its file.
		gone := row(w.upload([]byte("gone")))
		must(t, w.blobs.mark(gone.File))
		must(t, w.db.Write(t.Context(), func(tx *store.Tx) error {
			_, _, err := tx.DeleteMedia(us, gone.ID)
			return err
		}))
		must(t, os.WriteFile(filepath.Join(w.dir, "media", "pending", "somebody's note"), []byte("x"), 0o600))
		w.files(9)

		w.restart()
		w.files(2)
		if data, _, err := w.read(Query{Server: us, ID: keptID}); err != nil || string(data) != "kept" {
			t.Errorf("the content that has its row reads %q, %v", data, err)
		}
	})
}
