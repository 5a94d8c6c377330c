package media

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// writer is a request that writes to an upload, or is about to.
type writer struct {
	stop func() // nil: it ends by itself
	done chan struct{}
}

// enter makes a request the only one of this node that is at an upload. The one before it is made to end: a client that
// comes again has lost it. leave ends it.
func (m *Media) enter(ctx context.Context, id string, stop func()) (leave func(), err error) {
	late := time.NewTimer(takeOverTime)
	defer late.Stop()
	for {
		m.mu.Lock()
		before := m.writing[id]
		if before == nil {
			me := &writer{stop, make(chan struct{})}
			m.writing[id] = me
			m.mu.Unlock()
			return func() {
				m.mu.Lock()
				delete(m.writing, id)
				m.mu.Unlock()
				close(me.done)
			}, nil
		}
		m.mu.Unlock()
		if before.stop != nil {
			before.stop()
		}
		select {
		case <-before.done:
		case <-late.C:
			return nil, matrix.Errorf(http.StatusLocked, "M_UNKNOWN", "Another request is at this upload.")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Drain makes the requests end that bring uploads in pieces; what they have brought is kept.
func (m *Media) Drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.writing {
		if w.stop != nil {
			w.stop()
		}
	}
}

// source is the body of a request as pieces are cut from it. It ends quietly where the body breaks off and remembers why,
// so that what came before is stored.
type source struct {
	body  io.Reader
	sums  []io.Writer
	until time.Time // when the present piece ends
	ended bool
	err   error // why the body broke off
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.ended || time.Now().After(s.until) {
		return 0, io.EOF
	}
	n, err := s.body.Read(p)
	for _, sum := range s.sums {
		_, _ = sum.Write(p[:n]) // hashes do not fail
	}
	if err != nil {
		s.ended = true
		if !errors.Is(err, io.EOF) {
			s.err = err
		}
		err = io.EOF
	}
	return n, err
}

// intake is a request's part of an upload on its way into the vault.
type intake struct {
	m    *Media
	u    *store.MediaUpload
	last store.MediaUpload // as it stands in its row
	sum  hash.Hash
	made []piece // that no row names yet
}

// takePieces stores what a chunk has, and saves how far the upload has come after each piece; if the chunk has a checksum,
// once at its end.
func (m *Media) takePieces(ctx context.Context, u *store.MediaUpload, c Chunk) error {
	sum, err := resumed(u.Sum)
	if err != nil {
		return err
	}
	in := intake{m: m, u: u, last: *u, sum: sum}
	src := &source{body: io.LimitReader(c.Body, u.Length-u.Received), sums: []io.Writer{sum}}
	if c.Sum != nil {
		src.sums = append(src.sums, c.Sum)
	}
	err = in.takeAll(ctx, src, c.Sum == nil)
	switch {
	case err != nil:
	case src.err != nil:
		err = matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "The request did not come whole.").With(src.err)
	case c.Sum == nil:
		return nil
	case !bytes.Equal(c.Sum.Sum(nil), c.Want):
		err = errSum("The request's")
	default:
		err = in.save(ctx)
	}
	if err != nil {
		in.undo(ctx)
	}
	return err
}

// takeAll stores what a body has.
func (in *intake) takeAll(ctx context.Context, src *source, save bool) error {
	for in.u.Received < in.u.Length && !src.ended {
		if err := in.m.uploaded.check(in.u.User); err != nil {
			return err
		}
		if err := in.take(ctx, src); err != nil {
			return in.m.lost(ctx, in.last, err)
		}
		if !save {
			continue
		}
		if err := in.save(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take stores one piece.
func (in *intake) take(ctx context.Context, src *source) error {
	before := *in.u
	src.until = time.Now().Add(pieceTime)
	p, err := in.m.blobs.take(ctx, in.u, src)
	if err != nil {
		return err
	}
	in.m.uploaded.charge(in.u.User, in.u.Received-before.Received)
	if p != nil {
		in.made = append(in.made, *p)
	}
	if before.Tail != in.last.Tail && before.Tail != in.u.Tail {
		in.erase(ctx, before.Tail) // no row has named it
	}
	return nil
}

// save writes to the row what the vault has.
func (in *intake) save(ctx context.Context) error {
	if in.u.Received == in.last.Received {
		return nil
	}
	in.u.Sum = saved(in.sum)
	in.u.Expires = min(in.m.nowMS()+unfinishedFor.Milliseconds(), in.u.Created+unfinishedEnd.Milliseconds())
	if in.last.Tail != "" && in.last.Tail != in.u.Tail {
		if err := in.m.blobs.mark(in.last.Tail); err != nil {
			return err
		}
	}
	work.Failpoint("media.piece.kept")
	err := in.m.o.DB.Write(ctx, func(tx *store.Tx) error {
		mine, err := tx.SaveMediaUpload(*in.u)
		if err == nil && !mine {
			err = errOvertaken()
		}
		for _, p := range in.made {
			if err == nil {
				err = tx.AddMediaPiece(in.u.ID, p.number, p.etag)
			}
		}
		return err
	})
	work.Failpoint("media.piece.saved")
	old, now := in.last.Tail, in.u.Tail
	if err != nil {
		if old != "" && !errors.Is(err, store.ErrUnknown) { // it is as it was, or whoever was faster has removed it
			in.m.release(func() error { return in.m.blobs.settle(old) })
		}
		return err
	}
	in.last, in.made = *in.u, nil
	if old != now {
		in.erase(ctx, old)
		if now != "" {
			in.m.release(func() error { return in.m.blobs.settle(now) })
		}
	}
	return nil
}

// undo removes what the vault has and no row will name. What the upload itself has behind its end is written over.
func (in *intake) undo(ctx context.Context) {
	if in.u.Tail == in.last.Tail || in.u.Tail == "" {
		return
	}
	tail, known := in.u.Tail, false
	err := in.m.o.DB.Read(ctx, func(tx *store.Tx) error { // a commit without an answer may have saved it
		return tx.KnownFiles([]string{tail}, func(string) { known = true })
	})
	if err == nil && !known {
		in.erase(ctx, tail)
	}
}

func (in *intake) erase(ctx context.Context, key string) {
	if key != "" {
		in.m.release(func() error { return in.m.blobs.erase(ctx, key) })
	}
}
