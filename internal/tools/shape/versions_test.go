package shape

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// The one file that may compare room versions (architecture, law 15).
const versionTable = "internal/matrix/version.go"

// The homeserver double writes the rules of versions down a second time, on purpose without our table.
const secondOpinion = "/internal/testserver/peer/"

// TestOnlyTheTableComparesRoomVersions type-checks the module and looks for comparisons of a room version with a constant, orderings, and switches
// over one. Whether two versions are the same, or one is not set, may be asked anywhere.
func TestOnlyTheTableComparesRoomVersions(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo,
		Dir:  "../../..",
	}, "conclave/...")
	if err != nil {
		t.Fatal(err)
	}
	inTable := 0
	for _, p := range loaded {
		for _, file := range p.Syntax {
			at := comparisons(file, p.TypesInfo)
			name := filepath.ToSlash(p.Fset.Position(file.Pos()).Filename)
			if strings.HasSuffix(name, versionTable) {
				inTable = len(at)
				continue
			}
			if strings.Contains(name, secondOpinion) {
				continue
			}
			for _, pos := range at {
				t.Errorf("%s compares a room version: name the rule by a predicate in %s", p.Fset.Position(pos), versionTable)
			}
		}
	}
	if inTable < 10 {
		t.Errorf("the check finds %d comparisons in the table itself, so it proves nothing", inTable)
	}
}

// comparisons returns where a file treats a room version as a number.
func comparisons(file *ast.File, info *types.Info) (at []token.Pos) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			x, y := isVersion(n.X, info), isVersion(n.Y, info)
			constant := isConstant(n.X, info) || isConstant(n.Y, info)
			switch n.Op {
			case token.LSS, token.LEQ, token.GTR, token.GEQ:
				if x || y {
					at = append(at, n.Pos())
				}
			case token.EQL, token.NEQ:
				if (x || y) && constant {
					at = append(at, n.Pos())
				}
			}
		case *ast.SwitchStmt:
			if n.Tag != nil && isVersion(n.Tag, info) {
				at = append(at, n.Pos())
			}
		}
		return true
	})
	return at
}

// isConstant reports whether an expression is a constant other than 0, which stands for "no version" and may be asked for anywhere.
func isConstant(e ast.Expr, info *types.Info) bool {
	value := info.Types[e].Value
	return value != nil && value.ExactString() != "0"
}

// isVersion reports whether an expression is a matrix.RoomVersion, or one made into a number or a text.
func isVersion(e ast.Expr, info *types.Info) bool {
	e = ast.Unparen(e)
	if named, ok := types.Unalias(info.TypeOf(e)).(*types.Named); ok && named.Obj().Name() == "RoomVersion" &&
		named.Obj().Pkg() != nil && strings.HasSuffix(named.Obj().Pkg().Path(), "internal/matrix") {
		return info.Types[e].Value == nil
	}
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	if method, ok := call.Fun.(*ast.SelectorExpr); ok && method.Sel.Name == "String" && len(call.Args) == 0 {
		return isVersion(method.X, info)
	}
	return len(call.Args) == 1 && info.Types[call.Fun].IsType() && isVersion(call.Args[0], info)
}

// TestFindsComparisons shows that the check sees what it is there for, and nothing else.
func TestFindsComparisons(t *testing.T) {
	source, err := os.ReadFile("testdata/versions.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "versions.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{}).Check("conclave/internal/matrix", fset, []*ast.File{file}, info); err != nil {
		t.Fatal(err)
	}
	want := map[int]bool{}
	for _, group := range file.Comments {
		if strings.Contains(group.Text(), "found") {
			want[fset.Position(group.Pos()).Line] = true
		}
	}
	for _, pos := range comparisons(file, info) {
		line := fset.Position(pos).Line
		if !want[line] {
			t.Errorf("line %d is no comparison of a version", line)
		}
		delete(want, line)
	}
	for line := range want {
		t.Errorf("the comparison in line %d is not found", line)
	}
}
