// Package work runs the goroutines that live longer than a request. A Group starts them by name, contains their panics, starts what failed
// again with growing pauses, and waits for them at the end. Failpoint marks places where a test build kills the process (tag "failpoints").
package work

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// Pauses between a failure and the next start: firstPause doubling to longestPause; forgiveAfter of work without failure starts over.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	forgiveAfter = time.Minute
)

// Group is a set of supervised goroutines. Its methods are safe for concurrent use.
type Group struct {
	ctx  context.Context
	stop context.CancelFunc
	log  *slog.Logger

	mu      sync.Mutex
	running map[string]int
	count   int
	idle    chan struct{} // closed while nothing runs
}

// NewGroup makes a group whose goroutines end with ctx.
func NewGroup(ctx context.Context, log *slog.Logger) *Group {
	ctx, stop := context.WithCancel(ctx)
	g := &Group{ctx: ctx, stop: stop, log: log, running: map[string]int{}, idle: make(chan struct{})}
	close(g.idle)
	return g
}

// Go runs f until it returns nil or the group's context ends. An error or a panic is logged, and f started again after a pause.
// The name says what the work is, and nothing about whom it serves: it is logged.
func (g *Group) Go(name string, f func(ctx context.Context) error) {
	g.mu.Lock()
	if g.count++; g.count == 1 {
		g.idle = make(chan struct{})
	}
	g.running[name]++
	g.mu.Unlock()
	go func() {
		defer g.ended(name)
		g.supervise(name, f)
	}()
}

func (g *Group) ended(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[name]--; g.running[name] == 0 {
		delete(g.running, name)
	}
	if g.count--; g.count == 0 {
		close(g.idle)
	}
}

func (g *Group) supervise(name string, f func(ctx context.Context) error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		began := time.Now()
		err := Contain(func() error { return f(g.ctx) })
		if err == nil || (g.ctx.Err() != nil && errors.Is(err, g.ctx.Err())) {
			return
		}
		if time.Since(began) >= forgiveAfter {
			pause = firstPause
		}
		g.log.Error("work failed", "work", name, "err", err, "again_in", pause)
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Contain calls f and turns a panic into an error that names it and where it was. The value of a panic is shown only if it
// is the runtime's own: another could hold content. http.ErrAbortHandler passes through: it is meant for the HTTP server.
func Contain(f func() error) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case runtime.Error:
			err = fmt.Errorf("panic: %w\n%s", v, debug.Stack())
		default:
			if v == http.ErrAbortHandler {
				panic(v)
			}
			err = fmt.Errorf("panic with a %T\n%s", v, debug.Stack())
		}
	}()
	return f()
}

// Stop tells the goroutines to end, by their context.
func (g *Group) Stop() { g.stop() }

// Wait waits until nothing runs. It does not stop what runs: cancel the group's context, or call Stop, for that. If ctx ends
// first, the error names what still runs.
func (g *Group) Wait(ctx context.Context) error {
	g.mu.Lock()
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("still at work: %s: %w", strings.Join(g.names(), ", "), ctx.Err())
	}
}

func (g *Group) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for name := range g.running {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
