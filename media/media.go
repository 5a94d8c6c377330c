// Package media keeps what users upload and what was fetched of it from other servers: bytes in a file store, a row for
// each content, thumbnails made within bounds when first asked for.
//
// Begin with Upload (upload.go) and Open (read.go). A content becomes visible in three steps, each durable before the
// next: the file is written and named (blobs.go), the row is committed, the answer is sent. A crash between the first
// two leaves a file that the next start removes, never a row without its file. Other servers' contents are fetched once,
// kept as copies up to a bound, and forgotten when they were not used for longest (remote.go). So are the pictures of
// pages that people link to (preview.go).
package media

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// Options are what Media needs from the process that it lives in.
type Options struct {
	DB     *store.DB
	Config *config.Config
	Server matrix.ServerName
	Remote Remote // nil without federation
	Web    Web    // nil without previews of links
	Log    *slog.Logger
	Clock  func() time.Time // time.Now if nil
}

// Media is the domain's door, safe for concurrent use.
type Media struct {
	o      Options
	blobs  *blobs
	max    int64 // bytes of one content
	copies int64 // bytes of all copies

	fetches   work.Flights[mxc, *store.Media]
	busy      places[matrix.ServerName]
	allowance allowances // of bytes that are fetched for a user
	uploaded  allowances // of bytes that a user stores
	failed    memory[mxc]
	copied    atomic.Int64 // about how many bytes the copies have

	making     work.Flights[thumbKey, *store.Thumbnail]
	workers    chan struct{} // one place for each thumbnail under way
	unsuitable memory[mxc]

	previews previews

	mu      sync.Mutex
	filled  chan struct{}      // closed and renewed when a reserved ID gets its content
	writing map[string]*writer // who writes to an upload in pieces
}

// mxc names a content.
type mxc struct {
	Origin matrix.ServerName
	ID     string
}

// copiesFactor says how much room the copies of what is elsewhere have: so many times the largest upload.
const copiesFactor = 100

// New opens the store below data_dir and removes what a crash has left there.
func New(o Options) (*Media, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	b, err := openStore(o.Config, o.Log)
	if err != nil {
		return nil, err
	}
	m := &Media{
		o: o, blobs: b, max: o.Config.Media.MaxUploadBytes, filled: make(chan struct{}), writing: map[string]*writer{}, workers: make(chan struct{}, thumbnailWorkers),
		failed: memory[mxc]{now: o.Clock}, unsuitable: memory[mxc]{now: o.Clock},
	}
	m.copies = copiesFactor * m.max
	m.busy = places[matrix.ServerName]{each: fetchesPerServer, all: fetchesInAll}
	m.previews.init(o)
	m.allowance = allowances{now: o.Clock, on: o.Config.RateLimits.Enabled, most: allowanceBytes, rate: allowanceRate}
	m.uploaded = uploadAllowance(o)
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err := m.cleanUp(ctx); err != nil {
		return nil, fmt.Errorf("cleaning up the media store: %w", err)
	}
	return m, nil
}

// openStore opens the store of files that the configuration names. Drafts and markers are on this machine in any case.
func openStore(conf *config.Config, log *slog.Logger) (*blobs, error) {
	root := filepath.Join(conf.DataDir, "media")
	if conf.Media.Store == "s3" {
		return openBlobs(root, openBucket(conf.Media.S3, log))
	}
	return openBlobs(root, openFolder(root))
}

// startTime bounds the clean-up at start.
const startTime = time.Minute

// cleanUp removes the files that a crash has left without a row.
func (m *Media) cleanUp(ctx context.Context) error {
	keys, err := m.blobs.unsettled()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	err = m.o.DB.Read(ctx, func(tx *store.Tx) error {
		clear(known)
		bytes, err := tx.CopiedMedia()
		m.copied.Store(bytes)
		if err != nil || len(keys) == 0 {
			return err
		}
		return tx.KnownFiles(keys, func(key string) { known[key] = true })
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	return m.settleAll(ctx, keys, known)
}

func (m *Media) settleAll(ctx context.Context, keys []string, known map[string]bool) error {
	removed := 0
	for _, key := range keys {
		var err error
		if known[key] {
			err = m.blobs.settle(key)
		} else {
			err = m.blobs.erase(ctx, key)
			removed++
		}
		if err != nil {
			return err
		}
	}
	m.o.Log.Info("unfinished media tidied up", "files", len(keys), "removed", removed)
	return nil
}

// MaxUpload is how many bytes a content may have.
func (m *Media) MaxUpload() int64 { return m.max }

// idForm is what the spec allows a media ID to be; ours have 32 letters.
var idForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

func newID() string {
	var random [24]byte
	rand.Read(random[:])
	return base64.RawURLEncoding.EncodeToString(random[:])
}

// URI is the mxc URI of a content of ours.
func (m *Media) URI(id string) string { return "mxc://" + string(m.o.Server) + "/" + id }

func (m *Media) nowMS() int64 { return m.o.Clock().UnixMilli() }

func errNotFound() error { return matrix.NotFound("There is no such content.") }

// explain turns an error of the file system that the administrator has to solve into one that says so.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return matrix.Errorf(http.StatusInsufficientStorage, "M_UNKNOWN", "The server has no room left for files. Tell its administrator.").With(err)
	}
	return err
}

// release ends a file's use by no row: the caller goes on whatever happens, and the next start tries again.
func (m *Media) release(remove func() error) {
	if err := remove(); err != nil {
		m.o.Log.Warn("a media file could not be removed", "err", err)
	}
}
