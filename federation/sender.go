package federation

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Transactor delivers transactions; *Client is one.
type Transactor interface {
	SendTransaction(ctx context.Context, server matrix.ServerName, txn string, body []byte) (map[matrix.EventID]string, error)
}

// Bounds of sending (architecture, law 10).
const (
	maxPDUs        = 50
	maxEDUs        = 100
	maxEDUBytes    = 4 << 20 // of a transaction, so that it stays below 10 MiB with 50 of the largest events
	maxBacklog     = 5000    // events sent one by one; of more, the latest of each room
	minBackOff     = 10 * time.Second
	maxBackOff     = time.Hour
	aliveTime      = 24 * time.Hour  // since a server was alive, its outage counts as a brief one at first,
	briefTime      = 5 * time.Minute // for so long,
	briefBackOff   = time.Second     // and is waited for from this wait on
	leaseTime      = 2 * time.Minute
	attemptTimeout = 90 * time.Second      // shorter than a lease
	sweepInterval  = 5 * time.Second       // for destinations that are due again, and for wakes that were lost
	lookInterval   = 10 * time.Millisecond // between two looks at what was committed, so that many commits cost one
	reviveInterval = 10 * time.Second      // between two looks at whether a server that speaks to us counts as failing
	maxWorkers     = 128
	helloInterval  = 20 * time.Millisecond // between two servers that are told of our start
	helloTime      = 30 * 24 * time.Hour   // servers that took nothing for so long are not told
	lingerTime     = 2 * time.Second       // that a worker holds a lease for what comes next
	setAsideLife   = 30 * 24 * time.Hour
)

// SenderOptions are what a Sender needs from the process that it lives in.
type SenderOptions struct {
	DB       *store.DB
	Outbox   Outbox
	Client   Transactor
	Identity *Identity
	Policy   *Policy
	Log      *slog.Logger
	Clock    func() time.Time // time.Now if nil

	// Alone says that no other node works on this database, so that leases from before a crash need not be waited for.
	Alone bool

	// Sweep is how often destinations that are due again are looked for; 0 is the default.
	Sweep time.Duration
}

// Sender delivers transactions: to each destination in order, one at a time, repeated until it takes them. What has
// been delivered is one row per destination; whoever holds its lease works for it.
type Sender struct {
	db     *store.DB
	outbox Outbox
	client Transactor
	own    *Identity
	policy *Policy
	log    *slog.Logger
	now    func() time.Time
	alone  bool
	sweep  time.Duration

	hint           chan struct{} // something was committed
	mu             sync.Mutex
	working        map[matrix.ServerName]chan struct{} // a worker is on it; full: look again before it ends
	waiting        []matrix.ServerName                 // for a free worker, in order
	queued         map[matrix.ServerName]bool
	seen           map[matrix.ServerName]bool       // leased by this process before: no lease of it is from before a crash
	spoke          map[matrix.ServerName]bool       // this process has delivered something to it, or has greeted it
	hello          map[matrix.ServerName]bool       // to be greeted
	suspectTimeout time.Duration                    // waitSuspect, except in tests
	suspicions     map[matrix.ServerName]*suspicion // rooms of which a server refused events
	closing        bool
	workers        sync.WaitGroup
	ctx            context.Context

	revived *otter.Cache[matrix.ServerName, time.Time] // when servers made requests, roughly
}

// NewSender makes a Sender; Run makes it work.
func NewSender(o SenderOptions) *Sender {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Sweep == 0 {
		o.Sweep = sweepInterval
	}
	return &Sender{
		db: o.DB, outbox: o.Outbox, client: o.Client, own: o.Identity, policy: o.Policy, log: o.Log, now: o.Clock,
		alone: o.Alone, sweep: o.Sweep,
		hint: make(chan struct{}, 1), working: map[matrix.ServerName]chan struct{}{}, queued: map[matrix.ServerName]bool{},
		seen:           map[matrix.ServerName]bool{},
		spoke:          map[matrix.ServerName]bool{},
		hello:          map[matrix.ServerName]bool{},
		suspicions:     map[matrix.ServerName]*suspicion{},
		suspectTimeout: waitSuspect,
		revived:        otter.Must(&otter.Options[matrix.ServerName, time.Time]{MaximumSize: 10_000}),
	}
}

// Wake says that something was committed. It never blocks; a wake that gets lost costs a sweep's time.
func (s *Sender) Wake() {
	select {
	case s.hint <- struct{}{}:
	default:
	}
}

// WakeServer says that there is something for one server, such as an EDU that is not stored.
func (s *Sender) WakeServer(server matrix.ServerName) {
	if s.own.IsOurs(server) || !s.policy.Allowed(server) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch wake := s.working[server]; {
	case s.ctx == nil || s.closing:
	case wake != nil:
		select {
		case wake <- struct{}{}:
		default:
		}
	case s.queued[server]:
	case len(s.working) < maxWorkers:
		s.start(server)
	default:
		s.queued[server] = true
		s.waiting = append(s.waiting, server)
	}
}

// later wakes a server's worker after a while. It is for short waits: longer ones end with a sweep, and a node that dies
// leaves all of its waits to the sweep of another.
func (s *Sender) later(server matrix.ServerName, wait time.Duration) {
	if wait <= 2*minBackOff {
		time.AfterFunc(wait+time.Millisecond, func() { s.WakeServer(server) })
	}
}

// start starts a worker; the caller holds s.mu.
func (s *Sender) start(server matrix.ServerName) {
	wake := make(chan struct{}, 1)
	s.working[server] = wake
	s.workers.Go(func() {
		for {
			s.work(s.ctx, server, wake)
			if !s.again(server, wake) {
				return
			}
		}
	})
}

