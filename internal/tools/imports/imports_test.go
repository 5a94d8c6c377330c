package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "conclave"

// listed is the part of `go list -json` that the test reads.
type listed struct {
	ImportPath string
	Imports    []string
}

// TestDirection reads every package of the module and compares what it imports, in code that ships, with
// the table. Imports of tests are free: a test may start a whole server.
func TestDirection(t *testing.T) {
	packages := list(t)
	if len(packages) < 3 {
		t.Fatalf("go list found %d packages, so the test proves nothing", len(packages))
	}
	for _, p := range packages {
		for _, problem := range check(p) {
			t.Error(problem)
		}
	}
}

// TestOnlyStatusCodes reads the sources of the specification's packages: of net/http they may use the names
// of status codes.
func TestOnlyStatusCodes(t *testing.T) {
	files, found := token.NewFileSet(), 0
	err := filepath.WalkDir("../../matrix", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		parsed, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found++
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && isName(s.X, "http") && !strings.HasPrefix(s.Sel.Name, "Status") {
				t.Errorf("%s uses http.%s: the specification is pure functions", files.Position(s.Pos()), s.Sel.Name)
			}
			return true
		})
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("read %d files: %v", found, err)
	}
}

func isName(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// TestFinds shows that the check refuses what it is there for.
func TestFinds(t *testing.T) {
	for _, c := range []struct {
		pkg, imported, want string
	}{
		{"internal/matrix", "net", "the specification"},
		{"internal/matrix", "conclave/internal/store", "the specification"},
		{"internal/matrix/statetree", "time", "the specification"},
		{"internal/store", "conclave/rooms", "the only SQL"},
		{"rooms", "conclave/keys", "a domain"},
		{"rooms", "github.com/labstack/echo/v4", "kept to"},
		{"rooms", "github.com/jackc/pgx/v5/pgxpool", "kept to"},
		{"keys/sealed", "conclave/internal/store", "a library"},
		{"clientapi", "conclave/federation", "never knows"},
		{"federation", "conclave/clientapi", "never knows"},
		{"web", "conclave/internal/config", "embedded client"},
		{"clientapi", "conclave/internal/testserver/dbtest", "may not be imported"},
		{"internal/testserver", "conclave/cmd/conclave", "may not be imported"},
		{"internal/newcomer", "fmt", "no rule"},
	} {
		got := strings.Join(check(listed{ImportPath: module + "/" + c.pkg, Imports: []string{c.imported}}), "\n")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s importing %s: %q, want a refusal that says %q", c.pkg, c.imported, got, c.want)
		}
	}
	for _, c := range [][2]string{
		{"internal/matrix", "golang.org/x/crypto/ed25519"}, {"internal/matrix/statetree", "context"},
		{"internal/store", "github.com/jackc/pgx/v5/pgxpool"}, {"rooms", "conclave/internal/matrix/authrules"},
		{"clientapi/sync", "conclave/rooms"}, {"cmd/conclave", "conclave/federation"}, {"web", "embed"},
	} {
		if got := check(listed{ImportPath: module + "/" + c[0], Imports: []string{c[1]}}); len(got) > 0 {
			t.Errorf("%s importing %s: %q, want it allowed", c[0], c[1], got)
		}
	}
}

// check returns one sentence per import that the table does not allow.
func check(p listed) []string {
	path := strings.TrimPrefix(p.ImportPath, module+"/")
	i := slices.IndexFunc(rules, func(r rule) bool { return matches(r.path, path) })
	if i < 0 {
		return []string{fmt.Sprintf("%s has no rule: add it to the table in internal/tools/imports/rules_test.go and to docs/architecture.md", path)}
	}
	var problems []string
	for _, imported := range p.Imports {
		if why := refuse(rules[i], path, imported); why != "" {
			problems = append(problems, fmt.Sprintf("%s imports %s: %s", path, imported, why))
		}
	}
	return problems
}

// refuse says why a package with this rule may not import another, or "".
func refuse(r rule, path, imported string) string {
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		return refuseOwn(r, path, own)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		if slices.Contains(r.std, imported) {
			return r.reason
		}
		return ""
	}
	for mod, holders := range kept {
		if within(mod, imported) && !anyMatch(holders, path) {
			return "kept to " + strings.Join(holders, ", ")
		}
	}
	if slices.Contains(r.third, "*") || slices.ContainsFunc(r.third, func(mod string) bool { return within(mod, imported) }) {
		return ""
	}
	return r.reason
}

func refuseOwn(r rule, path, own string) string {
	for pattern, friends := range private {
		if matches(pattern, own) && !matches(pattern, path) && !anyMatch(friends, path) {
			return "it may not be imported by code that ships"
		}
	}
	if slices.Contains(r.own, "*") || anyMatch(r.own, own) {
		return ""
	}
	return r.reason
}

// matches reports whether a path is the pattern, or below it where the pattern ends in "/...".
func matches(pattern, path string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(base, path)
	}
	return pattern == path
}

func anyMatch(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func within(base, path string) bool { return path == base || strings.HasPrefix(path, base+"/") }

// list runs go list over the module. Packages that do not compile are listed all the same.
func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		packages = append(packages, p)
	}
}
