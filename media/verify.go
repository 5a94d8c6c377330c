package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"conclave/internal/store"
)

// verifyFiles is how many files are looked up at a time.
const verifyFiles = 500

// Verify checks that every file that the database names is there with its size, and with full also with its hash. It
// changes nothing and returns how many it has looked at.
func Verify(ctx context.Context, db *store.DB, dataDir string, full bool, report func(store.Finding)) (n int, err error) {
	b := &blobs{filepath.Join(dataDir, "media", "files"), filepath.Join(dataDir, "media", "pending")}
	type file struct {
		name string
		hash []byte
		size int64
	}
	last := ""
	for {
		var page []file
		err := db.Read(ctx, func(tx *store.Tx) error {
			page = page[:0]
			return tx.MediaFiles(last, verifyFiles, func(name string, hash []byte, size int64) { page = append(page, file{name, hash, size}) })
		})
		if err != nil || len(page) == 0 {
			return n, err
		}
		for _, f := range page {
			last = f.name
			n++
			if what := b.contradicts(f.name, f.hash, f.size, full); what != "" {
				report(store.Finding{Rule: "media", Text: fmt.Sprintf("file %.80q %s", f.name, what)})
			}
			if ctx.Err() != nil {
				return n, ctx.Err()
			}
		}
	}
}

// contradicts says what is wrong with a file, "" if nothing is.
func (b *blobs) contradicts(name string, hash []byte, size int64, full bool) string {
	path, err := b.path(name)
	if err != nil {
		return "has a name that no file of ours has"
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "is not there"
	case info.Size() != size:
		return "has another size"
	case !full:
		return ""
	}
	f, err := os.Open(path) //nolint:gosec // a name of our own making, checked by path
	if err != nil {
		return "cannot be read"
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil || !bytes.Equal(sum.Sum(nil), hash) {
		return "has other bytes"
	}
	return ""
}
