package work

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// Flights lets callers that want the same thing at the same time share one attempt to get it. The attempt outlives a
// caller that gives up; fn bounds its own time. The zero value is ready.
type Flights[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*flight[V]
}

type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// Do returns what fn returns, running it unless it is already running for key. fn's context keeps ctx's values but
// not its end.
func (f *Flights[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, error) {
	f.mu.Lock()
	fl, running := f.m[key]
	if !running {
		fl = &flight[V]{done: make(chan struct{})}
		if f.m == nil {
			f.m = map[K]*flight[V]{}
		}
		f.m[key] = fl
		go f.run(context.WithoutCancel(ctx), key, fl, fn)
	}
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

func (f *Flights[K, V]) run(ctx context.Context, key K, fl *flight[V], fn func(context.Context) (V, error)) {
	defer func() {
		// A panic must not end the process, and its value may hold content (see contain).
		if p := recover(); p != nil {
			fl.err = fmt.Errorf("a shared attempt failed: panic with a %T\n%s", p, debug.Stack())
		}
		f.mu.Lock()
		delete(f.m, key)
		f.mu.Unlock()
		close(fl.done)
	}()
	fl.value, fl.err = fn(ctx)
}
