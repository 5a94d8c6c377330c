package clientapi

import (
	"sync"
	"sync/atomic"
	"testing"

	"conclave/internal/testserver/proof"
)

// TestATicketOpensOneSocket shows one ticket a hundred times at the same time.
func TestATicketOpensOneSocket(t *testing.T) {
	proof.Of(t, "A11")
	tickets := newTickets()
	text, err := tickets.make("token")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var opened atomic.Int64
	start := make(chan struct{})
	for range 100 {
		group.Go(func() {
			<-start
			if token, ok := tickets.take(text); ok && token == "token" {
				opened.Add(1)
			}
		})
	}
	close(start)
	group.Wait()
	if opened.Load() != 1 {
		t.Errorf("one ticket opens %d sockets", opened.Load())
	}
}
