// Package cluster carries wakes between what writes and what waits, on one node or several.
//
// A wake is a hint: it says "look again" with a number, never with a payload. The database is the truth, so losing every wake costs a second
// of latency (whoever waits also looks by a timer) and never an event. Local is the form for a single node; a form over Redis only has to satisfy Bus.
package cluster

import "sync"

// Kind says what a wake is about, and with it what its number means.
type Kind uint8

// The kinds. A positional kind's number is a position in a stream: only the newest matters, older ones are dropped. A keyed kind's
// number names one thing to look at (a user, say): each is delivered, until there are too many.
const (
	// Stream: persisted changes up to this position are committed.
	Stream Kind = iota + 1
	// Ephemeral: typing or presence changed, up to this ephemeral position.
	Ephemeral
	// Sessions (keyed): the sessions of this user changed or ended.
	Sessions
)

func (k Kind) keyed() bool { return k == Sessions }

// Lost is what a subscriber of a keyed kind receives when it was so slow that keys were dropped: look at everything.
const Lost int64 = 0

// maxKeys is how many keys wait for a slow subscriber before it is told Lost instead.
const maxKeys = 256

// Bus publishes and delivers wakes.
type Bus interface {
	// Publish tells every subscriber of a kind. It never blocks, whatever subscribers do. Numbers are positive.
	Publish(kind Kind, number int64)
	// Subscribe returns a channel of the wakes published from now on, and a function that ends the subscription. The channel
	// is never closed. Subscribe first, then read the database: then nothing is missed between.
	Subscribe(kind Kind) (wakes <-chan int64, cancel func())
}

// Local is the Bus of a single node. Its methods are safe for concurrent use.
type Local struct {
	mu          sync.Mutex
	subscribers map[Kind]map[chan int64]struct{}
}

// NewLocal returns a bus within this process.
func NewLocal() *Local { return &Local{subscribers: map[Kind]map[chan int64]struct{}{}} }

// Publish implements Bus.
func (l *Local) Publish(kind Kind, number int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ch := range l.subscribers[kind] {
		offer(ch, kind, number)
	}
}

// offer puts a wake into a channel that has one sender at a time, making room by coalescing.
func offer(ch chan int64, kind Kind, number int64) {
	for {
		select {
		case ch <- number:
			return
		default:
		}
		if kind.keyed() {
			number = Lost
		}
		for range cap(ch) {
			select {
			case waiting := <-ch:
				if !kind.keyed() {
					number = max(number, waiting)
				}
			default:
			}
		}
	}
}

// Subscribe implements Bus.
func (l *Local) Subscribe(kind Kind) (<-chan int64, func()) {
	size := 1
	if kind.keyed() {
		size = maxKeys
	}
	ch := make(chan int64, size)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subscribers[kind] == nil {
		l.subscribers[kind] = map[chan int64]struct{}{}
	}
	l.subscribers[kind][ch] = struct{}{}
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscribers[kind], ch)
	}
}
