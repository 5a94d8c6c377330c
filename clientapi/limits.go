package clientapi

import (
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"conclave/internal/matrix"
)

// budgets are how often one account (or one address, before login) may call the routes of a class: a steady rate per
// second, and how much may come at once.
var budgets = map[Limit]struct {
	rate  rate.Limit
	burst int
}{
	LimitRead:     {50, 200},
	LimitSend:     {10, 50},
	LimitChange:   {5, 50},
	LimitLogin:    {0.17, 10},
	LimitRefresh:  {1, 30}, // by address: a whole office may be behind one
	LimitRegister: {0.17, 5},
	LimitMedia:    {10, 60},
	LimitPreview:  {1, 40}, // each may be a request to somebody else's server
	LimitSearch:   {1, 20},
	LimitReport:   {0.1, 20},
}

// maxBuckets bounds how many callers are remembered; the whole memory is dropped when it is full, which forgives
// everybody once rather than growing.
const maxBuckets = 50_000

// limits counts requests per caller and class, in this node's memory.
type limits struct {
	on      bool
	mu      sync.Mutex
	buckets map[bucketKey]*rate.Limiter
}

type bucketKey struct {
	class Limit
	who   string
}

func newLimits(on bool) *limits {
	return &limits{on: on, buckets: map[bucketKey]*rate.Limiter{}}
}

// allow refuses (M_LIMIT_EXCEEDED) a caller that is too fast, and says when to come again.
func (l *limits) allow(r *Request) error {
	if r.unlimited() {
		return nil
	}
	who := block(r.server.address(r.Request()))
	if r.Session != nil {
		who = string(r.Session.UserID)
	}
	return l.spend(r.route.Limit, who)
}

// spend takes one request out of somebody's budget of a class.
func (l *limits) spend(class Limit, who string) error {
	budget, limited := budgets[class]
	if !l.on || !limited {
		return nil
	}
	l.mu.Lock()
	bucket := l.buckets[bucketKey{class, who}]
	if bucket == nil {
		if len(l.buckets) >= maxBuckets {
			clear(l.buckets)
		}
		bucket = rate.NewLimiter(budget.rate, budget.burst)
		l.buckets[bucketKey{class, who}] = bucket
	}
	l.mu.Unlock()
	wait := bucket.Reserve()
	if delay := wait.Delay(); delay > 0 {
		wait.Cancel()
		return matrix.LimitExceeded(int64(math.Ceil(float64(delay) / float64(time.Millisecond))))
	}
	return nil
}

// block is the part of an address that one caller controls: an IPv4 address, or the /64 of an IPv6 one.
func block(address string) string {
	ip := net.ParseIP(address)
	if ip == nil || ip.To4() != nil {
		return address
	}
	return ip.Mask(net.CIDRMask(64, 128)).String()
}
