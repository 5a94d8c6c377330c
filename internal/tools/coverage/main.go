// Command coverage says how much of the Matrix specification the tests exercise: the lists in docs/spec against the
// record that a test run left (package proof). Nobody claims coverage; it is counted. Run it by `make coverage`, which
// makes the record where there is none.
//
//	coverage -record FILE          write docs/spec/coverage.md and print the sums and what is missing
//	coverage -record FILE -check   fail if docs/spec/coverage.md says something that the record does not show
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"conclave/clientapi"
	"conclave/federation"
	"conclave/internal/testserver/shapes"
)

const listsDir = "docs/spec"

func main() {
	recordFile := flag.String("record", "", "the record of a test run")
	check := flag.Bool("check", false, "compare with the document instead of writing it")
	flag.Parse()
	if err := run(listsDir, *recordFile, *check, shapes.Deviations); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func run(dir, recordFile string, check bool, deviations []shapes.Deviation) error {
	l, err := readLists(dir)
	if err != nil {
		return err
	}
	r, err := readFile(recordFile, readRecord)
	if err != nil {
		return err
	}
	if unknown := r.unknown(l.rules); len(unknown) > 0 {
		return fmt.Errorf("tests claim to show rules that no list in %s has: %s", dir, strings.Join(unknown, " "))
	}
	r.addOperations(routeTables())
	c := measure(l, r)
	var text bytes.Buffer
	c.document(&text)
	file := filepath.Join(dir, "coverage.md")
	if check {
		old, err := os.ReadFile(file) //nolint:gosec // the document of this repository
		if err != nil {
			return err
		}
		if unneeded := r.unneeded(deviations); len(unneeded) > 0 {
			return fmt.Errorf("package shapes lists deviations that no test of this run needed: %s", strings.Join(unneeded, ", "))
		}
		return compare(string(old), text.String())
	}
	c.summary(os.Stdout)
	return os.WriteFile(file, text.Bytes(), 0o644) //nolint:gosec // a document of the repository
}

// routeTables are the operations of both APIs, by the names that the metrics have for them.
func routeTables() map[string]map[string][]operation {
	client, server := map[string][]operation{}, map[string][]operation{}
	for _, r := range clientapi.Routes() {
		for _, path := range append([]string{r.Path}, r.Aliases...) {
			client[r.OperationID] = append(client[r.OperationID], newOperation(r.Method, path))
		}
	}
	for _, r := range federation.Routes() {
		server[r.OperationID] = append(server[r.OperationID], newOperation(r.Method, r.Path))
	}
	return map[string]map[string][]operation{"client": client, "federation": server}
}

// compare fails if the document names a row as exercised that this run did not exercise. New tests make the document
// too modest, which is no fault of theirs.
func compare(old, now string) error {
	covered := exercised(now)
	var gone []string
	for name, tests := range exercised(old) {
		if covered[name] == "" {
			gone = append(gone, name+", by "+tests)
		}
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		return errors.New("coverage.md says this, and nothing of this run shows it; mend the tests, or run make coverage:\n  " + strings.Join(gone, "\n  "))
	}
	return nil
}

// exercised are the rows of a document that have tests, and those whose answers were compared: by section and name, the
// tests. Calls to others are left out: some happen only when things take long.
func exercised(document string) map[string]string {
	out := map[string]string{}
	section := ""
	for row := range strings.Lines(document) {
		if heading, ok := strings.CutPrefix(row, "## "); ok {
			section = strings.TrimSpace(heading)
		}
		name, shape, tests, ok := parseRow(row)
		if !ok || section == "" || section == callsTitle {
			continue
		}
		if tests != "-" {
			out[section+": "+name] = tests
		}
		if shape == compared {
			out[section+": the shape of "+name] = tests
		}
	}
	return out
}

// parseRow reads a row of the document: what, whether its answers were compared (only of operations), and by which tests.
func parseRow(row string) (name, shape, tests string, ok bool) {
	cells := strings.Split(strings.TrimSpace(row), " | ")
	if len(cells) < 3 || !strings.HasPrefix(cells[0], "| ") || !strings.HasSuffix(cells[len(cells)-1], " |") {
		return "", "", "", false
	}
	name = strings.TrimPrefix(cells[0], "| ")
	if name == "" {
		return "", "", "", false
	}
	if len(cells) > 3 {
		shape = cells[2]
	}
	return name, shape, strings.TrimSuffix(cells[len(cells)-1], " |"), true
}
