package shape

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Lines of a function: nearly all (nine of ten) at most this, and none more than that.
const (
	usualFunction   = 45
	longestFunction = 100
)

// TestFunctionsAreShort measures every function of code that ships.
func TestFunctionsAreShort(t *testing.T) {
	var lengths []int
	eachFile(t, func(fset *token.FileSet, file *ast.File) {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			length := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1
			lengths = append(lengths, length)
			if length > longestFunction {
				t.Errorf("%s: %s has %d lines", fset.Position(f.Pos()), f.Name.Name, length)
			}
		}
	})
	if len(lengths) < 100 {
		t.Fatalf("only %d functions found", len(lengths))
	}
	slices.Sort(lengths)
	if p90 := lengths[len(lengths)*9/10]; p90 > usualFunction {
		t.Errorf("one function in ten has more than %d lines, where %d are meant to be the limit for nearly all", p90, usualFunction)
	}
}

// TestEveryPackageBeginsWithAComment wants a comment from which a newcomer can start.
func TestEveryPackageBeginsWithAComment(t *testing.T) {
	documented := map[string]bool{}
	eachFile(t, func(fset *token.FileSet, file *ast.File) {
		dir := filepath.Dir(fset.Position(file.Pos()).Filename)
		documented[dir] = documented[dir] || file.Doc != nil
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// eachFile parses the Go files of the module, tests and examples for tests left out.
func eachFile(t *testing.T, visit func(*token.FileSet, *ast.File)) {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch name := filepath.Base(path); {
		case err != nil:
			return err
		case entry.IsDir() && path != root && (name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".")):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		visit(fset, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
