package clientapi

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/push"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/media"
)

// exportWorld is what a server needs to put together what there is of somebody who is in no room.
func exportWorld(t *testing.T, db *store.DB) *Server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	conf := &config.Config{
		ServerName: "us.test", DataDir: t.TempDir(), Auth: config.Auth{Argon2: config.Argon2{MemoryKiB: 64, Time: 1, Threads: 1}},
		Media: config.Media{MaxUploadBytes: 1 << 20},
	}
	files, err := media.New(media.Options{DB: db, Config: conf, Server: "us.test", Log: log, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Deps: Deps{
		Config: conf, DB: db, Log: log, Media: files, PushRules: push.NewRules(db, log, nil, nil),
		Accounts: accounts.New(accounts.Options{DB: db, Server: "us.test", Config: conf, Bus: cluster.NewLocal(), Log: log}),
	}}
	s.exporting = newExporter(s)
	return s
}

// TestExportsOfClosedAccounts closes an account while its archive is put together: the archive is not kept, and what there is of it
// goes as soon as somebody takes the job again.
func TestExportsOfClosedAccounts(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx := exportWorld(t, db), t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		login, err := s.Accounts.Register(ctx, accounts.Registration{Username: "alice", Password: "a long password", Device: &accounts.NewDevice{}})
		must(err)
		session, err := s.Accounts.Authenticate(ctx, login.Token, "")
		must(err)
		must(s.Accounts.BeginExport(ctx, session))
		m := &export{x: s.exporting}
		must(db.Write(ctx, func(tx *store.Tx) error {
			account, err := tx.AccountOf(session.User)
			if err != nil {
				return err
			}
			m.account = *account
			job, err := tx.LeaseJob(store.JobExport, time.Now().UnixMilli(), time.Minute.Milliseconds())
			if err == nil {
				m.job = *job
			}
			return err
		}))
		must(s.Accounts.Close(ctx, accounts.Closing{User: session.User}))
		if err := m.finish(ctx); !errors.Is(err, media.ErrStale) {
			t.Errorf("the archive of a closed account is finished: %v", err)
		}
		look := func() (e *store.Export, due bool) {
			must(db.Read(ctx, func(tx *store.Tx) (err error) {
				if e, err = tx.Export(session.User); err == nil {
					_, err = tx.QueryRow(`SELECT count(*) > 0 FROM jobs WHERE kind = 'export' AND due = 0`).Scan(&due)
				}
				return err
			}))
			return e, due
		}
		if e, due := look(); e == nil || e.File != "" || !due {
			t.Errorf("what is left is %+v, and its removal is due: %v", e, due)
		}
		must(s.exporting.do(ctx, m.job))
		if e, _ := look(); e != nil {
			t.Errorf("the export is kept: %+v", e)
		}
	})
}

// TestAnotherExportAfterItsTime asks for an archive when the time of the one before is over and nobody has removed that yet. Whoever
// is about to does no harm to the new one.
func TestAnotherExportAfterItsTime(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx, at := exportWorld(t, db), t.Context(), time.Now()
		s.exporting.now = func() time.Time { return at }
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		login, err := s.Accounts.Register(ctx, accounts.Registration{Username: "alice", Password: "a long password", Device: &accounts.NewDevice{}})
		must(err)
		session, err := s.Accounts.Authenticate(ctx, login.Token, "")
		must(err)
		r := &Request{Context: echo.New().NewContext(httptest.NewRequestWithContext(ctx, "POST", exportPath, nil), httptest.NewRecorder()), Session: session, server: s}
		state := func() exportAnswer {
			e, err := s.export(r)
			must(err)
			return exportState(e)
		}
		must(s.newExport(r))
		at = time.Now().Add(time.Minute)
		must(s.exporting.due(ctx))
		if got := state(); got.State != "ready" {
			t.Fatalf("the archive is %+v", got)
		}
		old, err := s.anyExport(r)
		must(err)
		must(s.newExport(r))
		if got := state(); got.State != "ready" {
			t.Errorf("while there is one, another is made: %+v", got)
		}
		at = at.Add(exportKept + time.Second)
		if got := state(); got.State != "none" {
			t.Errorf("after its time the archive is %+v", got)
		}
		must(s.newExport(r))
		if got := state(); got.State != "working" || got.Asked <= old.Asked {
			t.Errorf("whoever asks for another one gets %+v", got)
		}
		must(s.Media.DropOldExport(ctx, session.User, session.UserID, old))
		if got := state(); got.State != "working" {
			t.Errorf("the end of the old one ends the new one: %+v", got)
		}
		at = time.Now().Add(time.Minute) // a week later it would have been given up
		must(s.exporting.due(ctx))
		if got := state(); got.State != "ready" {
			t.Errorf("the new one is %+v", got)
		}
	})
}

// TestFailingExportsAreTriedMoreSeldom counts how often an export is tried that cannot be made.
func TestFailingExportsAreTriedMoreSeldom(t *testing.T) {
	asked := time.UnixMilli(1_000_000)
	first, tries := nextTry(asked.UnixMilli(), asked.Add(time.Second)), 0
	for now := first; now.Sub(asked) < exportTries; now = nextTry(asked.UnixMilli(), now) {
		tries++
	}
	if first.Sub(asked) > 2*time.Minute || tries < 10 || tries > 100 {
		t.Errorf("it is tried again after %v, and %d times in all", first.Sub(asked), tries)
	}
}
