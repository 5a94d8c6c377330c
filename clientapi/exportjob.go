package clientapi

import (
	"bufio"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
	"conclave/media"
)

// How exports are made: room by room, one export at a time on each node.
const (
	exportLook  = 10 * time.Second
	exportLease = 15 * time.Second // renewed while somebody works; after a crash nobody goes on before its end
	exportAgain = time.Minute      // after a failure at least
	exportKept  = 7 * 24 * time.Hour
	exportTries = 7 * 24 * time.Hour // after which one is given up that cannot be made
)

const notExported = "Something could not be read or stored. It is tried again."

// exporter makes exports, and removes those whose time is over.
type exporter struct {
	s    *Server
	wake chan struct{}
	now  func() time.Time
}

func newExporter(s *Server) *exporter { return &exporter{s, make(chan struct{}, 1), time.Now} }

// hint says that there may be something to do.
func (x *exporter) hint() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (x *exporter) run(ctx context.Context) error {
	wakes, cancel := x.s.Bus.Subscribe(cluster.Sessions) // accounts are closed
	defer cancel()
	look := time.NewTicker(exportLook)
	defer look.Stop()
	for {
		if err := x.due(ctx); err != nil && ctx.Err() == nil {
			x.s.Log.Error("putting together all that there is of an account failed", "err", err)
		}
		select {
		case <-x.wake:
		case <-wakes:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// due does the jobs that are due.
func (x *exporter) due(ctx context.Context) error {
	for ctx.Err() == nil {
		now, due := x.now().UnixMilli(), false
		err := x.s.DB.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.JobDue(store.JobExport, now)
			return err
		})
		if err != nil || !due {
			return err
		}
		var job *store.Job
		err = x.s.DB.Write(ctx, func(tx *store.Tx) (err error) {
			job, err = tx.LeaseJob(store.JobExport, now, exportLease.Milliseconds())
			return err
		})
		if err != nil || job == nil {
			return err
		}
		if err := x.do(ctx, *job); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// do does what is due about one export: make it, or remove it.
func (x *exporter) do(ctx context.Context, job store.Job) error {
	id := matrix.UserID(job.Key)
	user, err := x.s.DB.User(ctx, id)
	if err != nil {
		return err
	}
	var account *store.Account
	var e *store.Export
	err = x.s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if account, err = tx.AccountOf(user.NID); err == nil {
			e, err = tx.Export(user.NID)
		}
		return err
	})
	if err != nil {
		return err
	}
	now := x.now()
	switch {
	case account == nil, account.Deactivated, e == nil, e.File != "" && e.Expires <= now.UnixMilli(),
		e.File == "" && now.Sub(time.UnixMilli(e.Asked)) > exportTries:
		return x.s.Media.DropOldExport(ctx, user.NID, id, e)
	case e.File != "":
		return x.s.DB.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.SaveJob(job, e.Expires, 0)
			return err
		})
	}
	m := &export{x: x, job: job, account: *account}
	if err := m.make(ctx); err != nil && !errors.Is(err, media.ErrStale) && ctx.Err() == nil {
		return errors.Join(err, x.failed(ctx, m.job, *e))
	}
	return ctx.Err()
}

// failed puts an export off that could not be made.
func (x *exporter) failed(ctx context.Context, job store.Job, e store.Export) error {
	return x.s.DB.Write(ctx, func(tx *store.Tx) error {
		if mine, err := tx.SaveJob(job, nextTry(e.Asked, x.now()).UnixMilli(), 0); err != nil || !mine {
			return err
		}
		return tx.FailExport(e.User, notExported)
	})
}

// nextTry is when an export is tried again that was asked for at a time (ms): the longer it fails the more seldom. Each try may
// write the whole archive, and what is missing may be room for it: others need the disk too.
func nextTry(asked int64, now time.Time) time.Time {
	return now.Add(max(exportAgain, now.Sub(time.UnixMilli(asked))/4))
}

// export is one that is being made. The job's cursor is the last room that was read, and its place in the archive.
type export struct {
	x       *exporter
	job     store.Job
	account store.Account
}

