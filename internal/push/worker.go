package push

import (
	"context"
	"time"

	"conclave/internal/store"
)

// work delivers what there is for one pusher. Looking is for everybody; only who finds something takes the lease.
func (d *Deliverer) work(ctx context.Context, nid int64) error {
	var p *store.Pusher
	err := d.DB.Read(ctx, func(tx *store.Tx) (err error) {
		p, err = tx.Pusher(nid)
		return err
	})
	if err == nil && p == nil {
		d.forget(nid)
	}
	if err != nil || p == nil || p.RetryAt > d.Clock().UnixMilli() {
		return err
	}
	if p.Kind == kindEmail && d.Mail == nil {
		return nil
	}
	p.Pos = max(p.Pos, d.lookedAt(nid))
	if p.Kind != kindEmail || p.Waiting == 0 && p.RetryAt == 0 { // else it is known that something waits, or may
		if found, err := d.look(ctx, p); err != nil || !found {
			return err
		}
	}
	if p, err = d.lease(ctx, nid); err != nil || p == nil {
		return err
	}
	p.Pos = max(p.Pos, d.lookedAt(nid))
	w := &worker{d: d, p: *p}
	if p.Kind == kindEmail {
		err = w.digest(ctx)
	} else {
		err = w.deliver(ctx)
	}
	// The lease is given back although the process may be ending: nobody should have to wait for its end.
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if !w.ended {
		w.save(release, 0)
	}
	return err
}

func (d *Deliverer) lookedAt(nid int64) store.Pos {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.looked[nid]
}

// forget drops what is remembered of a pusher that is gone.
func (d *Deliverer) forget(nid int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.looked, nid)
	delete(d.leased, nid)
}

// look finds out whether there is anything to tell a pusher. If not, it remembers how far that holds; it is written down
// only if it is a long way.
func (d *Deliverer) look(ctx context.Context, p *store.Pusher) (found bool, err error) {
	bound, err := d.DB.StreamBound(ctx)
	if err != nil {
		return false, err
	}
	start := p.Pos
	for at := start; at < bound; {
		list, reached, err := d.Source.Notices(ctx, p.User, p.UserID, at, bound)
		if err != nil || len(list) > 0 {
			return err == nil, err
		}
		at = reached
		d.mu.Lock()
		d.looked[p.NID] = at
		d.mu.Unlock()
		if at-start > saveEvery {
			return true, nil
		}
	}
	if p.Badge < 0 {
		return false, nil
	}
	unread, err := d.Source.Unread(ctx, p.User)
	return unread < p.Badge, err // more is told of with what makes it more
}

// lease takes a pusher for this process; nil if somebody else has it.
func (d *Deliverer) lease(ctx context.Context, nid int64) (p *store.Pusher, err error) {
	d.mu.Lock()
	force := d.Alone && !d.leased[nid]
	d.mu.Unlock()
	err = d.DB.Write(ctx, func(tx *store.Tx) (err error) {
		p, err = tx.LeasePusher(nid, d.Clock().UnixMilli(), leaseTime.Milliseconds(), force)
		return err
	})
	if err == nil && p != nil {
		d.mu.Lock()
		d.leased[nid] = true
		d.mu.Unlock()
	}
	return p, err
}

// worker works for one pusher while it holds its lease.
type worker struct {
	d     *Deliverer
	p     store.Pusher
	ended bool // there is no such pusher any more, or the lease is lost
}

// deliver tells the gateway of one notice after the other, then of the count of unread messages if the user has read some.
func (w *worker) deliver(ctx context.Context) error {
	bound, err := w.d.DB.StreamBound(ctx)
	if err != nil {
		return err
	}
	if w.p.Failing != 0 && w.d.Clock().UnixMilli()-w.p.Failing > staleTime.Milliseconds() {
		w.p.Pos = max(w.p.Pos, bound) // what is a day old is no news
	}
	for w.p.Pos < bound {
		if more, err := w.some(ctx, bound); err != nil || !more {
			return err
		}
	}
	if w.p.Badge < 0 && w.p.Fails == 0 {
		return nil
	}
	unread, err := w.d.Source.Unread(ctx, w.p.User)
	if err == nil && (unread < w.p.Badge || w.p.Fails > 0) {
		w.tell(ctx, nil, unread)
	}
	return err
}

// some tells of the next notices up to a position and reports whether to go on. The user may be reading meanwhile: what was
// listed is told while the list is fresh.
func (w *worker) some(ctx context.Context, bound store.Pos) (more bool, err error) {
	listed := time.Now()
	list, reached, err := w.d.Source.Notices(ctx, w.p.User, w.p.UserID, w.p.Pos, bound)
	if err != nil {
		return false, err
	}
	if len(list) > 0 {
		unread, err := w.d.Source.Unread(ctx, w.p.User)
		if err != nil {
			return false, err
		}
		for i := range list {
			if i > 0 && time.Since(listed) > freshTime {
				return true, nil
			}
			if !w.tell(ctx, &list[i], unread) {
				return false, nil
			}
		}
	}
	w.p.Pos = max(w.p.Pos, reached)
	return true, nil
}

// tell makes one attempt at one notice, or at the count alone, and reports whether to go on. What the gateway has taken is
// written down before the next is tried: a crash repeats rather than loses.
func (w *worker) tell(ctx context.Context, n *Notice, unread int64) (goOn bool) {
	if ctx.Err() != nil {
		return false
	}
	rejected, err := w.d.call(ctx, &w.p, n, unread)
	switch {
	case rejected:
		w.end(ctx)
		return false
	case err == nil:
		w.p.Badge, w.p.Fails, w.p.Failing, w.p.RetryAt = unread, 0, 0, 0
	case ctx.Err() != nil: // ending is nobody's failure
		return false
	default:
		w.fail(err)
		if n == nil || w.p.Fails < minRefusals || !blamesContent(err) {
			return false
		}
	}
	if n == nil {
		return true
	}
	w.p.Pos = n.Pos
	return w.save(ctx, leaseTime) && w.p.RetryAt == 0
}

// fail notes a failure and when to try again.
func (w *worker) fail(err error) {
	now := w.d.Clock()
	if w.p.Fails == 0 {
		w.p.Failing = now.UnixMilli()
	}
	wait := min(minBackOff<<min(w.p.Fails, 20), maxBackOff)
	w.p.Fails++
	w.p.RetryAt = now.Add(wait).UnixMilli()
	w.d.Log.Info("a push gateway did not take a notification", "pusher", w.p.NID, "fails", w.p.Fails, "err", err)
}

// end removes a pusher whose key is rejected.
func (w *worker) end(ctx context.Context) {
	w.ended = true
	w.d.forget(w.p.NID)
	w.d.Log.Info("a push gateway knows a pusher no more: it is removed", "pusher", w.p.NID)
	err := w.d.DB.Write(ctx, func(tx *store.Tx) error { return tx.EndPusher(w.p) })
	if err != nil {
		w.d.complain(ctx, "removing a pusher", err)
	}
}

// save stores where the pusher stands; ok is false if the lease was lost.
func (w *worker) save(ctx context.Context, lease time.Duration) (ok bool) {
	err := w.d.DB.Write(ctx, func(tx *store.Tx) (err error) {
		ok, err = tx.SavePusher(w.p, lease.Milliseconds())
		return err
	})
	if err != nil {
		w.d.complain(context.WithoutCancel(ctx), "saving a pusher", err)
		return false
	}
	w.ended = w.ended || !ok
	return ok
}
