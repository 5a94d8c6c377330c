// Package proof lets a test say what it shows, so that docs/spec/coverage.md names tests that really ran and passed and
// not tests that are called as if they did. Of records rows of the lists in docs/spec; the test's clients and the lying
// homeserver record by themselves which operations a server under test answered and called. A test that fails
// leaves no record.
//
// The records of all packages go to the file that CONCLAVE_TEST_RECORD names, a line for each: kind, what, test, with tabs
// between. Without that variable nothing is written. `make coverage` reads them.
package proof

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The kinds of records.
const (
	KindRow     = "row"     // a row of docs/spec/behaviours.md or threats.md
	KindServed  = "served"  // a request that a server under test answered with success
	KindOp      = "op"      // an operation, by API and operationId, that a server under test counted as answered with success
	KindRefused = "refused" // an operation that a server under test refuses on purpose
	KindCalled  = "called"  // an operation of another server that a server under test called
	KindShaped  = "shaped"  // an operation whose answer has the shape that the specification gives it
	KindDeviant = "deviant" // a place where an answer has another shape on purpose
)

// Of says that the test shows the named rows of docs/spec/behaviours.md ("FD-03") or docs/spec/threats.md ("F01"). A row
// may be shown by several tests, each for its part.
func Of(t testing.TB, rows ...string) {
	t.Helper()
	for _, row := range rows {
		note(t, KindRow, row)
	}
}

// Refused says that the test shows how an operation of the specification is refused on purpose. path is written as in
// docs/spec/endpoints.tsv.
func Refused(t testing.TB, method, path string) { note(t, KindRefused, method+" "+path) }

// Served records that a server under test answered a request; only a success (status below 400) counts.
func Served(t testing.TB, method, path string, status int) {
	if status < 400 {
		note(t, KindServed, method+" "+bare(path))
	}
}

// Answered records that a server under test counted an operation, by the API of its metrics ("client", "federation") and
// its operationId, as answered with success: whoever asked, also another server under test.
func Answered(t testing.TB, api, operationID string) { note(t, KindOp, api+" "+operationID) }

// Wanted says whether records are kept at all.
func Wanted() bool { return recordFile() != "" }

func recordFile() string { return os.Getenv("CONCLAVE_TEST_RECORD") }

// Called records that a server under test made a request to a peer of the test.
func Called(t testing.TB, method, path string) { note(t, KindCalled, method+" "+bare(path)) }

// Shaped records that an answer with success of an operation was compared with the specification's OpenAPI document, and
// agrees. path is that document's, or was requested.
func Shaped(t testing.TB, method, path string) { note(t, KindShaped, method+" "+path) }

// Deviated records that an answer of an operation has another shape at a place, as the list of package shapes says.
func Deviated(t testing.TB, operation, at string) { note(t, KindDeviant, operation+" "+at) }

// bare is a path without its query.
func bare(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return path
}

var (
	mu    sync.Mutex
	known = map[string]bool{} // lines of this process
)

// note keeps a record until the test has ended well.
func note(t testing.TB, kind, what string) {
	t.Helper()
	file := recordFile()
	if file == "" {
		return
	}
	line := strings.Join([]string{kind, what, packageName() + "." + t.Name()}, "\t") + "\n"
	mu.Lock()
	defer mu.Unlock()
	if known[line] {
		return
	}
	known[line] = true
	t.Cleanup(func() {
		if !t.Failed() {
			write(t, file, line)
		}
	})
}

// write appends one line; the operating system keeps short appends of several processes whole.
func write(t testing.TB, file, line string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // a record of tests, not a secret
	if err != nil {
		t.Errorf("keeping the record of what the test shows: %v", err)
		return
	}
	if _, err := f.WriteString(line); err != nil {
		t.Errorf("keeping the record of what the test shows: %v", err)
	}
	_ = f.Close() // the line is written
}

// packageName is the folder of the tests below the module, such as "federation": go test runs them there.
var packageName = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	if err != nil {
		return "?"
	}
	for root := dir; root != filepath.Dir(root); root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			if rel, err := filepath.Rel(root, dir); err == nil {
				return filepath.ToSlash(rel)
			}
		}
	}
	return "?"
})
