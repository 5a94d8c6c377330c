package sync

import (
	"context"
	"time"
)

// Follow is Sync without an end: it hands one response after the other to send, each from where the one before it led,
// until ctx ends or send fails. While send takes its time nothing is assembled: what happens meanwhile comes together
// in the next response. The first response comes at once, even if it tells nothing new.
func (e *Engine) Follow(ctx context.Context, q Request, send func(*Response) error) error {
	if q.Filter == nil {
		q.Filter = &Filter{}
	}
	if err := e.begin(ctx, &q); err != nil {
		return err
	}
	l, err := e.listeners.join(ctx, e, q.User)
	if err != nil {
		return err
	}
	defer e.listeners.leave(l)
	if err := e.reach(ctx, e.db.Written()); err != nil {
		return err
	}
	if q.Since != nil {
		if err := e.acknowledge(ctx, l, q); err != nil {
			return err
		}
	}
	for first := true; ; first = false {
		awake := l.awake()
		answer, err := e.assemble(ctx, l, q)
		if err != nil {
			return err
		}
		next := answer.Next()
		if first || !answer.Empty() {
			if err := send(answer); err != nil {
				return err
			}
		}
		more := next.Messages != 0 || answer.more // not all messages to the device, or not all presence, fitted
		q.Since, q.FullState = &next, false
		if more {
			continue
		}
		select {
		case <-awake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Heartbeat is how often a silent socket is asked whether its client is still there.
const Heartbeat = 30 * time.Second