// again ends a worker, unless it was woken in the meantime, and starts the next that waits.
func (s *Sender) again(server matrix.ServerName, wake <-chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-wake:
		if !s.closing {
			return true
		}
	default:
	}
	delete(s.working, server)
	if len(s.waiting) > 0 && !s.closing {
		next := s.waiting[0]
		s.waiting = s.waiting[1:]
		delete(s.queued, next)
		s.start(next)
	}
	return false
}

// Run sends until ctx ends; it returns once no worker is left.
func (s *Sender) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		s.workers.Wait()
	}()
	ticker := time.NewTicker(s.sweep)
	defer ticker.Stop()
	var seen store.Pos
	announced := false
	for {
		if servers, upTo, err := s.outbox.Concerned(ctx, seen); err != nil {
			s.complain(ctx, "finding out what is to be sent", err)
		} else {
			for _, server := range servers {
				s.WakeServer(server)
			}
			if !announced {
				announced = true
				s.workers.Go(func() { s.announce(ctx, servers) })
			}
			seen = upTo
		}
		looked := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-s.hint:
		case <-ticker.C:
			s.wakeDue(ctx)
		}
		if early := lookInterval - time.Since(looked); early > 0 {
			time.Sleep(early)
		}
	}
}

// announce tells the servers that share a room with us that we are here again: a transaction, an empty one where there is
// nothing to send, ends their waits before they try us again. It is not in a hurry.
func (s *Sender) announce(ctx context.Context, servers []matrix.ServerName) {
	pace := time.NewTicker(helloInterval)
	defer pace.Stop()
	for _, server := range servers {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		silent := !s.spoke[server]
		if silent {
			s.hello[server] = true
		}
		s.mu.Unlock()
		if silent {
			s.WakeServer(server)
		}
	}
}

// greets says whether a server is still to be greeted, once.
func (s *Sender) greets(server matrix.ServerName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.hello[server] && !s.spoke[server]
	delete(s.hello, server)
	return due
}

// spokeTo notes that a server has heard of us.
func (s *Sender) spokeTo(server matrix.ServerName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoke[server] = true
}

// wakeDue wakes the workers of destinations whose time has come, or whose worker died with its node.
func (s *Sender) wakeDue(ctx context.Context) {
	var due []matrix.ServerName
	err := s.db.Read(ctx, func(tx *store.Tx) error {
		due = due[:0]
		return tx.WaitingDestinations(s.now().UnixMilli(), 1000, func(server matrix.ServerName) { due = append(due, server) })
	})
	if err != nil {
		s.complain(ctx, "looking for destinations that are due", err)
	}
	for _, server := range due {
		s.WakeServer(server)
	}
}

func (s *Sender) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		s.log.Error("federation sender: "+what+" failed", "err", err)
	}
}

// Alive says that a server has made an authenticated request: if it counts as failing, it is tried again at once. It
// returns at once.
func (s *Sender) Alive(server matrix.ServerName) {
	now := s.now()
	last, ok := s.revived.GetIfPresent(server)
	if ok && now.Sub(last) < reviveInterval {
		return
	}
	s.revived.Set(server, now)
	s.Retry(server)
}

// Retry tries a server again at once if it counts as failing. It returns at once.
func (s *Sender) Retry(server matrix.ServerName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.closing {
		return
	}
	ctx := s.ctx
	s.workers.Go(func() {
		failing, err := s.revive(ctx, server)
		if err != nil {
			s.complain(ctx, "reviving a destination", err)
		}
		if failing {
			s.WakeServer(server)
		}
	})
}

func (s *Sender) revive(ctx context.Context, server matrix.ServerName) (failing bool, err error) {
	nid, err := s.db.Server(ctx, server)
	if err != nil {
		return false, err
	}
	err = s.db.Read(ctx, func(tx *store.Tx) error {
		d, found, err := tx.Destination(nid)
		failing = found && d.RetryAt != 0
		return err
	})
	if err != nil || !failing {
		return false, err
	}
	err = s.db.Write(ctx, func(tx *store.Tx) error {
		failing, err = tx.ReviveDestination(nid)
		return err
	})
	return failing, err
}

// lease takes a destination for this process, making its row if there is none. ok is false if somebody else has it.
func (s *Sender) lease(ctx context.Context, server matrix.ServerName) (d store.Destination, ok bool, err error) {
	nid, err := s.db.Server(ctx, server)
	if err != nil {
		return d, false, err
	}
	found := false
	err = s.db.Read(ctx, func(tx *store.Tx) error {
		_, found, err = tx.Destination(nid)
		return err
	})
	if err != nil {
		return d, false, err
	}
	var start store.Cursors
	if !found {
		if start, err = s.outbox.Start(ctx, server); err != nil {
			return d, false, err
		}
	}
	s.mu.Lock()
	force := s.alone && !s.seen[server]
	s.mu.Unlock()
	err = s.db.Write(ctx, func(tx *store.Tx) error {
		if !found {
			if err := tx.AddDestination(nid, start, maxPDUs); err != nil {
				return err
			}
		}
		d, ok, err = tx.LeaseDestination(nid, s.now().UnixMilli(), leaseTime.Milliseconds(), force)
		return err
	})
	if err != nil {
		return d, false, fmt.Errorf("leasing %s: %w", server, err)
	}
	if ok {
		s.mu.Lock()
		s.seen[server] = true
		s.mu.Unlock()
	}
	return d, ok, nil
}
