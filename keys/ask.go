package keys

import (
	"context"
	"sync"
	"time"

	"conclave/internal/matrix"
)

const (
	defaultTimeout = 10 * time.Second // for other servers' answers, where the client does not say
	maxTimeout     = 30 * time.Second
	maxAsked       = 16 // servers at a time
)

// ask puts a question to several servers at once, for a bounded time in all. Who does not answer is a failure of its
// own.
func ask[Q, A any](ctx context.Context, k *Keys, questions map[matrix.ServerName]Q, timeout time.Duration,
	put func(context.Context, matrix.ServerName, Q) (A, error)) (map[matrix.ServerName]A, map[matrix.ServerName]Failure) {
	answers, failures := map[matrix.ServerName]A{}, map[matrix.ServerName]Failure{}
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, min(timeout, maxTimeout))
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	places := make(chan struct{}, maxAsked)
	for server, question := range questions {
		if k.o.Remote == nil {
			failures[server] = Failure{"M_FORBIDDEN", "This server talks to no other servers."}
			continue
		}
		group.Go(func() {
			places <- struct{}{}
			answer, err := put(ctx, server, question)
			<-places
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				k.o.Log.Debug("asking for keys failed", "server", server, "err", err)
				failures[server] = Failure{"M_UNKNOWN", "The server could not be reached, or its answer was of no use."}
				return
			}
			answers[server] = answer
		})
	}
	group.Wait()
	return answers, failures
}
