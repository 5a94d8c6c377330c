package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// nodeLock keeps a second node away from a database, by a lock of a session of its own. If the session breaks, the lock
// is taken again; while it is lost, nothing is written.
type nodeLock struct {
	db    *DB
	cfg   *pgx.ConnConfig
	c     *pgx.Conn
	stop  context.CancelFunc
	ended chan struct{}
	lost  atomic.Bool
}

var errSecondNode = errors.New("another server is using this database; several nodes over one need Redis")

func takeNodeLock(ctx context.Context, db *DB, cfg *pgx.ConnConfig, wait time.Duration) (*nodeLock, error) {
	l := &nodeLock{db: db, cfg: cfg.Copy(), ended: make(chan struct{})}
	l.cfg.RuntimeParams["application_name"] = "conclave node"
	deadline := time.Now().Add(wait)
	for {
		err := l.take(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, errSecondNode) || time.Now().After(deadline) {
			return nil, err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	watch, stop := context.WithCancel(db.ctx)
	l.stop = stop
	go l.watch(watch)
	return l, nil
}

// take connects and takes the lock, or fails with errSecondNode.
func (l *nodeLock) take(ctx context.Context) error {
	if l.c == nil || l.c.IsClosed() {
		c, err := pgx.ConnectConfig(ctx, l.cfg)
		if err != nil {
			return err
		}
		l.c = c
	}
	var got bool
	if err := l.c.QueryRow(ctx, fmt.Sprintf("SELECT pg_try_advisory_lock(%d)", lockNode)).Scan(&got); err != nil {
		return errors.Join(err, l.c.Close(ctx))
	}
	if !got {
		return errSecondNode
	}
	return nil
}

// watch notices the end of the session and begins another.
func (l *nodeLock) watch(ctx context.Context) {
	defer close(l.ended)
	for ctx.Err() == nil {
		// Nobody notifies; this returns when the connection or ctx ends.
		if _, err := l.c.WaitForNotification(ctx); err == nil || ctx.Err() != nil {
			continue
		}
		l.lost.Store(true)
		l.db.journal.disable()
		for ctx.Err() == nil {
			err := l.take(ctx)
			if err == nil {
				l.lost.Store(false)
				break
			}
			l.db.log.Error("this server's hold on the database is lost; nothing is written until it is regained", "err", err)
			if pause(ctx, time.Second) != nil {
				return
			}
		}
	}
}

func (l *nodeLock) close() error {
	l.stop()
	<-l.ended
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	return l.c.Close(ctx)
}
