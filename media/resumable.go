package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// An upload in pieces is a row that says how far it has come, and bytes in the vault: at least as many. What the row says
// was durable before the row was written, and only what the row says is told to the client. So a crash loses nothing that
// was acknowledged, and what it leaves beyond that is written over.
//
// On a folder one node writes. On S3 everything is in the bucket and the database, and any node goes on where another has
// ended: the newest request draws a number (fence), and what an older one still does is not saved any more.

// Bounds of uploads in pieces.
const (
	maxUnfinished = 10                 // of one user
	unfinishedFor = 24 * time.Hour     // after the last bytes
	unfinishedEnd = 7 * 24 * time.Hour // in all
	pieceTime     = 30 * time.Second   // after which a piece ends, however slowly it comes: what is not saved can be lost
	takeOverTime  = 30 * time.Second   // for the request before to end
	finishTime    = 10 * time.Minute
)

// Resumable is an upload in pieces as it is announced.
type Resumable struct {
	Length int64
	Type   string // Content-Type as the client says
	Name   string // of the file; "" = none
	SHA256 []byte // of the whole; nil = not announced
}

// Progress is how far an upload in pieces has come.
type Progress struct {
	ID       string
	Received int64 // bytes that are durable
	Length   int64
	Type     string
	Name     string
	SHA256   []byte // as announced
	Expires  int64  // ms, when it is given up; 0 if it is complete
	URI      string // of the content, "" until it is complete
}

// Chunk is what one request adds to an upload in pieces.
type Chunk struct {
	Offset int64 // where it begins
	Length int64 // as announced, -1 if it was not
	Body   io.Reader
	Stop   func()    // makes reading the body fail at once: another request goes on
	Sum    hash.Hash // with Want, the chunk counts only whole, and if its sum is this; nil = no matter
	Want   []byte
}

// MaxResumable is how many bytes an upload in pieces may have.
func (m *Media) MaxResumable() int64 { return m.o.Config.Media.MaxResumableBytes }

// Begin announces an upload in pieces.
func (m *Media) Begin(ctx context.Context, user store.UserNID, in Resumable) (*Progress, error) {
	switch {
	case in.Length < 0:
		return nil, matrix.InvalidParam("The length of an upload is a number of bytes.")
	case in.Length > m.MaxResumable():
		return nil, matrix.TooLarge("A file has at most %d bytes on this server.", m.MaxResumable())
	case !validName(in.Name):
		return nil, errName()
	case in.SHA256 != nil && len(in.SHA256) != sha256.Size:
		return nil, matrix.InvalidParam("The SHA-256 of a file has %d bytes.", sha256.Size)
	}
	if err := m.uploaded.check(user); err != nil {
		return nil, err
	}
	now := m.nowMS()
	u := store.MediaUpload{
		ID: newID(), User: user, File: newKey(), Length: in.Length, Sum: saved(sha256.New()), Wanted: in.SHA256, Type: cleanType(in.Type), Name: in.Name,
		Created: now, Expires: now + unfinishedFor.Milliseconds(),
	}
	if err := m.o.DB.Write(ctx, func(tx *store.Tx) error { return m.begin(tx, u) }); err != nil {
		return nil, err
	}
	if u.Length == 0 {
		return m.Progress(ctx, user, u.ID)
	}
	return m.progress(&u), nil
}

func (m *Media) begin(tx *store.Tx, u store.MediaUpload) error {
	if err := tx.StillOpen(u.User); err != nil {
		return err
	}
	if err := tx.LockMediaUse(u.User); err != nil {
		return err
	}
	n, err := tx.CountMediaUploads(u.User)
	if err != nil {
		return err
	}
	if n >= maxUnfinished {
		return matrix.LimitExceeded(time.Minute.Milliseconds())
	}
	if err := m.within(tx, u.User, u.Length); err != nil {
		return err
	}
	if err := tx.AddMediaUpload(u); err != nil {
		return err
	}
	return tx.AddJob(store.JobUpload, u.ID, u.Expires)
}

