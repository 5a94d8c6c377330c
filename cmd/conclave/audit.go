package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

func auditCommand() command {
	return command{
		name: "audit", args: "export [-from TIME] [-to TIME] [-config FILE]",
		does: "prints the audit log, each entry a line of JSON, the oldest first, whether the server runs or not; a TIME is 2026-01-31 or 2026-01-31T12:00:00Z, and -to itself is left out",
		run:  runAudit,
	}
}

// auditRequest asks for a page of the audit log.
type auditRequest struct {
	Since int64 `json:"since"` // ms, 0 for any
	Until int64 `json:"until"` // ms, not included, 0 for any
	After int64 `json:"after"` // the entry that the page begins behind
}

// auditAnswer is that page.
type auditAnswer struct {
	Entries []accounts.AuditLine `json:"entries"`
}

// auditPage is how many entries one answer has.
const auditPage = 500

func (o operator) audit(ctx context.Context, q auditRequest) (a auditAnswer, err error) {
	entries, err := o.accounts.Audit(ctx, store.AuditQuery{Since: q.Since, Until: q.Until, After: q.After, Oldest: true, Limit: auditPage})
	for _, e := range entries {
		a.Entries = append(a.Entries, accounts.LineOf(e))
	}
	return a, err
}

// auditHandler answers the command of a running server's operator.
func auditHandler(o operator, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q auditRequest
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCommand))
		if err == nil {
			err = matrix.Decode(body, &q)
		}
		var answer any
		if err == nil {
			answer, err = o.audit(r.Context(), q)
		}
		if err != nil {
			log.Error("reading the audit log failed", "err", err)
			known := matrix.Errorf(http.StatusInternalServerError, "M_UNKNOWN", "Something went wrong; the server's log says what.")
			w.WriteHeader(known.Status)
			answer = known
		}
		if raw, err := json.Marshal(answer); err == nil {
			_, _ = w.Write(raw) // a command that was given up is nobody to tell
		}
	})
}

func runAudit(ctx context.Context, c console, args []string) (err error) {
	if len(args) == 0 || args[0] != "export" {
		return usageError{"say export"}
	}
	set := flag.NewFlagSet("audit export", flag.ContinueOnError)
	file := set.String("config", "config.yaml", "the configuration `file`")
	from, to := set.String("from", "", "the `time` of the first entry"), set.String("to", "", "the `time` before which the last one is")
	if _, err := parse(c, set, args[1:], 0, 0); err != nil {
		return err
	}
	var q auditRequest
	if q.Since, err = moment(*from); err != nil {
		return err
	}
	if q.Until, err = moment(*to); err != nil {
		return err
	}
	conf, err := config.Load(*file, c.environ)
	if err != nil {
		return err
	}
	ask, done := auditing(conf, c)
	return errors.Join(printAudit(ctx, c.out, q, ask), done())
}

// printAudit writes all pages.
func printAudit(ctx context.Context, out io.Writer, q auditRequest, ask func(context.Context, auditRequest) (auditAnswer, error)) error {
	buffered := bufio.NewWriter(out)
	lines := json.NewEncoder(buffered)
	for {
		a, err := ask(ctx, q)
		if err != nil {
			return errors.Join(err, buffered.Flush())
		}
		for _, e := range a.Entries {
			if err := lines.Encode(e); err != nil {
				return err
			}
			q.After = e.ID
		}
		if len(a.Entries) < auditPage {
			return buffered.Flush()
		}
	}
}

// moment reads a day, which begins at midnight UTC, or a time, as ms; 0 for none.
func moment(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, usageError{fmt.Sprintf("%q is no time: write 2026-01-31 or 2026-01-31T12:00:00Z", text)}
}

// auditing makes what reads a page: from the running server, or from the database itself where none runs. done ends it.
func auditing(conf *config.Config, c console) (ask func(context.Context, auditRequest) (auditAnswer, error), done func() error) {
	var own *operator // once the database is open
	ask = func(ctx context.Context, q auditRequest) (a auditAnswer, err error) {
		if own == nil {
			body, err := toServer(ctx, conf.DataDir, "/audit", q)
			if err == nil {
				defer func() { _ = body.Close() }()
				return a, json.NewDecoder(body).Decode(&a)
			}
			if !errors.Is(err, errNotRunning) {
				return a, err
			}
			if own, err = openOperator(ctx, conf, c); err != nil {
				return a, err
			}
		}
		return own.audit(ctx, q)
	}
	return ask, func() error {
		if own == nil {
			return nil
		}
		return own.db.Close()
	}
}
