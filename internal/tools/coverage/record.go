package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/shapes"
)

// record is what a test run showed: for each thing the tests that did.
type record struct {
	rules    map[string]tests    // by ID of the rule
	requests map[string][]served // by kind of proof
}

// served is one request that a test made, or a server under test made to the test.
type served struct{ method, path, test string }

// tests are names such as federation.TestJoin/lying, without the engine.
type tests map[string]bool

// readRecord reads the file that package proof writes.
func readRecord(in io.Reader) (*record, error) {
	r := &record{rules: map[string]tests{}, requests: map[string][]served{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	seen := map[string]map[served]bool{} // by kind
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("this line of the record has not three fields: %q", lines.Text())
		}
		kind, what, test := fields[0], fields[1], withoutEngine(fields[2])
		if kind == proof.KindRow {
			if r.rules[what] == nil {
				r.rules[what] = tests{}
			}
			r.rules[what][test] = true
			continue
		}
		method, path, ok := strings.Cut(what, " ")
		if !ok {
			return nil, fmt.Errorf("this line of the record names no operation: %q", lines.Text())
		}
		if seen[kind] == nil {
			seen[kind] = map[served]bool{}
		}
		if s := (served{method, path, test}); !seen[kind][s] {
			seen[kind][s] = true
			r.requests[kind] = append(r.requests[kind], s)
		}
	}
	return r, lines.Err()
}

// withoutEngine leaves the names of the databases out of a test's name: nearly every test runs on both.
func withoutEngine(test string) string {
	parts := strings.Split(test, "/")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "sqlite" || p == "postgres" }), "/")
}

// addOperations turns what servers counted by operationId into requests, by the route tables.
func (r *record) addOperations(tables map[string]map[string][]operation) {
	for _, s := range r.requests[proof.KindOp] {
		for _, op := range tables[s.method][s.path] { // API and operationId, in the places of method and path
			r.requests[proof.KindServed] = append(r.requests[proof.KindServed], served{op.method, op.path, s.test})
		}
	}
}

// count finds for each route the tests that exercised it, by the kinds of proof given. Routes of the list without a test
// get an empty set.
func (r *record) count(routes []route, kinds ...string) map[operation]tests {
	out := map[operation]tests{}
	byMethod := map[string][]operation{}
	for _, one := range routes {
		if out[one.op] == nil {
			out[one.op] = tests{}
			byMethod[one.op.method] = append(byMethod[one.op.method], one.op)
		}
	}
	for _, ops := range byMethod {
		slices.SortStableFunc(ops, func(a, b operation) int { return a.parameters() - b.parameters() })
	}
	for _, kind := range kinds {
		for _, s := range r.requests[kind] {
			for _, op := range byMethod[s.method] {
				if op.matches(s.path) {
					out[op][s.test] = true
					break
				}
			}
		}
	}
	return out
}

// unneeded are the deviations from the specification's OpenAPI documents that no test needed.
func (r *record) unneeded(deviations []shapes.Deviation) []string {
	var out []string
	for _, d := range deviations {
		if !slices.ContainsFunc(r.requests[proof.KindDeviant], func(s served) bool { return s.method == d.Operation && s.path == d.At }) {
			out = append(out, d.Operation+" "+d.At)
		}
	}
	return out
}

// unknown are rules that tests claim to show and no list names.
func (r *record) unknown(rules []rule) []string {
	var out []string
	for id := range r.rules {
		if !slices.ContainsFunc(rules, func(rule rule) bool { return rule.id == id }) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
