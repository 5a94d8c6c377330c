package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Source is what the deliverer learns from the rest of the server.
type Source interface {
	// Events writes events for clients, in the same order.
	Events(ctx context.Context, rows []*store.EventRow) ([]json.RawMessage, error)
	// Typing gives m.typing of the rooms where it changed after a position, and the position up to which that is.
	Typing(after int64) (map[store.RoomNID]json.RawMessage, int64)
	// Presence gives m.presence of whom it changed for after a position, and the position up to which that is; with after -1
	// nobody's.
	Presence(ctx context.Context, after int64) (map[matrix.UserID]json.RawMessage, int64, error)
}

// Bounds of delivering (architecture, law 10).
const (
	minBackOff   = 2 * time.Second
	maxBackOff   = time.Hour
	leaseTime    = 2 * time.Minute
	lookInterval = 20 * time.Millisecond // between two looks at what was committed
	tickInterval = time.Second           // for what is not in the stream, what is due again, and lost wakes
	saveEvery    = 10_000                // positions passed over in which there was nothing, before that is written down
)

// DelivererOptions are what a Deliverer needs from the process that it lives in.
type DelivererOptions struct {
	DB     *store.DB
	Client *Client
	Source Source
	Log    *slog.Logger

	// Alone says that no other node works on this database, so that leases from before a crash need not be waited for.
	Alone bool
}

// Deliverer carries transactions to application services. Each is a cursor in the stream: one row. What is sent is
// written down before it is sent for the first time, so that another attempt, also by another process, sends the same.
type Deliverer struct {
	DelivererOptions
	couriers []*courier
}

// NewDeliverer makes a Deliverer for all services that have an address; Run makes it work.
func NewDeliverer(o DelivererOptions) *Deliverer {
	d := &Deliverer{DelivererOptions: o}
	for _, s := range o.Client.services.list {
		if s.Reachable() {
			d.couriers = append(d.couriers, &courier{
				d: d, s: s, hint: make(chan struct{}, 1), interest: map[store.RoomNID]*interest{}, typed: -1, shown: -1,
			})
		}
	}
	return d
}

// Wake says that something was committed. It never blocks; a wake that gets lost costs a second.
func (d *Deliverer) Wake() {
	for _, c := range d.couriers {
		select {
		case c.hint <- struct{}{}:
		default:
		}
	}
}

// Run delivers until ctx ends.
func (d *Deliverer) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, c := range d.couriers {
		all.Go(func() { c.run(ctx) })
	}
	all.Wait()
	return nil
}

// courier delivers to one service.
type courier struct {
	d        *Deliverer
	s        *Service
	hint     chan struct{}
	row      *store.AppService           // as it was last read or written
	looked   store.Pos                   // how far there is nothing, beyond what is written down
	interest map[store.RoomNID]*interest // what was found out about rooms
	leased   bool                        // by this process before: no lease of it is from before a crash
	typed    int64                       // position of typing that was delivered; -1: none yet
	shown    int64                       // the same of presence
}

func (c *courier) run(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		again, err := c.contained(ctx)
		if err != nil && ctx.Err() == nil {
			c.d.Log.Error("delivering to an application service failed", "service", c.s.ID, "err", err)
		}
		if again && err == nil {
			continue
		}
		select {
		case <-time.After(lookInterval):
		case <-ctx.Done():
			return
		}
		select {
		case <-c.hint:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// contained is step; a panic does not take the others with it.
func (c *courier) contained(ctx context.Context) (again bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			again, err = false, fmt.Errorf("a panic with a %T", v)
		}
	}()
	return c.step(ctx)
}

// step delivers one transaction, if there is something to deliver, and reports whether to go on at once. Looking is for
// everybody; only who finds something takes the lease.
func (c *courier) step(ctx context.Context) (again bool, err error) {
	bound, err := c.d.DB.StreamBound(ctx)
	if err != nil {
		return false, err
	}
	if err := c.load(ctx, bound); err != nil {
		return false, err
	}
	if c.row.RetryAt > time.Now().UnixMilli() {
		return false, nil
	}
	var b *batch
	if c.row.Txn == "" {
		b, err = c.collect(ctx, max(c.row.Pos, c.looked), bound)
		if err != nil {
			return false, err
		}
		if b.empty() {
			c.looked = b.upTo
			c.typed, c.shown = b.typed, b.shown
			if c.looked-c.row.Pos < saveEvery {
				return b.upTo < bound, nil
			}
		}
	}
	had := *c.row
	if !c.lease(ctx) {
		return false, nil
	}
	defer c.release(ctx)
	if c.row.Txn != had.Txn || c.row.Pos != had.Pos { // another node was faster
		return true, nil
	}
	if b != nil && b.empty() {
		c.row.Pos = c.looked
		return true, nil
	}
	if b != nil && !c.prepare(ctx, b) {
		return false, nil
	}
	return c.send(ctx), nil
}

