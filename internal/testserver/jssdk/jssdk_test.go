// Package jssdk has the client that most others are built on run against two federated servers: matrix-js-sdk as its
// makers publish it, with its own Megolm encryption, under Node. What it does stands in web/jssdk; its version is the one
// that web/package-lock.json pins. Beside it runs openid-client, which knows OAuth and nothing of Matrix.
package jssdk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// scriptTime is how long the whole script may take on a busy machine; alone it needs a tenth of it.
const scriptTime = 5 * time.Minute

// scriptStep is a step of a script, with the rows of docs/spec/behaviours.md that it shows.
type scriptStep struct {
	name string
	rows []string
}

// steps are those of the script, in its order, with the rows of docs/spec/behaviours.md that each shows. The list is
// complete, so that a step which the script leaves out is missed.
var steps = []scriptStep{
	{name: "register", rows: []string{"AN-04", "AN-12"}},
	{name: "profile", rows: []string{"US-03"}},
	{name: "cross-signing", rows: []string{"E2-01", "E2-06"}},
	{name: "secret storage and key backup", rows: []string{"E2-10", "E2-13"}},
	{name: "direct room, encrypted", rows: []string{"E2-02", "RM-04"}},
	{name: "verification by emoji between two servers", rows: []string{"E2-03", "E2-07", "E2-13"}},
	{name: "encrypted room between two servers", rows: []string{"E2-02", "E2-11"}},
	{name: "edit", rows: []string{"EV-02"}},
	{name: "reaction", rows: []string{"EV-04"}},
	{name: "reply"},
	{name: "redaction"},
	{name: "thread"},
	{name: "receipt in a thread", rows: []string{"US-07"}},
	{name: "list of threads", rows: []string{"EV-06"}},
	{name: "typing", rows: []string{"US-11"}},
	{name: "read receipts and unread counts", rows: []string{"US-08", "US-09", "PU-09"}},
	{name: "presence", rows: []string{"US-12"}},
	{name: "encrypted attachment between two servers", rows: []string{"ME-02"}},
	{name: "avatar and thumbnail", rows: []string{"US-02"}},
	{name: "public room, directory and alias", rows: []string{"RM-07", "RM-11", "RM-12", "RM-14"}},
	{name: "search", rows: []string{"EV-14"}},
	{name: "history: pages, context, time"},
	{name: "unread counts by thread", rows: []string{"SY-08", "PU-09"}},
	{name: "user directory", rows: []string{"US-04"}},
	{name: "space", rows: []string{"RM-13"}},
	{name: "kick, ban, power"},
	{name: "knock", rows: []string{"RM-08"}},
	{name: "ignored people", rows: []string{"SY-13"}},
	{name: "report, OpenID, turn servers", rows: []string{"RM-18"}},
	{name: "key backup", rows: []string{"E2-10"}},
	{name: "new device reads its history from the backup"},
	{name: "own device verified by secret storage", rows: []string{"E2-08"}},
	{name: "own device verified by emoji, secrets handed over", rows: []string{"E2-11", "E2-13"}},
	{name: "account data and tags", rows: []string{"US-05", "US-06"}},
	{name: "push rules and pushers", rows: []string{"PU-07", "PU-08", "PU-10"}},
	{name: "sliding sync"},
	{name: "room upgrade", rows: []string{"RM-05"}},
	{name: "leave and forget", rows: []string{"RM-09"}},
	{name: "devices", rows: []string{"AN-06", "E2-12"}},
	{name: "password, logout and deactivation", rows: []string{"AN-06", "AN-15", "AN-16"}},
	{name: "no request was unknown to a server or broke it"},
}

// line is one that the script writes: a step that is over, or a request that was made for the first time.
type line struct {
	Step  string `json:"step"`
	OK    bool   `json:"ok"`
	Ms    int    `json:"ms"`
	Error string `json:"error"`

	Request     string `json:"request"` // the method
	Path        string `json:"path"`
	Query       string `json:"query"` // with its question mark
	Status      int    `json:"status"`
	Type        string `json:"type"`        // the header Content-Type
	Disposition string `json:"disposition"` // the header Content-Disposition
	Body        string `json:"body"`        // if it is JSON
}

func (l line) header() http.Header {
	return http.Header{"Content-Type": {l.Type}, "Content-Disposition": {l.Disposition}}
}

// TestSDK runs the script against server A on SQLite and server B on PostgreSQL.
func TestSDK(t *testing.T) {
	ca := peer.NewCA(t)
	a := testserver.Start(t, testserver.Options{Engine: "sqlite", CA: ca, Presence: true})
	b := testserver.Start(t, testserver.Options{Engine: "postgres", CA: ca, Presence: true})
	judge(t, steps, "matrix-js-sdk", "jssdk/run.mjs", a.URL, b.URL)
}

// judge runs a script, which needs a package, and looks at how each of its steps went.
func judge(t *testing.T, steps []scriptStep, needs string, script ...string) {
	t.Helper()
	done, log := run(t, needs, script...)
	failed := false
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			l, ok := done[s.name]
			switch {
			case !ok:
				t.Error("the script did not come to this step")
			case !l.OK:
				t.Error(l.Error)
			default:
				t.Logf("%d ms", l.Ms)
				proof.Of(t, s.rows...)
			}
			failed = failed || t.Failed()
		})
	}
	if failed {
		t.Logf("the script's log:\n%s", log)
	}
}

// run runs a script to its end, and gives back its steps and the end of its log. What the SDK asked of the servers goes
// into the record of the tests.
func run(t *testing.T, needs string, script ...string) (map[string]line, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	web, err := filepath.Abs("../../../web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(web, "node_modules", needs)); err != nil {
		t.Fatal("the client's packages are not installed: make build")
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", script...) //nolint:gosec // a script of the repository
	cmd.Dir, cmd.Stderr = web, &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := read(t, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the script: %v", err)
	}
	return done, tail(log.String())
}

func read(t *testing.T, out io.Reader) map[string]line {
	t.Helper()
	done := map[string]line{}
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 16<<20) // a line holds an answer
	for scanner.Scan() {
		var l line
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			t.Errorf("the script wrote: %s", scanner.Text())
			continue
		}
		if l.Request != "" {
			proof.Served(t, l.Request, l.Path, l.Status)
			shapes.Check(t, l.Request, l.Path+l.Query, l.Status, l.header(), []byte(l.Body))
			continue
		}
		done[l.Step] = l
	}
	if err := scanner.Err(); err != nil {
		t.Errorf("what the script wrote: %v", err)
	}
	return done
}

// maxLog bounds what a failure shows of the script's log; with JSSDK_DEBUG set, the SDK says far more than that.
const maxLog = 32 << 10

func tail(log string) string {
	if os.Getenv("JSSDK_DEBUG") != "" {
		return log
	}
	return log[max(0, len(log)-maxLog):]
}
