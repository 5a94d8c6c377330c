package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Elapsed    float64
	Output     string
}

// maxOutput is how much output of one test is kept: the end of it, where the failure is told.
const maxOutput = 64 << 10

// report gathers the events of one run.
type report struct {
	out     io.Writer
	output  map[string]string // by package and test, of what has not ended
	passed  int
	failed  int
	skipped []string
	broken  []string // packages that failed without a failed test: build errors, a panic, a timeout
	failedP map[string]bool
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string]string{}, failedP: map[string]bool{}}
}

// read consumes events until the stream ends. A line that is no event is printed as it came.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<16), 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(r.out, lines.Text())
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

func (r *report) take(e event) {
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "output":
		kept := r.output[key] + e.Output
		if len(kept) > maxOutput {
			kept = "…" + kept[len(kept)-maxOutput:]
		}
		r.output[key] = kept
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, r.output[key])
		} else {
			r.endTest(e, r.output[key])
		}
		delete(r.output, key)
	}
}

func (r *report) endTest(e event, output string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.failedP[e.Package] = true
		fmt.Fprintf(r.out, "FAIL %s %s (%.1f s)\n%s", e.Package, e.Test, e.Elapsed, output)
	case "skip":
		r.skipped = append(r.skipped, e.Package+" "+e.Test)
		fmt.Fprintf(r.out, "SKIPPED %s %s\n%s", e.Package, e.Test, output)
	}
}

func (r *report) endPackage(e event, output string) {
	switch {
	case e.Action == "pass":
		fmt.Fprintf(r.out, "ok   %-50s %6.1f s\n", e.Package, e.Elapsed)
	case e.Action == "fail":
		fmt.Fprintf(r.out, "FAIL %-50s %6.1f s\n", e.Package, e.Elapsed)
		if !r.failedP[e.Package] {
			r.broken = append(r.broken, e.Package)
			fmt.Fprint(r.out, output)
			r.printUnfinished(e.Package)
		}
	}
}

// printUnfinished shows the output of tests that had no end: the one that panicked or hung is among them.
func (r *report) printUnfinished(pkg string) {
	for key, output := range r.output {
		if p, test, _ := strings.Cut(key, "\x00"); p == pkg && test != "" {
			fmt.Fprintf(r.out, "unfinished: %s\n%s", test, output)
			delete(r.output, key)
		}
	}
}

// verdict turns what was read into the one error of the run.
func (r *report) verdict(readErr, waitErr error) error {
	switch {
	case readErr != nil:
		return fmt.Errorf("reading go test: %w", readErr)
	case r.failed > 0:
		return fmt.Errorf("%d tests failed", r.failed)
	case len(r.broken) > 0:
		return fmt.Errorf("no result from %s", strings.Join(r.broken, ", "))
	case waitErr != nil:
		return fmt.Errorf("go test: %w", waitErr)
	case len(r.skipped) > 0:
		return fmt.Errorf("%d tests were skipped; a test either runs or fails: %s", len(r.skipped), strings.Join(r.skipped, ", "))
	case r.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}
