//go:build failpoints

package work

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// failpoint is what CONCLAVE_FAILPOINT asks for: die at the n-th time the named place is reached.
type failpoint struct {
	name string
	left atomic.Int64
}

// chosen is read once, when the process starts; it never changes but for its counter.
var chosen = parseFailpoint(os.Getenv("CONCLAVE_FAILPOINT"))

// parseFailpoint reads name[:n]; a malformed one ends the process, so that no test passes because nothing was killed.
func parseFailpoint(text string) *failpoint {
	name, count, counted := strings.Cut(text, ":")
	p := &failpoint{name: name}
	p.left.Store(1)
	if counted {
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "CONCLAVE_FAILPOINT=%q must be name or name:n\n", text)
			os.Exit(2)
		}
		p.left.Store(n)
	}
	return p
}

// Failpoint kills the process, as by kill -9, if CONCLAVE_FAILPOINT names this place and it is reached for the n-th time.
func Failpoint(name string) {
	if name != chosen.name || chosen.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing more may happen before the signal arrives
}
