package media

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/proof"
)

func TestQuotas(t *testing.T) {
	proof.Of(t, "ME-06", "M04")
	each(t, func(t *testing.T, w *world) {
		w.options.Config.Media.MaxBytesPerUser = 1_000_000
		w.restart()
		store := func(user store.UserNID, bytes int, length int64) (string, error) {
			return w.Upload(t.Context(), user, Upload{Length: length, Body: strings.NewReader(strings.Repeat("x", bytes))})
		}
		first, err := store(1, 600_000, 600_000)
		must(t, err)
		before := w.tree()
		for what, length := range map[string]int64{"announced": 400_001, "not announced": -1} {
			_, err := store(1, 400_001, length)
			wantCode(t, err, 403, "M_FORBIDDEN")
			if after := w.tree(); len(after) != len(before) {
				t.Errorf("%s: what was refused left %q", what, after)
			}
		}
		// Somebody else has a quota of his own; an upload in pieces counts whole from the beginning.
		_, err = store(2, 400_001, -1)
		must(t, err)
		p, err := w.Begin(t.Context(), 1, Resumable{Length: 300_000})
		must(t, err)
		_, err = w.Begin(t.Context(), 1, Resumable{Length: 100_001})
		wantCode(t, err, 403, "M_FORBIDDEN")
		_, err = store(1, 100_001, -1)
		wantCode(t, err, 403, "M_FORBIDDEN")
		// Many at once do not get more than one after the other.
		var group sync.WaitGroup
		var stored atomic.Int64
		for range 6 {
			group.Go(func() {
				if _, err := store(1, 30_000, -1); err == nil {
					stored.Add(1)
				}
			})
		}
		group.Wait()
		if stored.Load() != 3 {
			t.Errorf("%d uploads of 30,000 bytes found room in 100,000", stored.Load())
		}
		// What is given up or deleted makes room.
		must(t, w.GiveUp(t.Context(), 1, p.ID))
		must(t, w.Delete(t.Context(), 9, us, first))
		_, err = store(1, 900_000, -1)
		must(t, err)
	})
}

func TestOneUserCannotStoreEverythingAtOnce(t *testing.T) {
	proof.Of(t, "M04")
	each(t, func(t *testing.T, w *world) {
		w.options.Config.Media.MaxBytesPerUserHour = 3_600_000
		w.restart()
		for range 4 {
			w.upload(random(1_000_000))
		}
		_, err := w.Upload(t.Context(), 1, Upload{Body: strings.NewReader("x")})
		wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
		_, err = w.Begin(t.Context(), 1, Resumable{Length: 1})
		wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
		_, err = w.Upload(t.Context(), 2, Upload{Body: strings.NewReader("x")})
		must(t, err)
		var refused *matrix.Error
		if _, err = w.Upload(t.Context(), 1, Upload{Body: strings.NewReader("x")}); !errors.As(err, &refused) {
			t.Fatal(err)
		}
		w.pass(402 * time.Second) // 400 kB too many, at 1 kB a second
		w.upload([]byte("x"))
	})
}

// TestUnfinishedUploadsEnd lets the time of uploads end, with and without bytes, and finds nothing left of them.
func TestUnfinishedUploadsEnd(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		begin := func(length int64) *Progress {
			p, err := w.Begin(t.Context(), 1, Resumable{Length: length})
			must(t, err)
			return p
		}
		add := func(p *Progress, at int64, data []byte) {
			t.Helper()
			_, err := w.Continue(t.Context(), 1, p.ID, Chunk{Offset: at, Length: -1, Body: bytes.NewReader(data)})
			must(t, err)
		}
		begin(10)
		large, kept := begin(40_000_000), begin(10)
		add(large, 0, make([]byte, 20_000_000))
		w.pass(20 * time.Hour)
		add(kept, 0, []byte("123"))
		must(t, w.giveUpDue(t.Context()))
		if p, err := w.Progress(t.Context(), 1, large.ID); err != nil || p.Received != 20_000_000 {
			t.Errorf("before its time: %+v, %v", p, err)
		}
		w.pass(5 * time.Hour)
		_, err := w.Progress(t.Context(), 1, large.ID)
		wantCode(t, err, 404, "M_NOT_FOUND")
		must(t, w.giveUpDue(t.Context()))
		if list := w.tree(); len(list) != 1 {
			t.Errorf("one upload goes on, and there is %q", list)
		}
		add(kept, 3, []byte("4567890"))
		if data, _, err := w.read(Query{Server: us, ID: kept.ID}); err != nil || string(data) != "1234567890" {
			t.Errorf("%q, %v", data, err)
		}
		w.pass(25 * time.Hour)
		must(t, w.giveUpDue(t.Context()))
		w.files(1) // a content does not end with the time of its upload
		// Trickling does not keep one for ever.
		slow := begin(1000)
		for i := range int64(9) {
			if _, err = w.Continue(t.Context(), 1, slow.ID, Chunk{Offset: i, Length: 1, Body: strings.NewReader("x")}); err != nil {
				break
			}
			w.pass(23 * time.Hour)
		}
		wantCode(t, err, 404, "M_NOT_FOUND")
	})
}

