package media

import (
	"context"
	"errors"
	"io"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Files of the server's own lie in the store beside contents, under the same rules, and have no address of their own: whoever
// has the row that names one decides who gets it.

// File is such a file.
type File struct {
	Name string // in the store
	Hash []byte // SHA-256
	Size int64
}

// ErrStale is that a file was written for somebody who does not want it any more.
var ErrStale = errors.New("media: nobody wants the file any more")

// KeepFile stores what fill writes and then commits the row that names it; write reports false if the row is not wanted any
// more (ErrStale). When it returns without an error both are durable.
func (m *Media) KeepFile(ctx context.Context, fill func(io.Writer) error, write func(*store.Tx, File) (bool, error)) error {
	d, err := m.blobs.draft()
	if err != nil {
		return explain(err)
	}
	if err = fill(d); err == nil {
		err = d.keep(ctx)
	}
	if err != nil {
		m.release(d.drop)
		return explain(err)
	}
	f := File{d.key, d.sum.Sum(nil), d.size}
	err = m.commit(ctx, d, func(tx *store.Tx) (bool, error) { return write(tx, f) })
	if errors.Is(err, errTaken) {
		err = ErrStale
	}
	return err
}

// OpenFile opens a file. The caller closes it.
func (m *Media) OpenFile(ctx context.Context, f File) (io.ReadSeekCloser, error) {
	return m.blobs.open(ctx, f.Name, f.Size)
}

// dropFiles removes files with the rows that name them, which drop deletes and whose files it returns.
func (m *Media) dropFiles(ctx context.Context, drop func(*store.Tx) ([]string, error)) error {
	var files []string
	err := m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
		if files, err = drop(tx); err != nil {
			return err
		}
		for _, file := range files { // before the commit, so that a crash after it leaves a trace
			if err := m.blobs.mark(file); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err // the markers stay, and the next start finds that the rows are there
	}
	for _, file := range files {
		m.release(func() error { return m.blobs.erase(ctx, file) })
	}
	return nil
}

// DropExport removes what was put together of a user, whether it is ready or not, and nobody goes on with it.
func (m *Media) DropExport(ctx context.Context, user store.UserNID, id matrix.UserID) error {
	return m.dropFiles(ctx, func(tx *store.Tx) ([]string, error) { return dropExport(tx, user, id) })
}

// DropOldExport is DropExport, unless the user has asked for another one since old was read (nil: there was none).
func (m *Media) DropOldExport(ctx context.Context, user store.UserNID, id matrix.UserID, old *store.Export) error {
	return m.dropFiles(ctx, func(tx *store.Tx) ([]string, error) {
		if _, err := tx.LockAccount(user); err != nil { // which whoever asks for one does too
			return nil, err
		}
		now, err := tx.Export(user)
		if err != nil || now != nil && (old == nil || now.Asked != old.Asked) {
			return nil, err
		}
		return dropExport(tx, user, id)
	})
}

func dropExport(tx *store.Tx, user store.UserNID, id matrix.UserID) ([]string, error) {
	if err := tx.CancelJob(store.JobExport, string(id)); err != nil {
		return nil, err
	}
	return tx.DropExport(user)
}

// DropExportParts removes the parts of what was put together of a user, which are in the whole by now.
func (m *Media) DropExportParts(ctx context.Context, user store.UserNID) error {
	return m.dropFiles(ctx, func(tx *store.Tx) ([]string, error) { return tx.DropExportParts(user) })
}
