package media

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of thumbnails (threats M03).
const (
	thumbnailWorkers = 2
	thumbnailTime    = 10 * time.Second // of reading and decoding one, after which its source ends
	thumbnailWait    = 30 * time.Second // for a place and the work
	unsuitableTime   = time.Hour
	maxThumbnailSide = 10_000
)

// thumbKey names a thumbnail.
type thumbKey struct {
	mxc
	size store.ThumbnailSize
}

// scaled are the boxes into which images are fitted, and squares the longer sides of those that they fill. Every wish is
// rounded up to one of them, so that a content has a few dozen thumbnails at most, however many sizes are asked for.
var (
	scaled  = []store.ThumbnailSize{{Width: 320, Height: 240}, {Width: 640, Height: 480}, {Width: 800, Height: 600}, {Width: 1600, Height: 1200}}
	squares = []int{32, 96, 320, 640, 800}
)

// round is the size that is made for a wish; false means that only the content itself is large enough.
func round(want store.ThumbnailSize) (store.ThumbnailSize, bool) {
	if !want.Crop {
		i := slices.IndexFunc(scaled, func(s store.ThumbnailSize) bool { return s.Width >= want.Width && s.Height >= want.Height })
		if i < 0 {
			return want, false
		}
		return scaled[i], true
	}
	long, short := max(want.Width, want.Height), min(want.Width, want.Height)
	i := slices.IndexFunc(squares, func(side int) bool { return side >= long })
	if i < 0 {
		return want, false
	}
	side := squares[i]
	other := side * ((8*short + long - 1) / long) / 8 // the proportions to an eighth
	if want.Width >= want.Height {
		return store.ThumbnailSize{Width: side, Height: other, Crop: true}, true
	}
	return store.ThumbnailSize{Width: other, Height: side, Crop: true}, true
}

// ParseSize reads the parameters width, height, method and animated of a request for a thumbnail.
func ParseSize(width, height, method, animated string) (store.ThumbnailSize, error) {
	var size store.ThumbnailSize
	w, err := strconv.Atoi(width)
	h, err2 := strconv.Atoi(height)
	if err != nil || err2 != nil || w < 1 || h < 1 || w > maxThumbnailSide || h > maxThumbnailSide {
		return size, matrix.InvalidParam("A thumbnail's width and height are whole numbers from 1 to %d.", maxThumbnailSide)
	}
	if method != "" && method != "crop" && method != "scale" {
		return size, matrix.InvalidParam("A thumbnail's method is crop or scale.")
	}
	if animated != "" && animated != "true" && animated != "false" {
		return size, matrix.InvalidParam("animated is true or false.")
	}
	return store.ThumbnailSize{Width: w, Height: h, Crop: method == "crop", Moving: animated == "true"}, nil
}

// Thumbnail opens a small image of a content, at least as large as wanted where the content is. It is made when first
// asked for. The caller closes its File.
func (m *Media) Thumbnail(ctx context.Context, q Query, want store.ThumbnailSize) (*Content, error) {
	row, err := m.find(ctx, q)
	if err != nil {
		return nil, err
	}
	size, small := round(want)
	if !small {
		size = store.ThumbnailSize{} // everything that is too large shares one answer
	}
	size.Moving = want.Moving && (row.Type == "image/gif" || row.Type == "image/webp") // nothing else moves here
	t, err := m.thumbnail(ctx, row, size)
	if err != nil {
		return nil, err
	}
	if t.File == "" {
		f, err := m.file(ctx, row)
		if err != nil {
			return nil, err
		}
		return &Content{f, t.Type, "", row.Hash, row.Size}, nil
	}
	f, err := m.blobs.open(ctx, t.File, t.Size)
	if errors.Is(err, fs.ErrNotExist) { // its copy was given up a moment ago
		return nil, errNotFound()
	}
	if err != nil {
		return nil, err
	}
	return &Content{f, t.Type, "thumbnail" + endings[t.Type], t.Hash, t.Size}, nil
}

var endings = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif"}

// thumbnail finds a thumbnail or makes it, once for all who ask at the same time.
func (m *Media) thumbnail(ctx context.Context, row *store.Media, size store.ThumbnailSize) (*store.Thumbnail, error) {
	key := thumbKey{mxc{row.Origin, row.ID}, size}
	read := func(ctx context.Context) (found *store.Thumbnail, err error) {
		err = m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			found, err = tx.Thumbnail(row.Origin, row.ID, size)
			return err
		})
		return found, err
	}
	if found, err := read(ctx); found != nil || err != nil {
		return found, err
	}
	if err := m.unsuitable.get(key.mxc); err != nil {
		return nil, err
	}
	return m.making.Do(ctx, key, func(ctx context.Context) (*store.Thumbnail, error) {
		ctx, cancel := context.WithTimeout(ctx, thumbnailWait)
		defer cancel()
		select {
		case m.workers <- struct{}{}:
		case <-ctx.Done():
			return nil, matrix.LimitExceeded(5000)
		}
		defer func() { <-m.workers }()
		t, err := m.makeThumbnail(ctx, row, size)
		if errors.Is(err, errTaken) { // another node was faster, or the content is gone
			if t, err = read(ctx); t == nil && err == nil {
				err = errNotFound()
			}
		}
		return t, err
	})
}

// makeThumbnail makes a thumbnail and stores it.
func (m *Media) makeThumbnail(ctx context.Context, row *store.Media, size store.ThumbnailSize) (*store.Thumbnail, error) {
	f, err := m.file(ctx, row)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	made, err := shrink(f, size, time.Now().Add(thumbnailTime))
	if err != nil {
		refusal := m.notSuitable(row, err)
		m.unsuitable.put(mxc{row.Origin, row.ID}, unsuitableTime, refusal)
		return nil, refusal
	}
	t := &store.Thumbnail{ThumbnailSize: size, Type: made.kind, Hash: row.Hash}
	if made.data == nil { // the content serves as it is
		err := m.o.DB.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.AddThumbnail(row.Origin, row.ID, *t)
			return err
		})
		return t, err
	}
	return t, m.storeThumbnail(ctx, row, t, made.data)
}

func (m *Media) storeThumbnail(ctx context.Context, row *store.Media, t *store.Thumbnail, data []byte) error {
	d, err := m.blobs.draft()
	if err != nil {
		return explain(err)
	}
	_, err = io.Copy(struct{ io.Writer }{d}, bytes.NewReader(data))
	if err == nil {
		err = d.keep(ctx)
	}
	if err != nil {
		m.release(d.drop)
		return explain(err)
	}
	t.File, t.Hash, t.Size = d.key, d.sum.Sum(nil), d.size
	err = m.commit(ctx, d, func(tx *store.Tx) (bool, error) { return tx.AddThumbnail(row.Origin, row.ID, *t) })
	if err == nil && row.User == 0 {
		m.makeRoom(ctx, t.Size)
	}
	return err
}

// notSuitable is what a client is told of a content without thumbnails.
func (m *Media) notSuitable(row *store.Media, err error) error {
	if !errors.Is(err, errPixels) {
		return matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "There are no thumbnails of this content.").With(err)
	}
	status := http.StatusRequestEntityTooLarge
	if row.User == 0 {
		status = http.StatusBadGateway
	}
	return matrix.Errorf(status, "M_TOO_LARGE", "The image is too large for a thumbnail.").With(err)
}
