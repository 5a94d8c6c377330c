package media

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// blobs is the file store. A file bears a random name, never one from outside (threats M01), and never changes.
//
// Whatever is about to be added or removed has a marker in pending/ for as long as file and row may disagree: it is made
// before the first of both changes and removed after the second. After a crash the markers name the only files that can
// be without a row (threats D02: nothing else is ever looked at for removal).
type blobs struct{ files, pending string }

// partial ends the name of a file that is still being written.
const partial = ".part"

// keyForm is what a file's name looks like.
var keyForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

func openBlobs(root string) (*blobs, error) {
	b := &blobs{filepath.Join(root, "files"), filepath.Join(root, "pending")}
	for _, dir := range []string{root, b.files, b.pending} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("preparing the media store: %w", err)
		}
	}
	return b, nil
}

// path is where a file lives. Its first two letters are its folder, so that none grows too large.
func (b *blobs) path(key string) (string, error) {
	if !keyForm.MatchString(key) {
		return "", fmt.Errorf("%q is not the name of a media file", key)
	}
	return filepath.Join(b.files, key[:2], key[2:]), nil
}

func (b *blobs) marker(key string) string { return filepath.Join(b.pending, key) }

func (b *blobs) open(key string) (*os.File, error) {
	path, err := b.path(key)
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// mark notes that a file and its row are about to change.
func (b *blobs) mark(key string) error {
	f, err := os.OpenFile(b.marker(key), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// settle notes that file and row agree again.
func (b *blobs) settle(key string) error { return ignoreMissing(os.Remove(b.marker(key))) }

// remove removes a file that no row names any more, and then its marker.
func (b *blobs) remove(key string) error {
	path, err := b.path(key)
	if err != nil {
		return err
	}
	if err := ignoreMissing(os.Remove(path)); err != nil {
		return err
	}
	return b.settle(key)
}

// unsettled lists what a crash has left: the keys of all markers. Half-written files are removed on the way.
func (b *blobs) unsettled() (keys []string, err error) {
	entries, err := os.ReadDir(b.pending)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasSuffix(name, partial):
			err = errors.Join(err, os.Remove(filepath.Join(b.pending, name)))
		case keyForm.MatchString(name):
			keys = append(keys, name)
		}
	}
	return keys, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// draft is a file that is being written.
type draft struct {
	b    *blobs
	key  string
	file *os.File
	sum  hash.Hash
	size int64
}

// draft begins a file. It ends by keep and settled, or by drop.
func (b *blobs) draft() (*draft, error) {
	var random [16]byte
	rand.Read(random[:])
	key := hex.EncodeToString(random[:])
	if err := b.mark(key); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(b.marker(key)+partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(err, b.settle(key))
	}
	return &draft{b: b, key: key, file: f, sum: sha256.New()}, nil
}

// Write implements io.Writer.
func (d *draft) Write(p []byte) (int, error) {
	n, err := d.file.Write(p)
	d.sum.Write(p[:n])
	d.size += int64(n)
	return n, err
}

// errLong is that a content is longer than allowed.
var errLong = errors.New("media: longer than allowed")

// fill copies a content of at most limit bytes into the file.
func (d *draft) fill(r io.Reader, limit int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{d}, io.LimitReader(r, limit+1), make([]byte, 128<<10))
	if err == nil && n > limit {
		err = errLong
	}
	return err
}

// keep makes the file durable and gives it its name. Until a row names it too it can still be dropped.
func (d *draft) keep() error {
	path, err := d.b.path(d.key)
	if err != nil {
		return err
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	if err := d.file.Close(); err != nil {
		return err
	}
	folder := filepath.Dir(path)
	switch err := os.Mkdir(folder, 0o700); {
	case err == nil:
		if err := syncDir(d.b.files); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if err := os.Rename(d.b.marker(d.key)+partial, path); err != nil {
		return err
	}
	return syncDir(folder)
}

// drop removes every trace of the file.
func (d *draft) drop() error {
	_ = d.file.Close() // closed already if it was kept
	if err := ignoreMissing(os.Remove(d.b.marker(d.key) + partial)); err != nil {
		return err
	}
	return d.b.remove(d.key)
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
