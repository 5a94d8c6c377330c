// Command gotest runs `go test -json` and prints what a person wants to read of it: the output of what
// failed, one line per package with its time, and at the end `N passed, N failed`. It fails when a test
// failed, when a package did not compile, when a test was skipped (a skipped test proves nothing, and
// nobody notices) and when no test ran at all.
//
//	gotest [-counts FILE] [arguments and packages of go test]
//
// With -counts it appends "passed failed" to a file, for the caller's own sum.
package main

import (
	"fmt"
	"os"
	"os/exec"
)

func main() {
	args, counts := os.Args[1:], ""
	if len(args) >= 2 && args[0] == "-counts" {
		args, counts = args[2:], args[1]
	}
	if err := run(args, counts); err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// run starts go test and reads its events to the end.
func run(args []string, counts string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting go test: %w", err)
	}
	r := newReport(os.Stdout)
	readErr := r.read(out)
	waitErr := cmd.Wait()
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if counts != "" {
		if err := appendCounts(counts, r.passed, r.failed); err != nil {
			return err
		}
	}
	return r.verdict(readErr, waitErr)
}

// appendCounts adds one line to the file in which the steps of a run add up.
func appendCounts(path string, passed, failed int) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("writing the counts: %w", err)
	}
	if _, err := fmt.Fprintln(f, passed, failed); err != nil {
		_ = f.Close()
		return fmt.Errorf("writing the counts: %w", err)
	}
	return f.Close()
}
