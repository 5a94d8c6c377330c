package media

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// Upload is a content on its way in.
type Upload struct {
	Type   string // Content-Type as the client says
	Name   string // of the file; "" = none
	Length int64  // as announced, -1 if it was not
	Body   io.Reader
}

// Bounds of uploads.
const (
	maxName       = 255 // bytes
	maxType       = 255
	reservedTime  = 24 * time.Hour
	maxReserved   = 20 // of one user
	longestFilled = 60 * time.Second
)

// Upload stores a content of a user and returns its ID. When it returns, bytes and row are durable.
func (m *Media) Upload(ctx context.Context, user store.UserNID, in Upload) (id string, err error) {
	row, err := m.describe(ctx, user, in)
	if err != nil {
		return "", err
	}
	row.ID = newID()
	err = m.store(ctx, row, in, func(tx *store.Tx) (bool, error) { return tx.AddMedia(*row) })
	return row.ID, err
}

// Reserve makes an ID whose content comes later, until expires (ms).
func (m *Media) Reserve(ctx context.Context, user store.UserNID) (id string, expires int64, err error) {
	id, now := newID(), m.nowMS()
	expires = now + reservedTime.Milliseconds()
	err = m.o.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.StillOpen(user); err != nil {
			return err
		}
		if err := tx.LockMediaUse(user); err != nil { // so that two at once do not both get the last place
			return err
		}
		n, err := tx.ReservedMedia(user, now)
		if err != nil {
			return err
		}
		if n >= maxReserved {
			return matrix.LimitExceeded(time.Minute.Milliseconds())
		}
		_, err = tx.AddMedia(store.Media{Origin: m.o.Server, ID: id, User: user, Created: now, Used: now, Expires: expires})
		return err
	})
	return id, expires, err
}

// Fill stores the content of an ID that the same user has reserved.
func (m *Media) Fill(ctx context.Context, user store.UserNID, server matrix.ServerName, id string, in Upload) error {
	if err := m.mayFill(ctx, user, server, id); err != nil {
		return err
	}
	row, err := m.describe(ctx, user, in)
	if err != nil {
		return err
	}
	row.ID = id
	err = m.store(ctx, row, in, func(tx *store.Tx) (bool, error) { return tx.FillMedia(*row, m.nowMS()) })
	if errors.Is(err, errTaken) { // another upload was faster, or the time ran out meanwhile
		if err := m.mayFill(ctx, user, server, id); err != nil {
			return err
		}
	}
	if err == nil {
		m.wake()
	}
	return err
}

// mayFill says what is wrong with an ID before its content is read.
func (m *Media) mayFill(ctx context.Context, user store.UserNID, server matrix.ServerName, id string) error {
	var row *store.Media
	if server == m.o.Server && idForm.MatchString(id) {
		err := m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			row, err = tx.Media(server, id)
			return err
		})
		if err != nil {
			return err
		}
	}
	switch {
	case row == nil, row.Withdrawn, row.File == "" && row.Expires <= m.nowMS():
		return matrix.NotFound("This media ID was not reserved, or no longer is.")
	case row.User != user:
		return matrix.Forbidden("This media ID was reserved by somebody else.")
	case row.File != "":
		return matrix.Errorf(http.StatusConflict, "M_CANNOT_OVERWRITE_MEDIA", "This media ID has its content already.")
	}
	return nil
}

// errTaken is that a row could not be written because another was faster.
var errTaken = errors.New("media: the ID is taken")

// describe makes the row of an upload as far as it is known before the bytes are, and refuses what cannot be stored.
func (m *Media) describe(ctx context.Context, user store.UserNID, in Upload) (*store.Media, error) {
	if in.Length > m.max {
		return nil, m.tooLarge()
	}
	if err := m.uploaded.check(user); err != nil {
		return nil, err
	}
	if err := m.mayStore(ctx, user, max(0, in.Length)); err != nil {
		return nil, err
	}
	if !validName(in.Name) {
		return nil, errName()
	}
	now := m.nowMS()
	return &store.Media{Origin: m.o.Server, User: user, Type: cleanType(in.Type), Name: in.Name, Created: now, Used: now}, nil
}

func errName() error {
	return matrix.InvalidParam("A file's name has at most %d bytes, and no control characters.", maxName)
}

func (m *Media) tooLarge() error {
	return matrix.TooLarge("A file has at most %d bytes on this server.", m.max)
}

func validName(name string) bool {
	return len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// cleanType is a content type in its ordinary spelling, or that of unknown bytes.
func cleanType(text string) string {
	kind, params, err := mime.ParseMediaType(text)
	if err == nil && strings.Contains(kind, "/") {
		if text = mime.FormatMediaType(kind, params); text != "" && len(text) <= maxType {
			return text
		}
	}
	return "application/octet-stream"
}

// store takes in the bytes of a content and then writes its row, which it completes. write reports false if the row
// cannot be written.
func (m *Media) store(ctx context.Context, row *store.Media, in Upload, write func(*store.Tx) (bool, error)) error {
	d, err := m.blobs.draft()
	if err != nil {
		return explain(err)
	}
	err = m.takeIn(ctx, d, in.Body)
	m.uploaded.charge(row.User, d.size)
	if err != nil {
		m.release(d.drop)
		return err
	}
	row.File, row.Hash, row.Size = d.key, d.sum.Sum(nil), d.size
	return m.commit(ctx, d, func(tx *store.Tx) (bool, error) {
		if err := tx.StillOpen(row.User); err != nil {
			return false, err
		}
		if err := m.within(tx, row.User, row.Size); err != nil {
			return false, err
		}
		return write(tx)
	})
}

func (m *Media) takeIn(ctx context.Context, d *draft, body io.Reader) error {
	switch err := d.fill(body, m.max); {
	case errors.Is(err, errLong):
		return m.tooLarge()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return matrix.Errorf(http.StatusBadRequest, "M_UNKNOWN", "The upload did not come whole.").With(err)
	case err != nil:
		return explain(err)
	}
	return explain(d.keep(ctx))
}

// commit writes the row of a file that is in its place.
func (m *Media) commit(ctx context.Context, d *draft, write func(*store.Tx) (bool, error)) error {
	work.Failpoint("media.file.kept")
	err := m.o.DB.Write(ctx, func(tx *store.Tx) error {
		written, err := write(tx)
		if err == nil && !written {
			err = errTaken
		}
		return err
	})
	work.Failpoint("media.row.committed")
	switch {
	case err == nil:
		m.release(func() error { return d.b.settle(d.key) })
	case errors.Is(err, store.ErrUnknown): // perhaps there is a row: the next start looks
	default:
		m.release(d.drop)
	}
	return err
}

// wake tells those who wait for a reserved ID to look again.
func (m *Media) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.filled)
	m.filled = make(chan struct{})
}
