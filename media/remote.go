package media

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Remote is the network as this domain needs it.
type Remote interface {
	// Fetch asks a server for one of its contents. What it says of it is a stranger's word; Body may be longer than
	// limit, in which case reading it fails or goes on, and the caller counts. Its errors are for the client.
	Fetch(ctx context.Context, server matrix.ServerName, id string, limit int64, wait time.Duration) (*Fetched, error)
}

// Fetched is a content of another server on its way here.
type Fetched struct {
	Type string
	Name string // of the file, "" if it has none
	Body io.ReadCloser
}

// ErrTooLong is the error of a Body that another server makes longer than the limit.
var ErrTooLong = errors.New("media: the other server's content is longer than allowed")

// Bounds of copies.
const (
	fetchTime  = 10 * time.Minute
	usedEvery  = time.Hour // how exact "last used" is
	staleBatch = 100
	failedTime = time.Minute // how long a refusal is believed
)

// used notes that a copy was needed. That it fails is no reason to refuse it.
func (m *Media) used(ctx context.Context, row *store.Media) {
	now := m.nowMS()
	if row.User != 0 || now-row.Used < usedEvery.Milliseconds() {
		return
	}
	err := m.o.DB.Write(ctx, func(tx *store.Tx) error { return tx.TouchMedia(row.Origin, row.ID, now) })
	if err != nil && ctx.Err() == nil {
		m.o.Log.Warn("noting the use of a media copy failed", "err", err)
	}
}

// fetch makes a copy of another server's content, once for all who ask at the same time. It goes on when they leave.
func (m *Media) fetch(ctx context.Context, q Query) (*store.Media, error) {
	key := mxc{q.Server, q.ID}
	if err := m.failed.get(key); err != nil {
		return nil, err
	}
	if err := m.allowance.check(q.User); err != nil {
		return nil, err
	}
	row, err := m.fetches.Do(ctx, key, func(ctx context.Context) (*store.Media, error) {
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		if row, err := m.row(ctx, q); err != nil || row != nil {
			return row, err // the flight before this one has brought it
		}
		row, err := m.copy(ctx, q)
		var known *matrix.Error
		if errors.As(err, &known) && known.Code != "M_LIMIT_EXCEEDED" && known.Code != "M_NOT_YET_UPLOADED" {
			m.failed.put(key, failedTime, known)
		}
		return row, err
	})
	if err == nil {
		m.allowance.charge(q.User, row.Size)
	}
	return row, err
}

// copy fetches a content into a file and writes its row.
func (m *Media) copy(ctx context.Context, q Query) (*store.Media, error) {
	if !m.busy.take(q.Server) {
		return nil, matrix.LimitExceeded(time.Second.Milliseconds())
	}
	defer m.busy.release(q.Server)
	in, err := m.o.Remote.Fetch(ctx, q.Server, q.ID, m.max, min(q.Wait, longestFilled))
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Body.Close() }()
	d, err := m.blobs.draft()
	if err != nil {
		return nil, explain(err)
	}
	if err := m.copyIn(ctx, d, in.Body, q.Server); err != nil {
		m.release(d.drop)
		return nil, err
	}
	now := m.nowMS()
	row := &store.Media{
		Origin: q.Server, ID: q.ID, File: d.key, Hash: d.sum.Sum(nil), Size: d.size, Type: cleanType(in.Type), Created: now, Used: now,
	}
	if validName(in.Name) {
		row.Name = in.Name
	}
	err = m.commit(ctx, d, func(tx *store.Tx) (bool, error) { return tx.AddMedia(*row) })
	if errors.Is(err, errTaken) { // another node was faster
		return m.row(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	m.makeRoom(ctx, row.Size)
	return row, nil
}

func (m *Media) copyIn(ctx context.Context, d *draft, body io.Reader, server matrix.ServerName) error {
	switch err := d.fill(body, m.max); {
	case errors.Is(err, errLong), errors.Is(err, ErrTooLong):
		return matrix.Errorf(http.StatusBadGateway, "M_TOO_LARGE", "The file is larger than the %d bytes that this server fetches.", m.max)
	case err == nil:
		return explain(d.keep(ctx))
	case errors.As(err, new(*matrix.Error)):
		return err
	default:
		if full := explain(err); full != err {
			return full
		}
		return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The file did not arrive whole from %s.", server).With(err)
	}
}

// makeRoom counts a new copy or thumbnail of one and, if there are too many bytes, gives up the copies that were not
// used for longest. That it fails is no reason to refuse the new one: the next will try again.
func (m *Media) makeRoom(ctx context.Context, added int64) {
	if m.copied.Add(added) <= m.copies {
		return
	}
	if err := m.giveUpCopies(ctx); err != nil {
		m.o.Log.Warn("removing old copies of other servers' content failed", "err", err)
	}
}

func (m *Media) giveUpCopies(ctx context.Context) error {
	for {
		var stale []store.Media
		var bytes int64
		err := m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			stale = nil
			if bytes, err = tx.CopiedMedia(); err != nil {
				return err
			}
			return tx.StaleMedia(staleBatch, func(s store.Media) { stale = append(stale, s) })
		})
		if err != nil {
			return err
		}
		m.copied.Store(bytes)
		// A tenth more than necessary, so that not every new copy comes here.
		want := m.copies - m.copies/10
		for i := 0; i < len(stale) && bytes > want; i++ {
			if _, err := m.forget(ctx, stale[i]); err != nil {
				return err
			}
			bytes -= stale[i].Size
		}
		m.copied.Store(bytes)
		if bytes <= want || len(stale) == 0 {
			return nil
		}
	}
}

// forget removes a content, its thumbnails and their files. Who has one open can still read it, from a folder. It reports
// false if there was none.
func (m *Media) forget(ctx context.Context, row store.Media) (found bool, err error) {
	err = m.dropFiles(ctx, func(tx *store.Tx) (files []string, err error) {
		files, found, err = tx.DeleteMedia(row.Origin, row.ID)
		return files, err
	})
	return found && err == nil, err
}
