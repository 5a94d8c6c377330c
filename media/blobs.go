package media

import (
	"context"
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
	"time"
)

// blobs is the store of files. A file bears a random name, never one from outside (threats M01), and never changes. It is
// written into a draft on this machine first, and then given to the vault, which is a folder or an S3 bucket.
type blobs struct {
	marks
	vault
}

// removeTime bounds the removal of a file, which goes on when its request has ended.
const removeTime = 30 * time.Second

// openBlobs opens the store below a folder; the vault is made when the folders are there.
func openBlobs(root string, open func(marks) (vault, error)) (*blobs, error) {
	m := marks{filepath.Join(root, "pending")}
	for _, dir := range []string{root, m.dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("preparing the media store: %w", err)
		}
	}
	v, err := open(m)
	if err != nil {
		return nil, err
	}
	return &blobs{m, v}, nil
}

// erase removes a file that no row names any more, or what there is of it, and then its marker.
func (b *blobs) erase(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	if err := b.abandon(ctx, key); err != nil {
		return err
	}
	return b.settle(key)
}

// marks are the markers of files that are about to be added or removed: one is there for as long as file and row may
// disagree, made before the first of both changes and removed after the second. After a crash they name the only files
// that can be without a row (threats D02: nothing else is ever looked at for removal). They are on the disk of the node
// that makes the change, so that no other takes them for what a crash has left.
type marks struct{ dir string }

// partial ends the name of a draft.
const partial = ".part"

// keyForm is what a file's name looks like.
var keyForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

func newKey() string {
	var random [16]byte
	rand.Read(random[:])
	return hex.EncodeToString(random[:])
}

// errKey is the refusal of a name that no file of ours has.
func checkKey(key string) error {
	if !keyForm.MatchString(key) {
		return fmt.Errorf("%q is not the name of a media file", key)
	}
	return nil
}

func (m marks) marker(key string) string { return filepath.Join(m.dir, key) }

// mark notes that a file and its row are about to change.
func (m marks) mark(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	f, err := os.OpenFile(m.marker(key), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// settle notes that file and row agree again.
func (m marks) settle(key string) error { return ignoreMissing(os.Remove(m.marker(key))) }

// unsettled lists what a crash has left: the keys of all markers. Drafts are removed on the way.
func (m marks) unsettled() (keys []string, err error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasSuffix(name, partial):
			err = errors.Join(err, os.Remove(filepath.Join(m.dir, name)))
		case keyForm.MatchString(name):
			keys = append(keys, name)
		}
	}
	return keys, err
}

// scratch makes an empty file that the next start removes if this process does not.
func (m marks) scratch(key string) (*os.File, error) {
	return os.OpenFile(m.marker(key)+partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
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
	key := newKey()
	if err := b.mark(key); err != nil {
		return nil, err
	}
	f, err := b.scratch(key)
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

// copyBuffer is how much of a content is in memory at a time.
const copyBuffer = 128 << 10

// fill copies a content of at most limit bytes into the file.
func (d *draft) fill(r io.Reader, limit int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{d}, io.LimitReader(r, limit+1), make([]byte, copyBuffer))
	if err == nil && n > limit {
		err = errLong
	}
	return err
}

// keep makes the file durable in the vault. Until a row names it too it can still be dropped.
func (d *draft) keep(ctx context.Context) error {
	if err := d.b.put(ctx, d.key, d.file, d.size, d.sum.Sum(nil)); err != nil {
		return err
	}
	_ = d.file.Close()                                           // the vault has its bytes
	return ignoreMissing(os.Remove(d.b.marker(d.key) + partial)) // not there if the vault has taken the file itself
}

// drop removes every trace of the file.
func (d *draft) drop() error {
	_ = d.file.Close() // closed already if it was kept
	if err := ignoreMissing(os.Remove(d.b.marker(d.key) + partial)); err != nil {
		return err
	}
	return d.b.erase(context.Background(), d.key)
}
