package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// KeySource is where a Keyring gets key documents from; *Client is one.
type KeySource interface {
	GetServerKey(ctx context.Context, server matrix.ServerName) ([]byte, error)
	QueryNotary(ctx context.Context, notary matrix.ServerName, wanted KeyCriteria) ([]json.RawMessage, error)
}

// Times of keys.
const (
	maxKeyLife    = 7 * 24 * time.Hour // whatever a server says (Server-Server API, valid_until_ts)
	minKeyRetry   = time.Minute        // after a fetch that failed or did not have the key, doubling
	maxKeyRetry   = 10 * time.Minute
	fetchTimeout  = 40 * time.Second
	maxFetches    = 32 // at a time, and as many from strangers
	maxKeysPerDoc = 64
	maxDocBytes   = 64 << 10
)

// KeyringOptions are what a Keyring needs from the process that it lives in.
type KeyringOptions struct {
	Identity *Identity
	DB       *store.DB
	Source   KeySource
	Notaries []matrix.ServerName // asked for keys of servers that do not answer themselves, in order
	Clock    func() time.Time    // time.Now if nil
	Log      *slog.Logger
}

// Keyring knows servers' signing keys: it fetches, keeps and hands them out, and verifies with them. It is safe for
// concurrent use.
type Keyring struct {
	own      *Identity
	db       *store.DB
	source   KeySource
	notaries []matrix.ServerName
	now      func() time.Time
	log      *slog.Logger

	cache   *otter.Cache[matrix.ServerName, serverKeys]
	flights work.Flights[matrix.ServerName, serverKeys]

	slots     chan struct{} // limits fetches at a time
	strangers chan struct{} // … from servers that are in none of our rooms

	notaryQueues notaryQueues

	mu    sync.Mutex
	tries map[matrix.ServerName]attempt // the last fetches, so that nobody is asked too often
}

// serverKeys are the keys known of one server. The map is never changed once it is shared.
type serverKeys map[matrix.KeyID]store.ServerKey

// attempt is when a server was last asked and when it may be asked again.
type attempt struct {
	next  time.Time
	fails int
}

// NewKeyring makes a Keyring.
func NewKeyring(o KeyringOptions) *Keyring {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keyring{
		own: o.Identity, db: o.DB, source: o.Source, notaries: o.Notaries, now: o.Clock, log: o.Log,
		cache: otter.Must(&otter.Options[matrix.ServerName, serverKeys]{MaximumSize: 10_000}),
		slots: make(chan struct{}, maxFetches), strangers: make(chan struct{}, maxFetches), tries: map[matrix.ServerName]attempt{},
	}
}

// Why a signature is not accepted.
var (
	// ErrUnknownKey is the error for a key that its server does not publish or that could not be fetched.
	ErrUnknownKey = errors.New("the key is not known")
	// ErrExpiredKey is the error for a key that was not valid at the time it is needed for.
	ErrExpiredKey = errors.New("the key was not valid then")
	// ErrBadSignature is the error for a signature that does not fit.
	ErrBadSignature = errors.New("the signature is wrong")
)

// validAt reports whether k could sign at a time in ms.
func validAt(k store.ServerKey, ts int64) bool {
	if k.Expired != 0 {
		return ts < k.Expired
	}
	return ts <= k.ValidUntil
}

// Verify checks a server's signature of message by one of its keys. If strict, the key must have been valid at the
// time at (ms); rooms of versions 1 to 4 do not ask for that.
func (k *Keyring) Verify(ctx context.Context, server matrix.ServerName, id matrix.KeyID, at int64, strict bool, message, sig []byte) error {
	key, err := k.key(ctx, server, id, at, strict)
	if err != nil {
		return fmt.Errorf("key %s of %s: %w", id, server, err)
	}
	if err := matrix.VerifyBytes(key, message, sig); err != nil {
		return fmt.Errorf("key %s of %s: %w", id, server, ErrBadSignature)
	}
	return nil
}

