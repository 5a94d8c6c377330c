package clientapi

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// onWrite calls a function before the first byte of an answer.
type onWrite struct {
	http.ResponseWriter
	do func()
}

// Write implements io.Writer.
func (w *onWrite) Write(p []byte) (int, error) {
	if w.do != nil {
		w.do()
		w.do = nil
	}
	return w.ResponseWriter.Write(p)
}

// TestCutExportsAreSeen loses the database while the audit log is exported: whoever reads it learns that it is not whole.
func TestCutExportsAreSeen(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		log := slog.New(slog.DiscardHandler)
		s := &Server{Deps: Deps{DB: db, Log: log, Accounts: accounts.New(accounts.Options{DB: db, Server: "us.test", Config: &config.Config{}, Bus: cluster.NewLocal(), Log: log})}}
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			for range auditPage + 1 {
				if err := tx.AddAudit(store.AuditEntry{TS: 1, Event: "x"}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		lose := func() { _ = db.Close() }
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/lost" {
				w = &onWrite{w, lose}
			}
			r := &Request{Context: echo.New().NewContext(req, w), server: s}
			answer, err := s.exportAuditLog(r)
			s.respond(r.Context, "export", answer, err)
		}))
		server.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelError)
		server.Start()
		defer server.Close()
		for _, path := range []string{"/whole", "/lost"} {
			res, err := http.Get(server.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if lines := strings.Count(string(body), "\n"); (err == nil) != (path == "/whole") || err == nil && lines != auditPage+1 {
				t.Errorf("%s: %d lines, %v", path, lines, err)
			}
		}
	})
}