// TestAnotherNodeGoesOn brings an upload by turns through two nodes that share a database and a bucket, one of which is
// overtaken in the middle of a request.
func TestAnotherNodeGoesOn(t *testing.T) {
	w := inBucket(t)
	o := w.options
	conf := *o.Config
	conf.DataDir = t.TempDir() // nothing of it may be needed
	o.Config = &conf
	other, err := New(o)
	must(t, err)
	content := random(35_000_000)
	sum := sha256.Sum256(content)
	p, err := w.Begin(t.Context(), 1, Resumable{Length: int64(len(content)), SHA256: sum[:]})
	must(t, err)
	nodes := []*Media{w.Media, other}
	for i, end := range []int{1000, 17_000_000, 17_000_001, 30_000_000} {
		at := p.Received
		p, err = nodes[i%2].Continue(t.Context(), 1, p.ID, Chunk{Offset: at, Length: -1, Body: bytes.NewReader(content[at:end])})
		must(t, err)
	}
	// While one node reads, the other goes on: what the first still has counts no more.
	body := &hooked{Reader: bytes.NewReader(content[30_000_000:30_001_000])}
	body.hook = func() {
		_, err := other.Continue(t.Context(), 1, p.ID, Chunk{Offset: 30_000_000, Length: -1, Body: bytes.NewReader(content[30_000_000:31_000_000])})
		must(t, err)
	}
	_, err = w.Continue(t.Context(), 1, p.ID, Chunk{Offset: 30_000_000, Length: -1, Body: body})
	wantCode(t, err, 409, "M_UNKNOWN")
	p, err = w.Continue(t.Context(), 1, p.ID, Chunk{Offset: 31_000_000, Length: -1, Body: bytes.NewReader(content[31_000_000:])})
	must(t, err)
	if p.URI != w.URI(p.ID) {
		t.Fatalf("%+v", p)
	}
	if got, _, err := w.read(Query{Server: us, ID: p.ID}); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	w.files(1)
}

// hooked calls something before its first byte.
type hooked struct {
	*bytes.Reader
	hook func()
}

func (h *hooked) Read(p []byte) (int, error) {
	if h.hook != nil {
		h.hook()
		h.hook = nil
	}
	return h.Reader.Read(p)
}

// TestUploadsWhoseBytesAreGone removes what was acknowledged behind the server's back.
func TestUploadsWhoseBytesAreGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p, err := w.Begin(t.Context(), 1, Resumable{Length: 10})
		must(t, err)
		_, err = w.Continue(t.Context(), 1, p.ID, Chunk{Length: -1, Body: strings.NewReader("12345")})
		must(t, err)
		var u *store.MediaUpload
		must(t, w.db.Read(t.Context(), func(tx *store.Tx) (err error) {
			u, err = tx.MediaUpload(p.ID)
			return err
		}))
		for _, key := range []string{u.File, u.Tail} {
			if key != "" {
				must(t, w.blobs.abandon(t.Context(), key))
			}
		}
		_, err = w.Continue(t.Context(), 1, p.ID, Chunk{Offset: 5, Length: -1, Body: strings.NewReader("67890")})
		wantCode(t, err, 404, "M_NOT_FOUND")
		_, err = w.Progress(t.Context(), 1, p.ID)
		wantCode(t, err, 404, "M_NOT_FOUND")
		w.files(0)
	})
}

// TestManyCopiesStayWithinTheBound has a user read far more of other servers than is kept.
func TestManyCopiesStayWithinTheBound(t *testing.T) {
	proof.Of(t, "M04")
	w := inBucket(t)
	w.copies = 200_000
	for i := range 300 {
		w.remote.gives(content("text/plain", "", bytes.NewReader(random(2000))))
		_, _, err := w.read(Query{Server: them, ID: fmt.Sprint("copy", i), Remote: true, User: 1})
		must(t, err)
	}
	if n := len(w.tree()); n > 100 {
		t.Errorf("%d copies of 2,000 bytes are kept in 200,000", n)
	}
}

// An upload whose time ends while a request is at it leaves nothing, whatever the request still brings.
func TestUploadEndsWhileItIsWritten(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, pieces := range []int{0, 1} { // that are there when the time ends
			p, err := w.Begin(t.Context(), 1, Resumable{Length: 4 * pieceBytes})
			must(t, err)
			body, in := io.Pipe()
			ended := make(chan error, 1)
			go func() {
				_, err := w.Continue(t.Context(), 1, p.ID, Chunk{
					Length: -1, Body: body, Stop: func() { in.CloseWithError(io.ErrUnexpectedEOF) }, Sum: sha256.New(), Want: make([]byte, sha256.Size),
				})
				_ = body.Close() // nobody reads it any more
				ended <- err
			}()
			if _, err := in.Write(make([]byte, pieces*pieceBytes+1000)); err != nil {
				t.Fatal(err)
			}
			w.pass(unfinishedEnd + time.Hour)
			must(t, w.giveUpDue(t.Context()))
			_, _ = in.Write(make([]byte, pieceBytes+1)) // it may be refused
			_ = in.Close()
			if err := <-ended; err == nil {
				t.Error("an upload went on whose time had ended")
			}
			w.files(0)
		}
	})
}
