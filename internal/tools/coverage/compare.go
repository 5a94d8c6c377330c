package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// operation is a method and a path whose parameters are written {}, so that the specification's {roomId} and
// the router's :roomId compare equal.
type operation struct{ method, path string }

func newOperation(method, path string) operation {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "{") || strings.HasPrefix(part, ":") || part == "*" {
			parts[i] = "{}"
		}
	}
	return operation{method, strings.Join(parts, "/")}
}

// row is one operation that the specification lists.
type row struct {
	op      operation
	api     string // "cs" or "ss"
	path    string // as written in the list
	summary string
	chosen  bool // its path is the server's to choose, so the list cannot tell whether it is served
}

// readList reads endpoints.tsv. Rows that share method and path count once.
func readList(in io.Reader) ([]row, error) {
	lines := bufio.NewScanner(in)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "api\tmethod\tpath\tsummary\t") {
		return nil, errors.New("the list of operations does not begin with the expected header")
	}
	var rows []row
	seen := map[operation]bool{}
	for number := 2; lines.Scan(); number++ {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) < 4 || fields[0] != "cs" && fields[0] != "ss" {
			return nil, fmt.Errorf("line %d of the list of operations has no api, method, path and summary", number)
		}
		r := row{op: newOperation(fields[1], fields[2]), api: fields[0], path: fields[2], summary: fields[3]}
		if r.chosen = strings.HasPrefix(r.path, "{"); r.chosen {
			r.op.path = r.path // parameters do not make these alike
		}
		if !seen[r.op] {
			seen[r.op] = true
			rows = append(rows, r)
		}
	}
	return rows, lines.Err()
}

// tally is the coverage of one API.
type tally struct {
	served, listed int
	missing        []row
	chosen         []row // not counted
}

// compare counts which operations of one API are among the served ones.
func compare(rows []row, api string, served []operation) tally {
	var t tally
	for _, r := range rows {
		switch {
		case r.api != api:
		case r.chosen:
			t.chosen = append(t.chosen, r)
		case slices.Contains(served, r.op):
			t.served++
			t.listed++
		default:
			t.listed++
			t.missing = append(t.missing, r)
		}
	}
	return t
}

// print writes one tally: the sum on the first line, then what is missing.
func (t tally) print(out io.Writer, name string) {
	fmt.Fprintf(out, "%s: %d of %d\n", name, t.served, t.listed)
	for _, r := range t.missing {
		fmt.Fprintf(out, "  missing  %-6s %s (%s)\n", r.op.method, r.path, r.summary)
	}
	for _, r := range t.chosen {
		fmt.Fprintf(out, "  not counted, its path is the server's choice: %s %s (%s)\n", r.op.method, r.path, r.summary)
	}
}
