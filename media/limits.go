package media

import (
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How many contents are fetched at a time, from one server and from all: each takes a connection and, until it is
// whole, room on the disk.
const (
	fetchesPerServer = 4
	fetchesInAll     = 32
)

// places bounds what is under way at a time, for each key and in all.
type places[K comparable] struct {
	each, all int
	mu        sync.Mutex
	taken     int
	of        map[K]int
}

func (p *places[K]) take(key K) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.of[key] >= p.each {
		return false
	}
	if p.of == nil {
		p.of = map[K]int{}
	}
	p.taken++
	p.of[key]++
	return true
}

func (p *places[K]) release(key K) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.of[key]--; p.of[key] == 0 {
		delete(p.of, key)
	}
}

// How many bytes one user may have fetched from other servers (threats M04): at once, and per second.
const (
	allowanceBytes = 2 << 30
	allowanceRate  = 1 << 20
	maxAllowances  = 10_000
)

// allowances are what users have spent, in this node's memory. The size of a content is known only afterwards, so the
// last one may go into debt.
type allowances struct {
	on   bool
	most int64 // bytes at once
	rate int64 // bytes per second that are forgiven
	now  func() time.Time
	mu   sync.Mutex
	of   map[store.UserNID]spent
}

// uploadAllowance is how many bytes a user may store in an hour.
func uploadAllowance(o Options) allowances {
	most := o.Config.Media.MaxBytesPerUserHour
	return allowances{now: o.Clock, on: o.Config.RateLimits.Enabled && most > 0, most: most, rate: max(1, most/3600)}
}

type spent struct {
	bytes int64
	at    time.Time
}

// check refuses who has spent everything, and says when to come again.
func (a *allowances) check(user store.UserNID) error {
	if !a.on {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if over := a.spent(user) - a.most; over >= 0 {
		return matrix.LimitExceeded((over/a.rate + 1) * 1000)
	}
	return nil
}

func (a *allowances) charge(user store.UserNID, bytes int64) {
	if !a.on {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	total := a.spent(user) + bytes
	if a.of == nil || len(a.of) >= maxAllowances {
		a.of = map[store.UserNID]spent{} // forgives everybody once rather than growing
	}
	a.of[user] = spent{total, a.now()}
}

func (a *allowances) spent(user store.UserNID) int64 {
	s := a.of[user]
	return max(0, s.bytes-int64(a.now().Sub(s.at).Seconds()*float64(a.rate)))
}

// maxRemembered is how many refusals are remembered of one kind.
const maxRemembered = 1000

// memory remembers for a while why something did not work, so that it is not tried by everybody who asks.
type memory[K comparable] struct {
	now func() time.Time
	mu  sync.Mutex
	m   map[K]refusal
}

type refusal struct {
	err   error
	until time.Time
}

func (m *memory[K]) get(key K) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.m[key]
	if !ok {
		return nil
	}
	if m.now().After(r.until) {
		delete(m.m, key)
		return nil
	}
	return r.err
}

func (m *memory[K]) put(key K, long time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil || len(m.m) >= maxRemembered {
		m.m = map[K]refusal{}
	}
	m.m[key] = refusal{err, m.now().Add(long)}
}
