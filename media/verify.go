package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"conclave/internal/config"
	"conclave/internal/store"
)

// verifyFiles is how many files are looked up at a time.
const verifyFiles = 500

// Verify checks that every file that the database names is there with its size, and with full also with its hash. It
// changes nothing that is named and returns how many it has looked at.
func Verify(ctx context.Context, db *store.DB, conf *config.Config, log *slog.Logger, full bool, report func(store.Finding)) (n int, err error) {
	b, err := openStore(conf, log)
	if err != nil {
		return 0, err
	}
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
			what, err := b.contradicts(ctx, f.name, f.hash, f.size, full)
			if err != nil {
				return n, err
			}
			if what != "" {
				report(store.Finding{Rule: "media", Text: fmt.Sprintf("file %.80q %s", f.name, what)})
			}
			if ctx.Err() != nil {
				return n, ctx.Err()
			}
		}
	}
}

// contradicts says what is wrong with a file, "" if nothing is. An error is that it cannot be told.
func (b *blobs) contradicts(ctx context.Context, name string, hash []byte, size int64, full bool) (string, error) {
	if checkKey(name) != nil {
		return "has a name that no file of ours has", nil
	}
	have, err := b.size(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is not there", nil
	case err != nil:
		return "", err
	case have != size:
		return "has another size", nil
	case !full:
		return "", nil
	}
	f, err := b.open(ctx, name, size)
	if err != nil {
		return "cannot be read", nil //nolint:nilerr // that is the finding
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil || !bytes.Equal(sum.Sum(nil), hash) {
		return "has other bytes", nil //nolint:nilerr // likewise
	}
	return "", nil
}
