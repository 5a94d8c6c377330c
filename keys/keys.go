// Package keys is the server's side of end-to-end encryption: device keys, one-time and fallback keys, cross-signing,
// device lists and messages to devices. It is blind to algorithms: any key is stored under the name that it comes with,
// Ed25519 signatures are checked, and no key here opens anything.
//
// devicekeys.go takes what a device uploads, query.go and claim.go give it out, crosssigning.go and signatures.go are
// the users' own keys over it. todevice.go carries messages. devicelists.go says whose devices changed, to /sync and to
// other servers; remotelists.go follows the lists of other servers' users. backup.go and backupsessions.go keep the users'
// key backups, dehydrated.go a device of theirs that nobody is logged in on; the server cannot open either.
package keys

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
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
type Remote interface {
	// QueryUserEncryptionKeys and ClaimUserEncryptionKeys have bodies and answers in the form of the client API.
	QueryUserEncryptionKeys(ctx context.Context, server matrix.ServerName, body []byte) (json.RawMessage, error)
	ClaimUserEncryptionKeys(ctx context.Context, server matrix.ServerName, body []byte) (json.RawMessage, error)
	GetUserDevices(ctx context.Context, user matrix.UserID) (json.RawMessage, error)
}

// Keys is the domain's door, safe for concurrent use.
type Keys struct {
	o     Options
	stale chan struct{} // there is something to do for Run

	mu  sync.Mutex
	own []store.ServerNID // the numbers of our own names, once they have some
}

// New prepares the domain over a database. Run does its background work.
func New(o Options) *Keys {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keys{o: o, stale: make(chan struct{}, 1)}
}

// now is the time in ms.
func (k *Keys) now() int64 { return k.o.Clock().UnixMilli() }

// wake tells readers of the stream that something was committed.
func (k *Keys) wake() { k.o.Bus.Publish(cluster.Stream, 0) }

// ours are the numbers of the servers that this one is.
func (k *Keys) ours(ctx context.Context) ([]store.ServerNID, error) {
	k.mu.Lock()
	own := k.own
	k.mu.Unlock()
	if own != nil {
		return own, nil
	}
	err := k.o.DB.Read(ctx, func(tx *store.Tx) error {
		own = nil
		return tx.ServersNamed(func(nid store.ServerNID, name matrix.ServerName) {
			if k.o.IsOurs(name) {
				own = append(own, nid)
			}
		})
	})
	if err == nil && own != nil {
		k.mu.Lock()
		k.own = own
		k.mu.Unlock()
	}
	return own, err
}

// User is whom an operation is for.
type User struct {
	NID store.UserNID
	ID  matrix.UserID
}

// Device is a device of a user of ours.
type Device struct {
	User
	NID      int64
	DeviceID matrix.DeviceID
}
