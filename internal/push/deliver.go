package push

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// Notice is an event that a user is to be told of.
type Notice struct {
	Pos     store.Pos // where it came in the stream
	Room    matrix.RoomID
	Event   *matrix.Event
	Actions pushrules.Actions

	SenderName, RoomName, RoomAlias string // as they are now; may be empty
}

// Source is where the deliverer learns what there is to tell; package rooms knows.
type Source interface {
	// Notices lists what a user is to be told of that came after one position and up to another, oldest first: nothing
	// that the user sent, has read meanwhile or may not see. reached is how far it looked.
	Notices(ctx context.Context, user store.UserNID, id matrix.UserID, after, upTo store.Pos) (list []Notice, reached store.Pos, err error)
	// Unread counts what a user has not read, in all rooms.
	Unread(ctx context.Context, user store.UserNID) (int64, error)
}

// Bounds of delivering (architecture, law 10).
const (
	minBackOff    = 10 * time.Second
	maxBackOff    = time.Hour
	staleTime     = 24 * time.Hour // what a gateway did not take for so long is no news any more
	leaseTime     = 2 * time.Minute
	maxWorkers    = 32
	maxQueue      = 100_000
	lookInterval  = 20 * time.Millisecond // between two looks at what was committed
	sweepInterval = 5 * time.Second       // for pushers that are due again, and for wakes that were lost
	freshTime     = 500 * time.Millisecond
	saveEvery     = 10_000 // positions passed over in which there was nothing, before that is written down
	minRefusals   = 3      // failures before a notification that a gateway does not like is passed over
)

// DelivererOptions are what a Deliverer needs from the process that it lives in.
type DelivererOptions struct {
	DB     *store.DB
	Source Source
	Client *http.Client // see NewClient
	Web    *WebPush
	Mail   *Digests // nil: no mail is sent here
	Log    *slog.Logger
	Clock  func() time.Time // time.Now if nil

	// Alone says that no other node works on this database, so that leases from before a crash need not be waited for.
	Alone bool

	// Sweep is how often pushers that are due again are looked for; 0 is the default.
	Sweep time.Duration
}

// Deliverer tells the gateways of pushers what there is, in order. Each pusher is a cursor in the stream: one row, leased
// by whoever works for it. While there is nothing to tell, nothing is written.
type Deliverer struct {
	DelivererOptions

	hint    chan struct{}
	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Run, which the workers belong to
	working map[int64]bool  // true: look again before it ends
	waiting []int64
	queued  map[int64]bool
	looked  map[int64]store.Pos // how far there was nothing, beyond what is written down
	leased  map[int64]bool      // by this process before: no lease of it is from before a crash
	workers sync.WaitGroup
}

// NewDeliverer makes a Deliverer; Run makes it work.
func NewDeliverer(o DelivererOptions) *Deliverer {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Sweep == 0 {
		o.Sweep = sweepInterval
	}
	return &Deliverer{
		DelivererOptions: o, hint: make(chan struct{}, 1), working: map[int64]bool{}, queued: map[int64]bool{},
		looked: map[int64]store.Pos{}, leased: map[int64]bool{},
	}
}

// Wake says that something was committed. It never blocks; a wake that gets lost costs a sweep's time.
func (d *Deliverer) Wake() {
	select {
	case d.hint <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends; it returns once no worker is left.
func (d *Deliverer) Run(ctx context.Context) error {
	d.mu.Lock()
	d.ctx = ctx
	d.mu.Unlock()
	defer d.workers.Wait()
	seen, err := d.DB.StreamBound(ctx)
	if err == nil {
		err = d.wakeAll(ctx) // for what came while nobody delivered
	}
	if err != nil {
		return err
	}
	ticker := time.NewTicker(d.Sweep)
	defer ticker.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-d.hint:
		case <-ticker.C:
			due = true
		}
		if bound, err := d.DB.StreamBound(ctx); err != nil {
			d.complain(ctx, "asking for news", err)
		} else if bound > seen || due {
			if err := d.concerned(ctx, seen, bound, due); err != nil {
				d.complain(ctx, "finding out who is to be told", err)
			} else {
				seen = bound
			}
		}
		select {
		case <-time.After(lookInterval):
		case <-ctx.Done():
			return nil
		}
	}
}

// concerned wakes the pushers that something new concerns, and those whose time has come.
func (d *Deliverer) concerned(ctx context.Context, after, upTo store.Pos, due bool) error {
	var list []int64
	add := func(nid int64) { list = append(list, nid) }
	err := d.DB.Read(ctx, func(tx *store.Tx) error {
		list = nil
		if some, err := tx.AnyPusher(); err != nil || !some { // looking for whom much concerns costs far more
			return err
		}
		if after < upTo {
			if err := tx.ConcernedPushers(after, upTo, add); err != nil {
				return err
			}
		}
		if !due {
			return nil
		}
		return tx.DuePushers(d.Clock().UnixMilli(), d.Mail != nil, 1000, add)
	})
	for _, nid := range list {
		d.wakePusher(nid)
	}
	return err
}

// wakeAll wakes every pusher.
func (d *Deliverer) wakeAll(ctx context.Context) error {
	const page = 1000
	for last, n := int64(0), page; n == page; {
		n = 0
		err := d.DB.Read(ctx, func(tx *store.Tx) error {
			return tx.AllPushers(last, page, func(nid int64) {
				n++
				last = nid
				d.wakePusher(nid)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// wakePusher has somebody look at a pusher.
func (d *Deliverer) wakePusher(nid int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, busy := d.working[nid]
	switch {
	case d.ctx.Err() != nil:
	case busy:
		d.working[nid] = true
	case d.queued[nid]:
	case len(d.working) < maxWorkers:
		d.start(nid)
	case len(d.waiting) < maxQueue:
		d.queued[nid] = true
		d.waiting = append(d.waiting, nid)
	}
}

// start starts a worker, which goes on with whatever waits; the caller holds d.mu.
func (d *Deliverer) start(nid int64) {
	d.working[nid] = false
	d.workers.Go(func() {
		for ok := true; ok; nid, ok = d.next(nid) {
			d.contained(d.ctx, nid)
		}
	})
}

// next is what a worker does after a pusher: the same again if it was woken meanwhile, else the next that waits.
func (d *Deliverer) next(done int64) (nid int64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		delete(d.working, done)
		return 0, false
	}
	if d.working[done] {
		d.working[done] = false
		return done, true
	}
	delete(d.working, done)
	if len(d.waiting) == 0 {
		return 0, false
	}
	nid, d.waiting = d.waiting[0], d.waiting[1:]
	delete(d.queued, nid)
	d.working[nid] = false
	return nid, true
}

// contained works for a pusher; a panic does not take the others with it.
func (d *Deliverer) contained(ctx context.Context, nid int64) {
	defer func() {
		if v := recover(); v != nil {
			d.Log.Error("a panic while delivering notifications", "pusher", nid)
		}
	}()
	if err := d.work(ctx, nid); err != nil {
		d.complain(ctx, "working for a pusher", err)
	}
}

// call tells whom a pusher is for; see the functions call of each kind.
func (d *Deliverer) call(ctx context.Context, p *store.Pusher, n *Notice, unread int64) (rejected bool, err error) {
	if p.Kind == KindWebPush {
		return d.Web.call(ctx, d.Client, p, n, unread)
	}
	return call(ctx, d.Client, p, n, unread)
}

func (d *Deliverer) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		d.Log.Error("push: "+what+" failed", "err", err)
	}
}
