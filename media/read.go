package media

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Query says which content is wanted.
type Query struct {
	Server matrix.ServerName
	ID     string
	Wait   time.Duration // for a content that is not uploaded yet; at most longestFilled
	Remote bool          // whether another server may be asked
	User   store.UserNID // who asks, 0 for another server
}

// Content is a content or a thumbnail, open for reading.
type Content struct {
	File io.ReadSeekCloser // reads until the context ends with which it was opened
	Type string
	Name string // of the file, "" if it has none
	Hash []byte // SHA-256
	Size int64
}

// Open opens a content. The caller closes its File.
func (m *Media) Open(ctx context.Context, q Query) (*Content, error) {
	row, err := m.find(ctx, q)
	if err != nil {
		return nil, err
	}
	f, err := m.file(ctx, row)
	if errors.Is(err, errGone) {
		if row, err = m.find(ctx, q); err == nil {
			f, err = m.file(ctx, row)
		}
	}
	if err != nil {
		return nil, err
	}
	return &Content{f, row.Type, row.Name, row.Hash, row.Size}, nil
}

// errGone is that a copy's file is not there: the copy was given up a moment ago, or somebody removed the file.
var errGone = matrix.NotFound("The content is not there any more.")

// file opens the file of a row. A copy without its file is forgotten, so that it can be fetched again.
func (m *Media) file(ctx context.Context, row *store.Media) (io.ReadSeekCloser, error) {
	f, err := m.blobs.open(ctx, row.File, row.Size)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if row.User != 0 {
		m.o.Log.Error("a media file is missing", "file", row.File)
		return nil, errNotFound()
	}
	if _, err := m.forget(ctx, *row); err != nil {
		return nil, err
	}
	return nil, errGone
}

// find reads the row of a content, which may mean to wait for its upload or to fetch it from its server.
func (m *Media) find(ctx context.Context, q Query) (*store.Media, error) {
	if _, err := matrix.ParseServerName(string(q.Server)); err != nil || !idForm.MatchString(q.ID) {
		return nil, errNotFound()
	}
	row, err := m.row(ctx, q)
	switch {
	case err != nil:
		return nil, err
	case row != nil && row.File != "":
		m.used(ctx, row)
		return row, nil
	case q.Server == m.o.Server:
		return m.await(ctx, q)
	case !q.Remote || m.o.Remote == nil:
		return nil, errNotFound()
	}
	return m.fetch(ctx, q)
}

// row reads the row of a content, nil if there is none. Of one that is withdrawn nobody learns that it exists, and none is
// fetched.
func (m *Media) row(ctx context.Context, q Query) (row *store.Media, err error) {
	withdrawn := false
	err = m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Media(q.Server, q.ID)
		switch {
		case err != nil:
		case row == nil:
			withdrawn, err = tx.Withdrawn(q.Server, q.ID)
		default:
			withdrawn = row.Withdrawn
		}
		return err
	})
	if err == nil && withdrawn {
		return nil, errNotFound()
	}
	return row, err
}

// otherNodes is how often to look whether another node has received a content.
const otherNodes = time.Second

// await waits for the content of a reserved ID.
func (m *Media) await(ctx context.Context, q Query) (*store.Media, error) {
	end := time.NewTimer(min(q.Wait, longestFilled))
	defer end.Stop()
	look := time.NewTicker(otherNodes)
	defer look.Stop()
	for {
		m.mu.Lock()
		filled := m.filled
		m.mu.Unlock()
		row, err := m.row(ctx, q)
		switch {
		case err != nil:
			return nil, err
		case row == nil, row.File == "" && row.Expires <= m.nowMS():
			return nil, errNotFound()
		case row.File != "":
			return row, nil
		}
		select {
		case <-filled:
		case <-look.C:
		case <-end.C:
			return nil, matrix.Errorf(http.StatusGatewayTimeout, "M_NOT_YET_UPLOADED", "The content has not been uploaded yet.")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// inline are the content types that a browser may show: it makes nothing of them that could act in the name of this
// server (client-server API, "Serving inline content").
var inline = map[string]bool{
	"text/css": true, "text/plain": true, "text/csv": true, "application/json": true, "application/ld+json": true,
	"image/jpeg": true, "image/gif": true, "image/png": true, "image/apng": true, "image/webp": true, "image/avif": true,
	"video/mp4": true, "video/webm": true, "video/ogg": true, "video/quicktime": true,
	"audio/mp4": true, "audio/webm": true, "audio/aac": true, "audio/mpeg": true, "audio/ogg": true, "audio/wave": true,
	"audio/wav": true, "audio/x-wav": true, "audio/x-pn-wav": true, "audio/flac": true, "audio/x-flac": true,
}

// Disposition is the Content-Disposition of a content: what is not on the list of harmless types is saved, not shown.
func Disposition(contentType, name string) string {
	how := "attachment"
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && inline[kind] {
		how = "inline"
	}
	params := map[string]string{}
	if name != "" && validName(name) {
		params["filename"] = name
	}
	if header := mime.FormatMediaType(how, params); header != "" {
		return header
	}
	return how
}
