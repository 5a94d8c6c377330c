package cluster

import (
	"sync"
	"testing"
)

var _ Bus = (*Local)(nil)

func TestPositionsAreCoalescedToTheNewest(t *testing.T) {
	bus := NewLocal()
	wakes, cancel := bus.Subscribe(Stream)
	defer cancel()
	for _, position := range []int64{3, 9, 7} {
		bus.Publish(Stream, position)
	}
	bus.Publish(Ephemeral, 100)
	if got := <-wakes; got != 9 {
		t.Errorf("woken for %d, want 9", got)
	}
	if len(wakes) != 0 {
		t.Error("one wake is enough")
	}
	bus.Publish(Stream, 10)
	if got := <-wakes; got != 10 {
		t.Errorf("woken for %d, want 10", got)
	}
}

func TestKeysAreDeliveredOneByOneUntilThereAreTooMany(t *testing.T) {
	bus := NewLocal()
	wakes, cancel := bus.Subscribe(Sessions)
	defer cancel()
	for key := range int64(maxKeys) {
		bus.Publish(Sessions, key+1)
	}
	for key := range int64(maxKeys) {
		if got := <-wakes; got != key+1 {
			t.Fatalf("got key %d, want %d", got, key+1)
		}
	}
	for key := range int64(maxKeys + 1) {
		bus.Publish(Sessions, key+1)
	}
	bus.Publish(Sessions, 5)
	if first, second := <-wakes, <-wakes; first != Lost || second != 5 || len(wakes) != 0 {
		t.Errorf("an overflow gives %d, %d and %d more, want Lost, 5 and none", first, second, len(wakes))
	}
}

func TestCancelledSubscriptionsHearNothing(t *testing.T) {
	bus := NewLocal()
	wakes, cancel := bus.Subscribe(Stream)
	cancel()
	cancel()
	bus.Publish(Stream, 1)
	if len(wakes) != 0 || len(bus.subscribers[Stream]) != 0 {
		t.Error("a cancelled subscription is still there")
	}
}

// Publishers never block, and a subscriber that reads in the end sees the newest position, however the two interleave.
func TestConcurrentPublishersAndReaders(t *testing.T) {
	bus := NewLocal()
	const publishers, each = 8, 500
	var readers, writers sync.WaitGroup
	for range 4 {
		wakes, cancel := bus.Subscribe(Stream)
		idle, _ := bus.Subscribe(Stream) // nobody reads it
		_ = idle
		readers.Go(func() {
			defer cancel()
			for seen := int64(0); seen < publishers*each; {
				seen = max(seen, <-wakes)
			}
		})
	}
	for p := range publishers {
		writers.Go(func() {
			for i := range each {
				bus.Publish(Stream, int64(p*each+i+1))
			}
		})
	}
	writers.Wait()
	readers.Wait()
}
