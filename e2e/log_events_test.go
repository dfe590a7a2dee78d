package e2e_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// logMethods log at info or above. Log's level is not known; the program uses it for state changes.
var logMethods = map[string]int{ // the place of the message
	"Info": 0, "Warn": 0, "Error": 0, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2,
}

// productDirectories are those whose code is linked into the program.
var productDirectories = []string{"cache", "cmd", "config", "internal", "server", "vault"}

// eachSource parses every file of the program, tests left out.
func eachSource(t *testing.T, visit func(path string, file *ast.File)) {
	t.Helper()
	for _, directory := range productDirectories {
		err := filepath.WalkDir(filepath.Join("..", directory),
			func(path string, _ fs.DirEntry, err error) error {
				if err != nil || !strings.HasSuffix(path, ".go") ||
					strings.HasSuffix(path, "_test.go") ||
					strings.Contains(path, "vaulttest") || strings.Contains(path, "redistest") {
					return err
				}
				file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
				if err == nil {
					visit(path, file)
				}
				return err
			})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// constants are the texts of the program's string constants by name.
func constants(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	eachSource(t, func(_ string, file *ast.File) {
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, name := range spec.Names {
				if text, ok := textOf(spec.Values[i], nil); ok {
					texts[name.Name] = text
				}
			}
			return true
		})
	})
	return texts
}

// textOf returns the text of an expression that is a constant.
func textOf(expression ast.Expr, constants map[string]string) (string, bool) {
	switch expression := expression.(type) {
	case *ast.BasicLit:
		if expression.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(expression.Value)
		return text, err == nil
	case *ast.Ident:
		text, ok := constants[expression.Name]
		return text, ok
	case *ast.BinaryExpr:
		left, ok := textOf(expression.X, constants)
		right, okRight := textOf(expression.Y, constants)
		return left + right, ok && okRight && expression.Op == token.ADD
	}
	return "", false
}

// loggedEvents are the messages that the program logs at info or above, with where.
func loggedEvents(t *testing.T) map[string]string {
	t.Helper()
	texts, events := constants(t), map[string]string{}
	eachSource(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			place, ok := logMethods[method.Sel.Name]
			if !ok || len(call.Args) <= place {
				return true
			}
			if message, ok := textOf(call.Args[place], texts); ok && method.Sel.Name != "Error" ||
				ok &&
					isLogger(method.X) {
				events[message] = path
			}
			return true
		})
	})
	if len(events) < 25 {
		t.Fatalf("%d events found: does the search still work?", len(events))
	}
	return events
}

// isLogger tells a logger's Error from others of that name, status.Error of gRPC's for example.
func isLogger(receiver ast.Expr) bool {
	name := ""
	switch receiver := receiver.(type) {
	case *ast.Ident:
		name = receiver.Name
	case *ast.SelectorExpr:
		name = receiver.Sel.Name
	}
	return strings.EqualFold(name, "log") || name == "slog" || name == "Logger" || name == "l"
}

// section is the text of a document below a heading, up to the next one of the same rank.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %s", page, heading)
	}
	before, _, _ := strings.Cut(after, "\n## ")
	return before
}

var firstCell = regexp.MustCompile("(?m)^\\| (`.+?`(?:, `.+?`)*) \\| (?:debug|info|warn|error)")

func TestTheGuideListsEveryEventThatIsLogged(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, cell := range firstCell.FindAllStringSubmatch(section(t, "../docs/observability.md",
		"Log"), -1) {
		for _, match := range quoted.FindAllStringSubmatch(cell[1], -1) {
			documented[match[1]] = true
		}
	}
	for event, path := range loggedEvents(t) {
		if !documented[event] {
			t.Errorf("docs/observability.md lacks the event of %s: %s", path, event)
		}
		delete(documented, event)
	}
	for event := range documented {
		t.Errorf("docs/observability.md has an event that nothing logs: %s", event)
	}
}

func TestTheGuideListsEverySpanThatIsExported(t *testing.T) {
	t.Parallel()
	spans := section(t, "../docs/observability.md", "Spans")
	routes := 0
	eachSource(t, func(path string, file *ast.File) {
		if !strings.HasPrefix(path, "../vault/") {
			return
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.CompositeLit); ok && isNamed(literal.Type, "request") {
				if route := routeOf(literal); route != "" {
					routes++
					if !strings.Contains(spans, "/v1/"+route+"`") {
						t.Errorf("docs/observability.md lacks the span of %s: /v1/%s", path, route)
					}
				}
			}
			return true
		})
	})
	if routes < 9 {
		t.Errorf("%d kinds of requests found: does the search still work?", routes)
	}
}

func isNamed(expression ast.Expr, name string) bool {
	ident, ok := expression.(*ast.Ident)
	return ok && ident.Name == name
}

// routeOf returns the template of a request to Vault, or its path where that is the same for all.
func routeOf(literal *ast.CompositeLit) string {
	fields := map[string]string{}
	for _, element := range literal.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok {
				fields[key.Name], _ = textOf(pair.Value, nil)
			}
		}
	}
	if fields["template"] != "" {
		return fields["template"]
	}
	return fields["path"]
}
