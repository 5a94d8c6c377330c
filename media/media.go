// Package media keeps what users upload and what was fetched of it from other servers: bytes in a blob store, a row for
// each content, thumbnails made within bounds.
package media

import (
	"log/slog"
	"time"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Options are what Media needs from the process that it lives in.
type Options struct {
	DB     *store.DB
	Config *config.Config
	Server matrix.ServerName
	Remote Remote // nil without federation
	Log    *slog.Logger
	Clock  func() time.Time // time.Now if nil
}

// Remote is the network as this domain needs it.
type Remote interface{}

// Media is the domain's door, safe for concurrent use.
type Media struct{ o Options }

// New prepares the domain.
func New(o Options) (*Media, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Media{o: o}, nil
}
