package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"conclave/internal/store"
)

// vault is where whole files are, by their keys. What it says is done is durable.
type vault interface {
	// put stores a file under a key. When it returns, length and hash of what is there are those of the file.
	put(ctx context.Context, key string, from *os.File, size int64, sum []byte) error
	// open opens a file that has a size, for reading until ctx ends. The error is fs.ErrNotExist if it is not there.
	open(ctx context.Context, key string, size int64) (io.ReadSeekCloser, error)
	// size is how many bytes a file has; fs.ErrNotExist if it is not there.
	size(ctx context.Context, key string) (int64, error)
	// remove removes a file. That it is not there is no error.
	remove(ctx context.Context, key string) error

	// take stores up to pieceBytes of what in gives, or less if in ends, behind the bytes that an upload has, and changes
	// the upload to say so. The piece is nil unless a row has to name it. errLost is that earlier bytes are gone.
	take(ctx context.Context, u *store.MediaUpload, in io.Reader) (*piece, error)
	// finish makes a file of an upload that has all its bytes. It can be repeated, and goes on where a crash has stopped it.
	finish(ctx context.Context, u store.MediaUpload, pieces []piece) error
	// abandon removes what there is under a key, a file or what an upload has gathered.
	abandon(ctx context.Context, key string) error
}

// pieceBytes is how much of an upload is stored and acknowledged at a time: a piece of an S3 multipart upload, of which
// there may be 10,000, and of which all but the last have at least 5 MiB.
const pieceBytes = 16 << 20

// piece is a part of an upload that the vault has stored under a number from 1.
type piece struct {
	number int
	etag   string
}

// errLost is that bytes of an upload that were acknowledged are not there: somebody removed them.
var errLost = errors.New("media: what was uploaded is not there any more")

// folder is the vault that is a folder of this machine's disk: whole files in files/, those of uploads that come in
// pieces in growing/ until they are whole.
type folder struct{ files, growing string }

// openFolder opens the vault below a folder.
func openFolder(root string) func(marks) (vault, error) {
	return func(marks) (vault, error) {
		f := &folder{filepath.Join(root, "files"), filepath.Join(root, "growing")}
		for _, dir := range []string{f.files, f.growing} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, fmt.Errorf("preparing the media store: %w", err)
			}
		}
		return f, nil
	}
}

// path is where a file lives. Its first two letters are its folder, so that none grows too large.
func (f *folder) path(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	return filepath.Join(f.files, key[:2], key[2:]), nil
}

func (f *folder) put(_ context.Context, key string, from *os.File, _ int64, _ []byte) error {
	if err := from.Sync(); err != nil {
		return err
	}
	return f.place(from.Name(), key)
}

// place gives a durable file its name.
func (f *folder) place(from, key string) error {
	path, err := f.path(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		if err := syncDir(f.files); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := os.Rename(from, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func (f *folder) open(_ context.Context, key string, _ int64) (io.ReadSeekCloser, error) {
	path, err := f.path(key)
	if err != nil {
		return nil, err
	}
	return os.Open(path) //nolint:gosec // a name of our own making, checked by path
}

func (f *folder) size(_ context.Context, key string) (int64, error) {
	path, err := f.path(key)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *folder) remove(_ context.Context, key string) error {
	path, err := f.path(key)
	if err != nil {
		return err
	}
	return ignoreMissing(os.Remove(path))
}

func (f *folder) take(_ context.Context, u *store.MediaUpload, in io.Reader) (*piece, error) {
	if err := checkKey(u.File); err != nil {
		return nil, err
	}
	file, err := f.grown(u.File, u.Received)
	if err != nil {
		return nil, err
	}
	n, err := addTo(file, u.Received, in)
	if err == nil && u.Received == 0 { // the file's name has to last, too
		err = syncDir(f.growing)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	u.Received += n
	return nil, nil
}

// grown opens the file of an upload that has some bytes, or makes it where there are none yet.
func (f *folder) grown(key string, have int64) (*os.File, error) {
	flags := os.O_WRONLY
	if have == 0 {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(filepath.Join(f.growing, key), flags, 0o600) //nolint:gosec // likewise
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errLost
	}
	return file, err
}

// addTo writes a piece behind the first bytes of a file. What is there behind them was never acknowledged.
func addTo(file *os.File, have int64, in io.Reader) (n int64, err error) {
	end, err := file.Seek(0, io.SeekEnd)
	switch {
	case err != nil:
		return 0, err
	case end < have:
		return 0, errLost
	case end > have:
		if err := file.Truncate(have); err != nil {
			return 0, err
		}
	}
	if _, err := file.Seek(have, io.SeekStart); err != nil {
		return 0, err
	}
	n, err = io.CopyBuffer(struct{ io.Writer }{file}, io.LimitReader(in, pieceBytes), make([]byte, copyBuffer))
	if err != nil {
		return 0, err
	}
	return n, file.Sync()
}

func (f *folder) finish(ctx context.Context, u store.MediaUpload, _ []piece) error {
	if have, err := f.size(ctx, u.File); err == nil && have == u.Length {
		return nil // a crash came after it had its name
	}
	file, err := f.grown(u.File, u.Length)
	if err != nil {
		return err
	}
	_, err = addTo(file, u.Length, io.LimitReader(nil, 0)) // cuts off what is behind the end, and writes nothing
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return f.place(filepath.Join(f.growing, u.File), u.File)
}

func (f *folder) abandon(ctx context.Context, key string) error {
	if err := f.remove(ctx, key); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(filepath.Join(f.growing, key)))
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // likewise
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
