package media

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// otherServer is the network of a test.
type otherServer struct {
	asked  atomic.Int64
	mu     sync.Mutex
	answer func(id string) (*Fetched, error)
}

func (o *otherServer) Fetch(_ context.Context, _ matrix.ServerName, id string, _ int64, _ time.Duration) (*Fetched, error) {
	o.asked.Add(1)
	o.mu.Lock()
	answer := o.answer
	o.mu.Unlock()
	return answer(id)
}

func (o *otherServer) gives(answer func(id string) (*Fetched, error)) {
	o.mu.Lock()
	o.answer = answer
	o.mu.Unlock()
}

func content(kind, name string, body io.Reader) func(string) (*Fetched, error) {
	return func(string) (*Fetched, error) { return &Fetched{kind, name, io.NopCloser(body)}, nil }
}

const them = matrix.ServerName("them.test")

func TestContentsOfOtherServersAreFetchedOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		data := random(100_000)
		begun, goOn := make(chan struct{}), make(chan struct{})
		w.remote.gives(func(string) (*Fetched, error) {
			close(begun)
			<-goOn
			return &Fetched{"image/png", "cat.png", io.NopCloser(bytes.NewReader(data))}, nil
		})
		q := Query{Server: them, ID: "cat", Remote: true, User: 1}
		_, _, err := w.read(Query{Server: them, ID: "cat"})
		wantCode(t, err, 404, "M_NOT_FOUND") // who may not ask others finds nothing

		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				got, c, err := w.read(q)
				if err != nil || !bytes.Equal(got, data) || c.Type != "image/png" || c.Name != "cat.png" {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
		<-begun
		close(goOn)
		group.Wait()
		w.restart()
		got, _, err := w.read(Query{Server: them, ID: "cat"})
		if err != nil || !bytes.Equal(got, data) || w.remote.asked.Load() != 1 {
			t.Errorf("%d bytes, %v, fetched %d times", len(got), err, w.remote.asked.Load())
		}
		w.files(1)
	})
}

func TestOtherServersLie(t *testing.T) {
	proof.Of(t, "ME-06", "M05")
	each(t, func(t *testing.T, w *world) {
		for i, c := range []struct {
			answer func(string) (*Fetched, error)
			status int
			code   string
		}{
			{content("", "", zeros{}), 502, "M_TOO_LARGE"},
			{content("", "", io.LimitReader(zeros{}, 1<<20+1)), 502, "M_TOO_LARGE"},
			{content("", "", io.MultiReader(strings.NewReader("x"), failing{ErrTooLong})), 502, "M_TOO_LARGE"},
			{content("", "", io.MultiReader(strings.NewReader("x"), failing{io.ErrUnexpectedEOF})), 502, "M_UNKNOWN"},
			{func(string) (*Fetched, error) { return nil, matrix.NotFound("none") }, 404, "M_NOT_FOUND"},
			{func(string) (*Fetched, error) { return nil, matrix.Errorf(502, "M_UNKNOWN", "dead") }, 502, "M_UNKNOWN"},
		} {
			w.remote.gives(c.answer)
			q := Query{Server: them, ID: fmt.Sprint("lie", i), Remote: true, User: 1}
			_, _, err := w.read(q)
			wantCode(t, err, c.status, c.code)
			asked := w.remote.asked.Load()
			_, _, err = w.read(q)
			wantCode(t, err, c.status, c.code)
			if w.remote.asked.Load() != asked {
				t.Errorf("lie %d: the server was asked again at once", i)
			}
		}
		w.files(0)
		// What it says of a content is not believed where it would do harm.
		w.remote.gives(content("text/html; =\r\nx", "a\r\nb", strings.NewReader("x")))
		_, c, err := w.read(Query{Server: them, ID: "odd", Remote: true, User: 1})
		must(t, err)
		if c.Type != "application/octet-stream" || c.Name != "" {
			t.Errorf("type %q, name %q", c.Type, c.Name)
		}
		// A refusal is forgotten after a while.
		w.remote.gives(content("text/plain", "", strings.NewReader("at last")))
		w.pass(2 * failedTime)
		got, _, err := w.read(Query{Server: them, ID: "lie4", Remote: true, User: 1})
		if err != nil || string(got) != "at last" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestCopiesStayWithinTheirBound(t *testing.T) {
	proof.Of(t, "M04")
	each(t, func(t *testing.T, w *world) {
		own := w.upload(random(1 << 20))
		w.copies = 5 << 19 // two and a half contents
		fetch := func(id string) error {
			w.remote.gives(content("text/plain", "", bytes.NewReader(random(1<<20))))
			_, _, err := w.read(Query{Server: them, ID: id, Remote: true, User: 1})
			return err
		}
		for _, id := range []string{"a", "b"} {
			must(t, fetch(id))
			w.pass(2 * time.Hour)
		}
		must(t, fetch("a")) // used again: b is now the oldest
		w.pass(2 * time.Hour)
		must(t, fetch("c"))
		for id, there := range map[string]bool{"a": true, "b": false, "c": true} {
			_, _, err := w.read(Query{Server: them, ID: id})
			if (err == nil) != there {
				t.Errorf("%s: %v, want it there: %v", id, err, there)
			}
		}
		if _, _, err := w.read(Query{Server: us, ID: own}); err != nil {
			t.Errorf("an upload went with the copies: %v", err)
		}
		w.files(3)
		// A copy whose file somebody removed is fetched again.
		must(t, fetch("d"))
		row, err := w.row(t.Context(), Query{Server: them, ID: "d"})
		must(t, err)
		must(t, w.blobs.remove(t.Context(), row.File))
		must(t, fetch("d"))
	})
}

func TestOneUserCannotFetchEverything(t *testing.T) {
	proof.Of(t, "M04")
	each(t, func(t *testing.T, w *world) {
		w.remote.gives(content("text/plain", "", strings.NewReader("x")))
		w.allowance.charge(1, allowanceBytes+100<<20)
		_, _, err := w.read(Query{Server: them, ID: "a", Remote: true, User: 1})
		wantCode(t, err, 429, "M_LIMIT_EXCEEDED")
		_, _, err = w.read(Query{Server: them, ID: "a", Remote: true, User: 2})
		must(t, err)
		_, _, err = w.read(Query{Server: them, ID: "a", Remote: true, User: 1})
		must(t, err) // what is here costs nothing
		w.pass(101 * time.Second)
		w.remote.gives(content("text/plain", "", strings.NewReader("x")))
		_, _, err = w.read(Query{Server: them, ID: "b", Remote: true, User: 1})
		must(t, err)
	})
}
