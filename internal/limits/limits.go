// Package limits counts how often somebody does something, and says when it is too often: in this process's memory, and,
// where there is a Redis, for all nodes together.
//
// What is counted is a budget: so much at once, and one more every so often. Each call is first held against the count of
// this process and only then against the shared one, so that a caller who is far too fast costs no more than a look into a
// map, and so that a Redis which fails leaves counts that are warm: nobody gets a new budget by it. While Redis does not
// answer each node counts for itself, and nobody waits for it.
//
// Nothing here outlives Redis or the process. What must not be forgotten, such as wrong guesses at an account, is counted
// in the database.
package limits

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Budget is how often something may be done.
type Budget struct {
	Every time.Duration // one more is there after as long as this; at least a millisecond
	Burst int           // how many at once
}

// Counter counts. Its methods are safe for concurrent use.
type Counter struct {
	on     bool
	now    func() time.Time
	key    []byte
	shared *shared // nil: this process is alone

	mu    sync.Mutex
	until map[[16]byte]time.Time // when everything that was spent of a budget will be forgotten
	swept time.Time
}

// Options say what a Counter counts with.
type Options struct {
	Enabled bool   // false: nothing is counted, and everything allowed
	Key     []byte // what names and addresses are hashed with; all nodes need the same
	Redis   *Redis // nil: this process counts alone
	Log     *slog.Logger
	Clock   func() time.Time // nil: this machine's here, and Redis's own there
}

// New makes a counter, which does not wait for its Redis.
func New(o Options) (*Counter, error) {
	c := &Counter{on: o.Enabled, now: o.Clock, key: o.Key, until: map[[16]byte]time.Time{}}
	if c.now == nil {
		c.now = time.Now
	}
	if o.Redis == nil || !o.Enabled {
		return c, nil
	}
	var err error
	c.shared, err = newShared(*o.Redis, o.Log, o.Clock)
	return c, err
}

// Close ends the connections to Redis.
func (c *Counter) Close() {
	if c.shared != nil {
		c.shared.close()
	}
}

// maxCounted bounds how many budgets are remembered of which something was spent. Beyond it those that are whole again are
// forgotten, and then any: whoever has very many addresses pushes out a few of his own with each new one rather than
// everything at once.
const maxCounted = 100_000

// Spend takes one out of a budget of whoever is named. If nothing is left it takes nothing and says when there is.
func (c *Counter) Spend(ctx context.Context, b Budget, name string) (wait time.Duration) {
	if !c.on {
		return 0
	}
	id := c.id(name)
	if wait = c.spendHere(id, b); wait > 0 || c.shared == nil {
		return wait
	}
	wait, counted := c.shared.spend(ctx, id, b)
	if counted && wait > 0 { // other nodes have spent it: the next call learns that here
		c.mu.Lock()
		c.until[id] = c.now().Add(wait + time.Duration(b.Burst-1)*b.Every)
		c.mu.Unlock()
	}
	return wait
}

// id is what a name is counted under. It can be linked to the name only with the key: Redis holds no names and addresses.
func (c *Counter) id(name string) [16]byte {
	mac := hmac.New(sha256.New, c.key)
	_, _ = mac.Write([]byte(name)) // a hash takes everything
	return [16]byte(mac.Sum(nil))
}

func (c *Counter) spendHere(id [16]byte, b Budget) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	until, known := c.until[id]
	if until.Before(now) {
		until = now
	}
	until = until.Add(b.Every)
	if over := until.Sub(now) - time.Duration(b.Burst)*b.Every; over > 0 {
		return over
	}
	if !known {
		c.makeRoom(now)
	}
	c.until[id] = until
	return 0
}

func (c *Counter) makeRoom(now time.Time) {
	if len(c.until) < maxCounted {
		return
	}
	if now.Sub(c.swept) >= time.Second {
		c.swept = now
		for id, until := range c.until {
			if until.Before(now) {
				delete(c.until, id)
			}
		}
	}
	for id := range c.until { // in an order that nobody foresees
		if len(c.until) < maxCounted {
			return
		}
		delete(c.until, id)
	}
}

// Block is the part of an address that one caller controls: an IPv4 address, or the /64 of an IPv6 one.
func Block(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	block, err := ip.Prefix(64)
	if err != nil {
		return address
	}
	return block.String()
}