func (m *export) at() (room store.RoomNID, place int64) {
	_, _ = fmt.Sscan(m.job.Cursor, &room, &place) // nothing at first
	return room, place
}

// make goes on where the job was left, until the export is ready or nobody wants it any more.
func (m *export) make(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	renewing := work.NewGroup(ctx, m.x.s.Log)
	job := m.job
	renewing.Go("lease of an export", func(ctx context.Context) error {
		if m.x.s.DB.KeepJob(ctx, job, exportLease) {
			cancel()
		}
		return nil
	})
	for {
		last, place := m.at()
		var room store.RoomNID
		err := m.x.s.DB.Read(ctx, func(tx *store.Tx) (err error) {
			room, err = tx.NextExportRoom(m.account.User, last)
			return err
		})
		switch {
		case err != nil:
			return err
		case room == 0:
			return m.finish(ctx)
		}
		if err := m.room(ctx, room, place+1); err != nil {
			return err
		}
	}
}

// saved stores how far the job has come, as store.SaveJob does. It reports false also if the account was closed meanwhile: the job
// is due then as it stands, and whoever takes it next removes what there is.
func (m *export) saved(tx *store.Tx, job store.Job, due, leaseMS int64) (mine bool, err error) {
	if open, err := m.x.s.Accounts.Exporting(tx, m.account.User); err != nil || !open {
		return false, err
	}
	return tx.SaveJob(job, due, leaseMS)
}

// tally counts what is written to it.
type tally struct{ n int64 }

// Write implements io.Writer.
func (c *tally) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// room makes the entry of one room.
func (m *export) room(ctx context.Context, room store.RoomNID, place int64) error {
	part := store.ExportPart{Name: fmt.Sprintf("rooms/%05d.jsonl", place)}
	sum, size := crc32.NewIEEE(), &tally{}
	job := m.job
	job.Cursor = fmt.Sprint(room, place)
	fill := func(w io.Writer) error {
		packed, err := flate.NewWriter(w, flate.DefaultCompression)
		if err != nil {
			return err
		}
		out := bufio.NewWriterSize(io.MultiWriter(packed, sum, size), 64<<10)
		if err := m.writeRoom(ctx, out, room); err != nil {
			return err
		}
		return errors.Join(out.Flush(), packed.Close())
	}
	work.Failpoint("export.before_commit")
	err := m.x.s.Media.KeepFile(ctx, fill, func(tx *store.Tx, f media.File) (bool, error) {
		mine, err := m.saved(tx, job, m.x.now().UnixMilli(), exportLease.Milliseconds())
		if err != nil || !mine {
			return false, err
		}
		part.File, part.Hash, part.Packed, part.Size, part.Sum = f.Name, f.Hash, f.Size, size.n, sum.Sum32()
		if err := tx.AddExportPart(m.account.User, place, part); err != nil {
			return false, err
		}
		return true, tx.ExportReached(m.account.User)
	})
	work.Failpoint("export.after_commit")
	if err == nil {
		m.job = job
	}
	return err
}

// finish puts the archive together and tells its owner.
func (m *export) finish(ctx context.Context) error {
	now := m.x.now()
	e := store.Export{User: m.account.User, Finished: now.UnixMilli(), Expires: now.Add(exportKept).UnixMilli()}
	err := m.x.s.Media.KeepFile(ctx, func(w io.Writer) error { return m.archive(ctx, w, now) }, func(tx *store.Tx, f media.File) (bool, error) {
		mine, err := m.saved(tx, m.job, e.Expires, 0)
		if err != nil || !mine {
			return false, err
		}
		e.File, e.Hash, e.Size = f.Name, f.Hash, f.Size
		if err := tx.FinishExport(e); err != nil {
			return false, err
		}
		return true, m.x.s.Accounts.Exported(tx, m.account.User, m.account.ID)
	})
	work.Failpoint("export.after_commit")
	if err != nil {
		return err
	}
	return m.x.s.Media.DropExportParts(ctx, m.account.User)
}
