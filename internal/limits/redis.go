package limits

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"conclave/internal/observe"
)

// Redis says where nodes count together.
//
// Its address is the operator's, like the database's, and mostly one of a private network. So it is not dialled through
// netguard, which is for addresses that others can choose: there it would have to be among those that are allowed although
// private, and strangers could then have requests sent to it.
type Redis struct {
	URL   observe.Secret // redis:// or rediss://, with a password if need be
	Roots *x509.CertPool // that its certificate may be signed by; nil: the system's
	Wait  time.Duration  // how long a request waits for it at most; 0: 100 ms
}

// How long a request waits for Redis at most, and how often it is tried again, and for how long, while it does not answer.
// Connections are made beside the requests that want them.
const (
	redisWait  = 100 * time.Millisecond
	redisRetry = 500 * time.Millisecond
	redisProbe = 2 * time.Second
	keyPrefix  = "conclave:limit:"
)

// ParseRedis reads the address of a Redis. Its errors do not repeat it: it may hold a password.
func ParseRedis(r Redis) (*redis.Options, error) {
	o, err := redis.ParseURL(r.URL.Reveal())
	if err != nil || o.Network != "tcp" {
		return nil, errors.New("it must be redis://host:port or rediss://host:port (TLS), with user:password@ before the host if need be; characters such as @ or / in a password are written as %40 and %2F")
	}
	if o.TLSConfig != nil {
		o.TLSConfig.RootCAs, o.TLSConfig.MinVersion = r.Roots, tls.VersionTLS12
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = redisProbe, redisProbe, redisProbe, redisProbe
	o.ContextTimeoutEnabled, o.MaxRetries = true, -1
	o.DialerRetries = 1
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o, nil
}

// shared is the count in Redis. While that does not answer nobody asks it but a single prober.
type shared struct {
	client *redis.Client
	log    *slog.Logger
	clock  func() time.Time // nil: Redis's own
	down   atomic.Bool
	wait   time.Duration
	stop   context.CancelFunc
	ctx    context.Context
	probes sync.WaitGroup
}

// quiet keeps the library from writing to standard error by itself; what matters is logged here.
var quiet = sync.OnceFunc(logging.Disable)

func newShared(r Redis, log *slog.Logger, clock func() time.Time) (*shared, error) {
	o, err := ParseRedis(r)
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", err)
	}
	wait := cmp.Or(r.Wait, redisWait)
	longest := max(wait, redisProbe) // else a request that may wait for longer would not
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = longest, longest, longest, longest
	quiet()
	s := &shared{client: redis.NewClient(o), log: log, clock: clock, wait: wait}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

func (s *shared) close() {
	s.stop()
	s.probes.Wait()
	_ = s.client.Close() // nothing that was counted is lost by it
}

// spending is the whole of Counter.spendHere in one step: it answers 0, or in how many ms there is something left. A key
// lives as long as something of its budget is spent. The time is the caller's, or Redis's own, which is the same for all
// nodes.
var spending = redis.NewScript(`
local every, burst, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local spent = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + every
local over = spent - now - burst * every
if over > 0 then return over end
redis.call('SET', KEYS[1], string.format('%.0f', spent), 'PX', string.format('%.0f', spent - now))
return 0`)

// spend takes one out of a budget that all nodes share. counted says that Redis has answered.
func (s *shared) spend(ctx context.Context, id [16]byte, b Budget) (wait time.Duration, counted bool) {
	if s.down.Load() {
		return 0, false
	}
	now := int64(0)
	if s.clock != nil {
		now = s.clock().UnixMilli()
	}
	// A client that goes away says nothing about Redis.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.wait)
	defer cancel()
	key := keyPrefix + base64.RawURLEncoding.EncodeToString(id[:])
	ms, err := spending.Run(ctx, s.client, []string{key}, b.Every.Milliseconds(), b.Burst, now).Int64()
	if err != nil {
		s.failed(err)
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

// failed leaves Redis alone until it answers again. Of all that fail at the same time one tells.
func (s *shared) failed(err error) {
	if s.ctx.Err() != nil || !s.down.CompareAndSwap(false, true) {
		return
	}
	s.log.Warn("Redis does not answer: until it does each node counts requests for itself", "err", err)
	s.probes.Go(func() {
		ticker := time.NewTicker(redisRetry)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-s.ctx.Done():
				return
			}
			ctx, cancel := context.WithTimeout(s.ctx, redisProbe)
			err := s.client.Ping(ctx).Err()
			cancel()
			if err == nil {
				s.down.Store(false)
				s.log.Info("Redis answers again: nodes count requests together")
				return
			}
		}
	})
}
