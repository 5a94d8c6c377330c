package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// operation is a method and a path whose parameters are written {}, so that the specification's {roomId} and
// the router's :roomId compare equal.
type operation struct{ method, path string }

func newOperation(method, path string) operation {
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "{") || strings.HasPrefix(part, ":") || part == "*" {
			parts[i] = "{}"
		}
	}
	return operation{method, strings.Join(parts, "/")}
}

// matches tells whether a request's path is one of the operation.
func (o operation) matches(path string) bool {
	want, got := strings.Split(o.path, "/"), strings.Split(strings.TrimSuffix(path, "/"), "/")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if want[i] != got[i] && (want[i] != "{}" || got[i] == "") {
			return false
		}
	}
	return true
}

// parameters is how many segments of the path are open: of several operations that match a path, the one with the fewest
// is meant.
func (o operation) parameters() int { return strings.Count(o.path, "{}") }

// route is one operation that the specification lists, to serve or to call.
type route struct {
	op      operation
	api     string // "cs", "ss" and, of what is called, "as", "push" and "is"
	path    string // as written in the list
	summary string
	need    string // of what is called: must, should, optional
	chosen  bool   // its path is the server's to choose, so the list cannot tell whether it is served
}

// readRoutes reads endpoints.tsv or outbound.tsv. Rows that share API, method and path count once.
func readRoutes(in io.Reader) ([]route, error) {
	lines := bufio.NewScanner(in)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "api\tmethod\tpath\tsummary\t") {
		return nil, errors.New("the list of operations does not begin with the expected header")
	}
	header := strings.Split(lines.Text(), "\t")
	var routes []route
	seen := map[string]bool{}
	for number := 2; lines.Scan(); number++ {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) < len(header) || fields[0] == "" || !strings.ContainsAny(fields[2], "/{") {
			return nil, fmt.Errorf("line %d of the list of operations has not all of %s", number, lines.Text())
		}
		r := route{op: newOperation(fields[1], fields[2]), api: fields[0], path: fields[2], summary: fields[3]}
		for i, name := range header {
			if name == "need" {
				r.need = fields[i]
			}
		}
		if r.chosen = strings.HasPrefix(r.path, "{"); r.chosen {
			r.op.path = r.path // parameters do not make these alike
		}
		if key := fmt.Sprint(r.api, r.op); !seen[key] {
			seen[key] = true
			routes = append(routes, r)
		}
	}
	return routes, lines.Err()
}

// rule is a row of behaviours.md or threats.md.
type rule struct {
	id, level, text string
	section         string // the heading it stands under
}

// area is what a rule's ID begins with: the unit in which coverage of rules is counted.
func (r rule) area() string { return strings.TrimRight(strings.TrimRight(r.id, "0123456789"), "-") }

var ruleLine = regexp.MustCompile(`^- \[ \] ([A-Z][A-Z0-9]?-?\d\d) ([MSO]) (.+)$`)

// readRules reads a list of rules.
func readRules(in io.Reader) ([]rule, error) {
	var rules []rule
	seen := map[string]bool{}
	section := ""
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if heading, ok := strings.CutPrefix(line, "#"); ok {
			section = strings.TrimLeft(heading, "# ")
			continue
		}
		if !strings.HasPrefix(line, "- [") {
			continue
		}
		m := ruleLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("this row has not the form of a rule: %s", line)
		}
		if seen[m[1]] {
			return nil, fmt.Errorf("rule %s is listed twice", m[1])
		}
		seen[m[1]] = true
		rules = append(rules, rule{id: m[1], level: m[2], text: m[3], section: section})
	}
	return rules, lines.Err()
}

// lists is all that can be covered.
type lists struct {
	served, called []route
	rules          []rule
}

// readLists reads the lists of a folder.
func readLists(dir string) (lists, error) {
	var l lists
	var err error
	for name, into := range map[string]*[]route{"endpoints.tsv": &l.served, "outbound.tsv": &l.called} {
		if *into, err = readFile(filepath.Join(dir, name), readRoutes); err != nil {
			return lists{}, err
		}
	}
	for _, name := range []string{"behaviours.md", "threats.md"} {
		rules, err := readFile(filepath.Join(dir, name), readRules)
		if err != nil {
			return lists{}, err
		}
		l.rules = append(l.rules, rules...)
	}
	return l, nil
}

func readFile[T any](path string, read func(io.Reader) (T, error)) (T, error) {
	var none T
	file, err := os.Open(path) //nolint:gosec // a list of the repository or a file that the caller names
	if err != nil {
		return none, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	out, err := read(file)
	if err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}
