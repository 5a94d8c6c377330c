// Package jssdk has the client that most others are built on run against two federated servers: matrix-js-sdk as its
// makers publish it, with its own Megolm encryption, under Node. What it does stands in web/jssdk; its version is the one
// that web/package-lock.json pins.
package jssdk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// scriptTime is how long the whole script may take on a busy machine; alone it needs a tenth of it.
const scriptTime = 5 * time.Minute

// steps are those of the script, in its order, with the rows of docs/spec/behaviours.md that each shows. The list is
// complete, so that a step which the script leaves out is missed.
var steps = []struct {
	name string
	rows []string
}{
	{name: "register"},
	{name: "profile"},
	{name: "cross-signing", rows: []string{"E2-06"}},
	{name: "secret storage and key backup"},
	{name: "direct room, encrypted"},
	{name: "verification by emoji between two servers", rows: []string{"E2-13"}},
	{name: "encrypted room between two servers", rows: []string{"E2-03"}},
	{name: "edit"},
	{name: "reaction"},
	{name: "reply"},
	{name: "redaction"},
	{name: "thread"},
	{name: "thread's unread count and receipts"},
	{name: "list of threads"},
	{name: "typing"},
	{name: "read receipts and unread counts"},
	{name: "presence"},
	{name: "encrypted attachment between two servers"},
	{name: "avatar and thumbnail"},
	{name: "public room, directory and alias"},
	{name: "search"},
	{name: "user directory"},
	{name: "history: pages, context, time"},
	{name: "space"},
	{name: "kick, ban, power"},
	{name: "knock"},
	{name: "ignored people"},
	{name: "report, OpenID, turn servers"},
	{name: "key backup"},
	{name: "new device reads its history from the backup"},
	{name: "own device verified by secret storage"},
	{name: "own device verified by emoji, secrets handed over"},
	{name: "account data and tags"},
	{name: "push rules and pushers"},
	{name: "room upgrade"},
	{name: "leave and forget"},
	{name: "devices"},
	{name: "password, logout and deactivation"},
	{name: "no request was unknown to a server or broke it"},
}

// line is one that the script writes: a step that is over, or a request that was made for the first time.
type line struct {
	Step  string `json:"step"`
	OK    bool   `json:"ok"`
	Ms    int    `json:"ms"`
	Error string `json:"error"`

	Request string `json:"request"` // the method
	Path    string `json:"path"`
	Status  int    `json:"status"`
}

// TestSDK runs the script against server A on SQLite and server B on PostgreSQL.
func TestSDK(t *testing.T) {
	ca := peer.NewCA(t)
	a := testserver.Start(t, testserver.Options{Engine: "sqlite", CA: ca, Presence: true})
	b := testserver.Start(t, testserver.Options{Engine: "postgres", CA: ca, Presence: true})
	done, log := run(t, a.URL, b.URL)
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

// run runs the script to its end, and gives back its steps and the end of its log. What the SDK asked of the servers goes
// into the record of the tests.
func run(t *testing.T, urlA, urlB string) (map[string]line, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	web, err := filepath.Abs("../../../web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(web, "node_modules/matrix-js-sdk")); err != nil {
		t.Fatal("the client's packages are not installed: make build")
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", "jssdk/run.mjs", urlA, urlB) //nolint:gosec // a script of the repository
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
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		var l line
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			t.Errorf("the script wrote: %s", scanner.Text())
			continue
		}
		if l.Request != "" {
			proof.Served(t, l.Request, l.Path, l.Status)
			continue
		}
		done[l.Step] = l
	}
	return done
}

// maxLog bounds what a failure shows of the script's log.
const maxLog = 32 << 10

func tail(log string) string { return log[max(0, len(log)-maxLog):] }
