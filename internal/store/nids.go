package store

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Kind is what a number counts.
type Kind int16

// The kinds. A kind never changes its meaning.
const (
	KindServer Kind = iota + 1
	KindUser
	KindRoom
	KindEvent
	KindDevice
	KindStaged
	KindPusher
	KindReport
	kinds
)

// nidBlock is how many numbers a node takes at a time, and nidLow how many are left when it takes the next: sending an
// event should not wait for it.
const (
	nidBlock = 1000
	nidLow   = 300
)

// numbers are the blocks that this process holds.
type numbers struct {
	kind [kinds]numberBlocks

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// numberBlocks are the numbers of one kind: the block in use and the one after it.
type numberBlocks struct {
	mu       sync.Mutex
	next     int64
	end      int64         // the first number that is not ours
	then     int64         // where the next block begins, 0 if it has not been fetched
	fetching chan struct{} // closed when it is, or could not be; nil while nobody fetches
	err      error         // of the last fetch
}

// close waits for blocks that are being fetched and lets no more be.
func (n *numbers) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.work.Wait()
}

// NextNID gives out a number that nobody else has, on any node, ever. Numbers come from a block in memory: across nodes
// they are not in the order of time. It must not be called inside DB.Write.
func (db *DB) NextNID(kind Kind) (int64, error) {
	if kind <= 0 || kind >= kinds {
		return 0, fmt.Errorf("there are no numbers of kind %d", kind)
	}
	b := &db.numbers.kind[kind]
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.next == b.end && b.then != 0 {
			b.next, b.end, b.then = b.then, b.then+nidBlock, 0
		}
		if b.end-b.next < nidLow && b.then == 0 && b.fetching == nil {
			if err := db.fetchBlock(kind, b); err != nil {
				return 0, err
			}
		}
		if b.next < b.end {
			b.next++
			return b.next - 1, nil
		}
		wait := b.fetching
		b.mu.Unlock()
		<-wait
		b.mu.Lock()
		if b.err != nil && b.then == 0 && b.next == b.end {
			return 0, b.err
		}
	}
}

// fetchBlock takes another block in the background. b is locked.
func (db *DB) fetchBlock(kind Kind, b *numberBlocks) error {
	n := &db.numbers
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	done := make(chan struct{})
	b.fetching = done
	n.work.Go(func() {
		first, err := db.takeBlock(kind)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.then, b.err, b.fetching = first, err, nil
		close(done)
	})
	return nil
}

// nidTime is how long to wait for a block.
const nidTime = 10 * time.Second

// takeBlock reserves a block in the database and returns its first number.
func (db *DB) takeBlock(kind Kind) (int64, error) {
	ctx, cancel := context.WithTimeout(db.ctx, nidTime)
	defer cancel()
	var next int64
	err := db.Write(ctx, func(tx *Tx) error {
		_, err := tx.QueryRow(`INSERT INTO nid_blocks (kind, next) VALUES ($1, $2)
			ON CONFLICT (kind) DO UPDATE SET next = nid_blocks.next + $3 RETURNING next`, kind, 1+nidBlock, nidBlock).Scan(&next)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("taking a block of numbers: %w", err)
	}
	return next - nidBlock, nil
}