func (k *Keyring) key(ctx context.Context, server matrix.ServerName, id matrix.KeyID, at int64, strict bool) (ed25519.PublicKey, error) {
	needs := need{id: id, at: at, strict: strict}
	if k.own.IsOurs(server) {
		return k.ownKey(needs)
	}
	known, err := k.known(ctx, server)
	if err != nil {
		return nil, err
	}
	if needs.metBy(known) {
		return needs.pick(known)
	}
	if k.mayAsk(server) {
		if _, err := k.fetch(ctx, server); ctx.Err() != nil {
			return nil, ctx.Err()
		} else if err != nil {
			k.log.Debug("fetching keys failed", "server", server, "err", err)
		}
	}
	// What was known a moment ago may be out of date even if nothing was fetched here: somebody else may have.
	if known, err = k.known(ctx, server); err != nil {
		return nil, err
	}
	return needs.pick(known)
}

// need is a key that is wanted, and for when.
type need struct {
	id     matrix.KeyID
	at     int64
	strict bool
}

// metBy reports whether asking again could not help.
func (n need) metBy(known serverKeys) bool {
	k, ok := known[n.id]
	return ok && (!n.strict || k.Expired != 0 || validAt(k, n.at))
}

func (n need) pick(known serverKeys) (ed25519.PublicKey, error) {
	k, ok := known[n.id]
	if !ok {
		return nil, ErrUnknownKey
	}
	if n.strict && !validAt(k, n.at) {
		return nil, ErrExpiredKey
	}
	return k.Public, nil
}

func (k *Keyring) ownKey(n need) (ed25519.PublicKey, error) {
	public, expired, ok := k.own.public(n.id)
	if !ok {
		return nil, ErrUnknownKey
	}
	if n.strict && expired != 0 && n.at >= expired {
		return nil, ErrExpiredKey
	}
	return public, nil
}

// known are the keys of a server that are held already.
func (k *Keyring) known(ctx context.Context, server matrix.ServerName) (serverKeys, error) {
	all, err := k.knownOf(ctx, []matrix.ServerName{server})
	return all[server], err
}

// knownOf reads the keys of many servers at once.
func (k *Keyring) knownOf(ctx context.Context, servers []matrix.ServerName) (map[matrix.ServerName]serverKeys, error) {
	all := make(map[matrix.ServerName]serverKeys, len(servers))
	var missing []matrix.ServerName
	for _, server := range servers {
		if keys, ok := k.cache.GetIfPresent(server); ok {
			all[server] = keys
		} else {
			missing = append(missing, server)
		}
	}
	if len(missing) == 0 {
		return all, nil
	}
	found := map[matrix.ServerName]serverKeys{}
	err := k.db.Read(ctx, func(tx *store.Tx) error {
		clear(found)
		return tx.ServerKeys(missing, func(key store.ServerKey) {
			if found[key.Server] == nil {
				found[key.Server] = serverKeys{}
			}
			found[key.Server][key.ID] = key
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	for server, keys := range found {
		all[server] = keys
		k.cache.Set(server, keys)
	}
	return all, nil
}

// mayAsk reports whether a server's keys may be asked for now, or whether that was tried a moment ago. Who is told yes
// must fetch: the time of the next attempt is set here.
func (k *Keyring) mayAsk(server matrix.ServerName) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.now().Before(k.tries[server].next)
}

// asked notes how a fetch ended. After a success too a server is left alone for a while: a key that its document does
// not have is not there a moment later, and whoever makes up key IDs cannot make us ask for each.
func (k *Keyring) asked(server matrix.ServerName, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.tries) > 20_000 {
		now := k.now()
		for name, a := range k.tries {
			if a.next.Before(now) || len(k.tries) > 30_000 {
				delete(k.tries, name)
			}
		}
	}
	a := k.tries[server]
	wait := minKeyRetry
	if ok {
		a.fails = 0
	} else {
		wait = min(minKeyRetry<<min(a.fails, 8), maxKeyRetry)
		a.fails++
	}
	a.next = k.now().Add(wait)
	k.tries[server] = a
}
