package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// A sleep on the real clock makes a test slow, and wrong on a busy machine.
func TestATestFileThatSleepsUsesTheFakeClock(t *testing.T) {
	for path, file := range parseTestFiles(t) {
		if callsTimeSleep(file) && !imports(file, "testing/synctest") {
			t.Errorf("%s calls time.Sleep without testing/synctest: wait on a channel, "+
				"or sleep inside a bubble", path)
		}
	}
}

func parseTestFiles(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		mode := parser.SkipObjectResolution
		files[path], err = parser.ParseFile(token.NewFileSet(), path, nil, mode)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no test file")
	}
	return files
}

func callsTimeSleep(file *ast.File) bool {
	found := false
	ast.Inspect(file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok && selector.Sel.Name == "Sleep" {
			pkg, ok := selector.X.(*ast.Ident)
			found = found || ok && pkg.Name == "time"
		}
		return !found
	})
	return found
}

func imports(file *ast.File, path string) bool {
	for _, spec := range file.Imports {
		if spec.Path.Value == `"`+path+`"` {
			return true
		}
	}
	return false
}
