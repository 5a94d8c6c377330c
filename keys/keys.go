// Package keys is the server's side of end-to-end encryption: device keys, one-time and fallback keys, cross-signing,
// device lists and messages to devices. It is blind to algorithms: any key is stored under the name that it comes with,
// signatures are checked, and no key here opens anything.
package keys

import (
	"log/slog"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Options are what Keys needs from the process that it lives in.
type Options struct {
	DB     *store.DB
	IsOurs func(matrix.ServerName) bool
	Remote Remote // nil without federation
	Bus    cluster.Bus
	Log    *slog.Logger
	Clock  func() time.Time // time.Now if nil
}

// Remote is the network as this domain needs it; federation.Client satisfies it.
type Remote interface{}

// Keys is the domain's door, safe for concurrent use.
type Keys struct{ o Options }

// New prepares the domain over a database.
func New(o Options) *Keys {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Keys{o: o}
}
