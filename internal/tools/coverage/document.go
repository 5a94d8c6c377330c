package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"conclave/internal/testserver/proof"
)

const callsTitle = "calls to other homeservers"

// shown is how many tests of one row the document names; the rest is a number.
const shown = 3

// shapeColumn is the heading of the column that says whether answers were compared with the OpenAPI documents, and
// compared what it says if they were.
const (
	shapeColumn = "shape"
	compared    = "checked"
)

// line is one row of the document.
type line struct {
	name, text string
	must       bool // its absence counts as missing
	tests      tests
	refused    bool // every test of it shows a refusal
	shaped     bool // an answer of it was compared with the specification's OpenAPI document
}

// table is a heading with its rows, and how many of them have a test.
type table struct {
	title  string
	lines  []line
	served bool // of operations whose answers have shapes
}

func (t table) covered() (with, of int) {
	for _, l := range t.lines {
		if len(l.tests) > 0 {
			with++
		}
	}
	return with, len(t.lines)
}

// shaped is how many rows have answers that were compared.
func (t table) shaped() (n int) {
	for _, l := range t.lines {
		if l.shaped {
			n++
		}
	}
	return n
}

// missing are the rows that must have a test and have none.
func (t table) missing() []line {
	return slices.DeleteFunc(slices.Clone(t.lines), func(l line) bool { return !l.must || len(l.tests) > 0 })
}

// coverage is the whole document: operations served by API, operations called, rules by area.
type coverage struct {
	server, client, called table
	chosen                 []route // not counted: their paths are the server's choice
	areas                  []table // rules, titled by area and section
}

// measure compares the lists with what a test run recorded.
func measure(l lists, r *record) coverage {
	var c coverage
	c.server, c.client = table{title: "server-server", served: true}, table{title: "client-server", served: true}
	answered, refused := r.count(l.served, proof.KindServed), r.count(l.served, proof.KindRefused)
	shaped := r.count(l.served, proof.KindShaped)
	for _, one := range l.served {
		if one.chosen {
			c.chosen = append(c.chosen, one)
			continue
		}
		row := line{name: one.op.method + " " + one.path, text: one.summary, must: true, tests: answered[one.op], shaped: len(shaped[one.op]) > 0}
		if len(row.tests) == 0 && len(refused[one.op]) > 0 {
			row.tests, row.refused = refused[one.op], true
		}
		if one.api == "ss" {
			c.server.lines = append(c.server.lines, row)
		} else {
			c.client.lines = append(c.client.lines, row)
		}
	}
	c.called.title = callsTitle
	made := r.count(l.called, proof.KindCalled)
	for _, one := range l.called {
		if one.api != "ss" && one.api != "cs" {
			continue // application services, push gateways and identity services
		}
		c.called.lines = append(c.called.lines, line{
			name: one.op.method + " " + one.path, text: one.summary + ": " + one.need, must: one.need == "must", tests: made[one.op],
		})
	}
	for _, one := range l.rules {
		title := one.area() + ": " + one.section
		if n := len(c.areas); n == 0 || !strings.HasPrefix(c.areas[n-1].title, one.area()+":") {
			c.areas = append(c.areas, table{title: title})
		}
		area := &c.areas[len(c.areas)-1]
		area.lines = append(area.lines, line{name: one.id, text: one.level + " " + one.text, must: one.level == "M", tests: r.rules[one.id]})
	}
	return c
}

// summary is what make coverage prints: the sums, and what is missing.
func (c coverage) summary(out io.Writer) {
	for _, t := range []table{c.server, c.client, c.called} {
		with, of := t.covered()
		fmt.Fprintf(out, "%s: %d of %d\n", t.title, with, of)
		if t.served {
			fmt.Fprintf(out, "  answers compared with the OpenAPI documents: %d\n", t.shaped())
		}
		for _, l := range t.missing() {
			fmt.Fprintf(out, "  missing  %s (%s)\n", l.name, l.text)
		}
	}
	for _, r := range c.chosen {
		fmt.Fprintf(out, "  not counted, its path is the server's choice: %s %s (%s)\n", r.op.method, r.path, r.summary)
	}
	for _, t := range c.areas {
		with, of := t.covered()
		fmt.Fprintf(out, "rules %s: %d of %d", t.title, with, of)
		if missing := t.missing(); len(missing) > 0 {
			names := make([]string, len(missing))
			for i, l := range missing {
				names[i] = l.name
			}
			fmt.Fprintf(out, "; mandatory and without a test: %s", strings.Join(names, " "))
		}
		fmt.Fprintln(out)
	}
}

// document writes docs/spec/coverage.md.
func (c coverage) document(out io.Writer) {
	fmt.Fprint(out, "# What of Matrix v1.19 the tests exercise\n\n"+
		"Made by `make coverage` from the record of a test run: a row names tests that ran, passed and did this. `-` is without a test.\n"+
		"Operations count when a server under test answered one with success, or when a test shows that it is refused on purpose.\n"+
		"Answers that the tests' clients got are compared with the specification's OpenAPI documents (`internal/testserver/shapes`):\n"+
		"`shape` says for which operations an answer with success was, and agrees.\n\n")
	fmt.Fprint(out, "| | with a test | of | shape |\n|---|---|---|---|\n")
	all := append([]table{c.server, c.client, c.called}, c.areas...)
	for _, t := range all {
		with, of := t.covered()
		shaped := ""
		if t.served {
			shaped = fmt.Sprint(t.shaped())
		}
		fmt.Fprintf(out, "| %s | %d | %d | %s |\n", t.title, with, of, shaped)
	}
	for _, t := range all {
		t.document(out)
	}
	if len(c.chosen) > 0 {
		fmt.Fprint(out, "\nNot counted, because the server chooses the path:")
		for i, r := range c.chosen {
			if i > 0 {
				fmt.Fprint(out, ",")
			}
			fmt.Fprintf(out, " `%s %s`", r.op.method, r.path)
		}
		fmt.Fprintln(out, ".")
	}
}

// document writes the rows. Those of operations have a column more, before the tests.
func (t table) document(out io.Writer) {
	head, rule := "", ""
	if t.served {
		head, rule = " "+shapeColumn+" |", "---|"
	}
	fmt.Fprintf(out, "\n## %s\n\n| | |%s tests |\n|---|---|%s---|\n", t.title, head, rule)
	for _, l := range t.lines {
		shape := ""
		if t.served {
			shape = " - |"
			if l.shaped {
				shape = " " + compared + " |"
			}
		}
		fmt.Fprintf(out, "| %s | %s |%s %s |\n", cell(l.name), cell(l.text), shape, cell(l.names()))
	}
}

// names are the tests of a row: the first few, and how many more there are.
func (l line) names() string {
	if len(l.tests) == 0 {
		return "-"
	}
	names := slices.Sorted(maps.Keys(l.tests))
	more := ""
	if len(names) > shown {
		more = fmt.Sprintf(" and %d more", len(names)-shown)
		names = names[:shown]
	}
	text := strings.Join(names, ", ") + more
	if l.refused {
		text = "refused on purpose: " + text
	}
	return text
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
