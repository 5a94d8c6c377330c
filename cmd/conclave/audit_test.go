package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"conclave/internal/testserver"
)

// TestAuditExport prints the audit log of a server that runs and of one that is stopped.
func TestAuditExport(t *testing.T) {
	testserver.Each(t, func(t *testing.T, engine string) {
		day := time.Now().UTC().Format(time.DateOnly) // before the first entry, in case that midnight comes in between
		s := testserver.Start(t, testserver.Options{Engine: engine})
		s.Register("alice")
		export := func(args ...string) (events []string) {
			t.Helper()
			code, stdout, stderr := callWith("", append(append([]string{"audit", "export"}, args...), "-config", s.Conf)...)
			if code != 0 {
				t.Fatalf("code %d, %s", code, stderr)
			}
			last := 0.0
			for line := range strings.Lines(stdout) {
				var e testserver.JSON
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if id, _ := e["id"].(float64); id <= last || e["ts"] == nil {
					t.Errorf("after entry %v comes %s", last, line)
				} else {
					last = id
				}
				event, _ := e["event"].(string)
				events = append(events, event)
			}
			return events
		}
		running := strings.Join(export(), " ")
		if !strings.Contains(running, "registered") || !strings.Contains(running, "login") {
			t.Errorf("the log of a running server is %q", running)
		}
		tomorrow := time.Now().UTC().Add(24 * time.Hour).Format(time.RFC3339)
		if some := strings.Join(export("-from", day, "-to", tomorrow), " "); some != running {
			t.Errorf("of today there is %q", some)
		}
		if none := export("-from", tomorrow); len(none) != 0 {
			t.Errorf("of tomorrow there is %q", none)
		}
		s.Stop()
		if stopped := strings.Join(export(), " "); stopped != running {
			t.Errorf("the log of a stopped server is %q, and of the running one %q", stopped, running)
		}
		for _, wrong := range [][]string{{"audit"}, {"audit", "import"}, {"audit", "export", "-from", "yesterday"}} {
			if code, _, stderr := callWith("", wrong...); code != 2 || stderr == "" {
				t.Errorf("%q: code %d, %s", wrong, code, stderr)
			}
		}
	})
}
