package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// BinaryEnv is the environment variable with an executable that is ready, which is then not built by every package.
// It does not count for builds with tags.
const BinaryEnv = "CONCLAVE_TEST_BINARY"

// PlainBinaryEnv is the environment variable with an executable as it is shipped, for the servers on PostgreSQL of a run
// with the race detector. Those on SQLite are watched: the two differ only below the store, which has its own tests on both.
const PlainBinaryEnv = "CONCLAVE_TEST_PLAIN_BINARY"

var (
	buildMu sync.Mutex
	built   = map[string]string{} // by tags
)

// Binary builds the executable, once for each set of build tags in a process, with the race detector if the test has
// it.
func Binary(t testing.TB, tags string) string {
	t.Helper()
	if ready := os.Getenv(BinaryEnv); ready != "" && tags == "" {
		return ready
	}
	buildMu.Lock()
	defer buildMu.Unlock()
	if path, ok := built[tags]; ok {
		return path
	}
	dir, err := os.MkdirTemp("", "conclave-testserver-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "conclave")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	if tags != "" {
		args = append(args, "-tags", tags)
	}
	cmd := exec.Command("go", append(args, "conclave/cmd/conclave")...) //nolint:gosec // fixed but for the tags
	cmd.Dir = moduleRoot(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the executable: %v\n%s", err, out)
	}
	built[tags] = path
	return path
}

// binaryOf is the executable for a server with some options.
func binaryOf(t testing.TB, o Options) string {
	t.Helper()
	if plain := os.Getenv(PlainBinaryEnv); plain != "" && o.Tags == "" && o.Engine == "postgres" {
		return plain
	}
	return Binary(t, o.Tags)
}

// Cleanup removes what Binary built; TestMain of a package that starts servers calls it at the end.
func Cleanup() {
	buildMu.Lock()
	defer buildMu.Unlock()
	for _, path := range built {
		_ = os.RemoveAll(filepath.Dir(path)) // a temporary folder: the system removes it if this fails
	}
	clear(built)
}

// Main runs a package's tests and removes what they built: func TestMain(m *testing.M) { testserver.Main(m) }.
func Main(m *testing.M) {
	code := m.Run()
	Cleanup()
	os.Exit(code)
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}