// load reads the service's row, making it for a service that is new: that hears what comes from now on.
func (c *courier) load(ctx context.Context, bound store.Pos) error {
	if c.row != nil && c.d.Alone {
		return nil // nobody else writes it
	}
	read := func(tx *store.Tx) (err error) {
		c.row, err = tx.AppService(c.s.ID)
		return err
	}
	if err := c.d.DB.Read(ctx, read); err != nil || c.row != nil {
		return err
	}
	return c.d.DB.Write(ctx, func(tx *store.Tx) error {
		if err := tx.AddAppService(c.s.ID, bound); err != nil {
			return err
		}
		return read(tx)
	})
}

// lease takes the service for this process.
func (c *courier) lease(ctx context.Context) bool {
	var found *store.AppService
	err := c.d.DB.Write(ctx, func(tx *store.Tx) (err error) {
		found, err = tx.LeaseAppService(c.s.ID, time.Now().UnixMilli(), leaseTime.Milliseconds(), c.d.Alone && !c.leased)
		return err
	})
	if err != nil || found == nil {
		c.row = nil // read it again
		return false
	}
	c.row, c.leased = found, true
	return true
}

// release gives the lease back, although the process may be ending: nobody should have to wait for its end.
func (c *courier) release(ctx context.Context) {
	if c.row == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	c.save(ctx, 0)
}

// save stores where the service stands; false if the lease was lost.
func (c *courier) save(ctx context.Context, lease time.Duration) (ok bool) {
	err := c.d.DB.Write(ctx, func(tx *store.Tx) (err error) {
		ok, err = tx.SaveAppService(*c.row, lease.Milliseconds())
		return err
	})
	if err != nil {
		c.d.Log.Error("saving how far an application service is failed", "service", c.s.ID, "err", err)
	}
	if !ok {
		c.row = nil
	}
	return ok
}

// prepare makes a batch the transaction under way. From here on its content and its ID stay as they are, until the
// service has acknowledged them ("Pushing events").
func (c *courier) prepare(ctx context.Context, b *batch) bool {
	body, err := json.Marshal(b.body())
	if err != nil {
		c.d.Log.Error("what an application service is to be told is no JSON and was left out", "service", c.s.ID, "items", b.usable())
		body, err = json.Marshal(b.body())
	}
	if err != nil {
		c.d.Log.Error("a transaction for an application service does not encode", "service", c.s.ID, "err", err)
		return false
	}
	c.row.Serial++
	c.row.Txn = fmt.Sprintf("%s-%d-%d-%d", c.d.DB.Generation(), c.row.Serial, c.row.Pos, b.upTo)
	c.row.Body, c.row.TxnTo = string(body), b.upTo
	c.typed, c.shown = b.typed, b.shown
	return c.save(ctx, leaseTime)
}

// send makes one attempt at the transaction under way and reports whether to go on.
func (c *courier) send(ctx context.Context) bool {
	attempt, cancel := context.WithTimeout(ctx, c.d.Client.callTime)
	defer cancel()
	path := "/transactions/" + url.PathEscape(c.row.Txn)
	a, err := c.d.Client.do(attempt, c.s, call{
		method: http.MethodPut, path: "/_matrix/app/v1" + path, old: path, body: []byte(c.row.Body),
	})
	if err == nil && !a.ok() {
		err = fmt.Errorf("it answered with status %d", a.status)
	}
	switch {
	case err == nil:
		if err := c.delivered(ctx); err != nil { // they stay until somebody tidies up
			c.d.Log.Warn("removing messages that an application service has got failed", "service", c.s.ID, "err", err)
		}
		c.row.Pos, c.row.Txn, c.row.Body, c.row.TxnTo, c.row.Fails, c.row.RetryAt = c.row.TxnTo, "", "", 0, 0, 0
		return true
	case ctx.Err() != nil || errors.Is(err, context.Canceled): // ending is nobody's failure
		return false
	}
	wait := min(minBackOff<<min(c.row.Fails, 20), maxBackOff)
	c.row.Fails++
	c.row.RetryAt = time.Now().Add(wait).UnixMilli()
	c.d.Log.Warn("an application service did not take a transaction", "service", c.s.ID, "fails", c.row.Fails, "again_in", wait, "err", err)
	return false
}