func (m *Media) progress(u *store.MediaUpload) *Progress {
	return &Progress{ID: u.ID, Received: u.Received, Length: u.Length, Type: u.Type, Name: u.Name, SHA256: u.Wanted, Expires: u.Expires}
}

func errNoUpload() error {
	return matrix.NotFound("There is no such upload of yours, or its time has ended.")
}

// upload looks for an upload of a user, or for the content that it has become.
func (m *Media) upload(ctx context.Context, user store.UserNID, id string) (u *store.MediaUpload, done *Progress, err error) {
	if !idForm.MatchString(id) {
		return nil, nil, errNoUpload()
	}
	var row *store.Media
	err = m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		row = nil
		if u, err = tx.MediaUpload(id); err == nil && u == nil {
			row, err = tx.Media(m.o.Server, id)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, nil, err
	case u != nil && u.User == user && u.Expires > m.nowMS():
		return u, nil, nil
	case row != nil && row.User == user && row.File != "":
		return nil, &Progress{ID: id, Received: row.Size, Length: row.Size, Type: row.Type, Name: row.Name, URI: m.URI(id)}, nil
	}
	return nil, nil, errNoUpload()
}

// Progress says how far an upload has come. A request that is still bringing bytes is ended, so that it holds; an upload
// that has all its bytes is completed.
func (m *Media) Progress(ctx context.Context, user store.UserNID, id string) (*Progress, error) {
	_, done, err := m.upload(ctx, user, id)
	if err != nil || done != nil {
		return done, err
	}
	leave, err := m.enter(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	defer leave()
	u, done, err := m.upload(ctx, user, id)
	if err != nil || done != nil {
		return done, err
	}
	if u.Received < u.Length {
		return m.progress(u), nil
	}
	if u, err = m.takeUpload(ctx, user, id, u.Length); err != nil {
		return nil, err
	}
	return m.complete(ctx, u)
}

// Continue takes in what a request adds to an upload. Its answer says what is durable; with an error, Progress does. When
// the upload has all its bytes it becomes a content, whose URI the answer has.
func (m *Media) Continue(ctx context.Context, user store.UserNID, id string, c Chunk) (*Progress, error) {
	_, done, err := m.upload(ctx, user, id)
	if err != nil {
		return nil, err
	}
	if done != nil {
		return done, at(done.Received, c.Offset)
	}
	leave, err := m.enter(ctx, id, c.Stop)
	if err != nil {
		return nil, err
	}
	defer leave()
	u, err := m.takeUpload(ctx, user, id, c.Offset)
	if err != nil {
		return nil, err
	}
	if c.Length > u.Length-u.Received {
		return nil, matrix.TooLarge("The upload lacks %d bytes, and the request has more.", u.Length-u.Received)
	}
	ctx = context.WithoutCancel(ctx) // what has come is kept when the client goes
	if err := m.takePieces(ctx, u, c); err != nil {
		return nil, err
	}
	if u.Received < u.Length {
		return m.progress(u), nil
	}
	return m.complete(ctx, u)
}

// at refuses bytes that do not go on where an upload is.
func at(received, offset int64) error {
	if received == offset {
		return nil
	}
	return matrix.Errorf(http.StatusConflict, "M_UNKNOWN", "The upload goes on at byte %d, not at %d.", received, offset).WithField("upload_offset", received)
}

// takeUpload makes a request the one that may write to an upload.
func (m *Media) takeUpload(ctx context.Context, user store.UserNID, id string, offset int64) (u *store.MediaUpload, err error) {
	err = m.o.DB.Write(ctx, func(tx *store.Tx) error {
		if u, err = tx.TakeMediaUpload(id); err != nil {
			return err
		}
		if u == nil || u.User != user {
			return errNoUpload()
		}
		return at(u.Received, offset)
	})
	return u, err
}

// errOvertaken is that another request, on this node or another, goes on with an upload.
func errOvertaken() error {
	return matrix.Errorf(http.StatusConflict, "M_UNKNOWN", "Another request goes on with this upload, or has ended it.")
}

// complete makes a content of an upload that has all its bytes.
func (m *Media) complete(ctx context.Context, u *store.MediaUpload) (*Progress, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	sum, err := resumed(u.Sum)
	if err != nil {
		return nil, err
	}
	total := sum.Sum(nil)
	if u.Wanted != nil && !bytes.Equal(total, u.Wanted) {
		m.release(func() error { return m.discard(ctx, *u) })
		return nil, errSum("The file's")
	}
	var pieces []piece
	err = m.o.DB.Read(ctx, func(tx *store.Tx) error {
		pieces = nil
		return tx.MediaPieces(u.ID, func(number int, etag string) { pieces = append(pieces, piece{number, etag}) })
	})
	if err != nil {
		return nil, err
	}
	if err := m.blobs.finish(ctx, *u, pieces); err != nil {
		return nil, m.lost(ctx, *u, err)
	}
	work.Failpoint("media.upload.finished")
	now := m.nowMS()
	row := store.Media{
		Origin: m.o.Server, ID: u.ID, User: u.User, File: u.File, Hash: total, Size: u.Length, Type: u.Type, Name: u.Name, Created: now, Used: now,
	}
	err = m.o.DB.Write(ctx, func(tx *store.Tx) error {
		mine, err := tx.EndMediaUpload(u.ID, u.Fence)
		if err == nil && mine {
			mine, err = tx.AddMedia(row)
		}
		if err == nil && !mine {
			err = errOvertaken()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	p := m.progress(u)
	p.URI, p.Expires = m.URI(u.ID), 0
	return p, nil
}

// errSum is that bytes are not those that the client has sent.
func errSum(whose string) error {
	return matrix.Errorf(StatusChecksum, "M_INVALID_PARAM", "%s bytes do not have the announced checksum.", whose)
}

// StatusChecksum is the status of tus for bytes that do not have their checksum.
const StatusChecksum = 460

// lost gives an upload up if its earlier bytes are gone.
func (m *Media) lost(ctx context.Context, u store.MediaUpload, err error) error {
	if !errors.Is(err, errLost) {
		return explain(err)
	}
	m.o.Log.Error("the bytes of an unfinished upload are missing", "file", u.File)
	m.release(func() error { return m.discard(ctx, u) })
	return errNoUpload()
}

// GiveUp ends an upload that is not complete, and removes its bytes.
func (m *Media) GiveUp(ctx context.Context, user store.UserNID, id string) error {
	u, _, err := m.upload(ctx, user, id)
	if err != nil {
		return err
	}
	if u == nil {
		return matrix.Errorf(http.StatusConflict, "M_CANNOT_OVERWRITE_MEDIA", "The upload is complete.")
	}
	leave, err := m.enter(ctx, id, nil)
	if err != nil {
		return err
	}
	defer leave()
	return m.discard(ctx, *u)
}

// discard removes the rows and the bytes of an upload.
func (m *Media) discard(ctx context.Context, u store.MediaUpload) error {
	var keys []string
	err := m.o.DB.Write(ctx, func(tx *store.Tx) error {
		keys = nil
		now, err := tx.TakeMediaUpload(u.ID)
		if err != nil || now == nil {
			return err
		}
		for _, key := range []string{now.File, now.Tail} {
			if key == "" {
				continue
			}
			if err := m.blobs.mark(key); err != nil {
				return err
			}
			keys = append(keys, key)
		}
		_, err = tx.EndMediaUpload(now.ID, now.Fence)
		return err
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		m.release(func() error { return m.blobs.erase(ctx, key) })
	}
	return nil
}

// saved is the state of a running hash, as a row keeps it.
func saved(h hash.Hash) []byte {
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(fmt.Sprintf("media: the state of a SHA-256 cannot be written: %v", err)) // it always can
	}
	return state
}

// resumed is a running hash out of a row.
func resumed(state []byte) (hash.Hash, error) {
	h := sha256.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("the state of a SHA-256 cannot be read: %w", err)
	}
	return h, nil
}
