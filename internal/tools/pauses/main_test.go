package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPauses lets a script say what time it is, again and again: it stands still now and then, and its end is told.
func TestPauses(t *testing.T) {
	longest := func() (gap time.Duration) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "times")
		script := `for i in $(seq 12); do date +%s%N; sleep 0.05; done > ` + file + `; exit 7`
		code, err := run([]string{"sh", "-c", script}, time.Second, "^sh -c")
		if err != nil || code != 7 {
			t.Fatalf("the script ended with %d, %v", code, err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before := int64(0)
		for line := range strings.Lines(string(text)) {
			at, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if before != 0 {
				gap = max(gap, time.Duration(at-before))
			}
			before = at
		}
		return gap
	}
	var gap time.Duration
	for range 10 { // by chance a run may meet short ones only
		if gap = max(gap, longest()); gap > 400*time.Millisecond {
			break
		}
	}
	if gap <= 400*time.Millisecond {
		t.Errorf("the script never stood still for longer than %s", gap)
	}
	if found := below(os.Getpid(), regexp.MustCompile(`pauses\.test`)); !slices.Equal(found, []int{os.Getpid()}) {
		t.Errorf("of this process there is %v", found)
	}
	if found := below(os.Getpid(), regexp.MustCompile(`no such process`)); len(found) != 0 {
		t.Errorf("what was not chosen is found: %v", found)
	}
	for _, bad := range []struct {
		command []string
		only    string
	}{{nil, "."}, {[]string{"sh"}, "("}, {[]string{"/no/such/program"}, "."}} {
		if _, err := run(bad.command, time.Second, bad.only); err == nil {
			t.Errorf("%v is run", bad)
		}
	}
}
