package e2e_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestEveryCommandInTheDocumentsWorks runs the commands of all documents as a reader would: console
// blocks, with the answers that they show, against `secret-sidecar dev`; sh blocks line by line, in
// a directory that holds the files that the document shows.
func TestEveryCommandInTheDocumentsWorks(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			reader := newReader(t)
			for _, b := range codeBlocks(string(text)) {
				reader.follow(t, b)
			}
		})
	}
}

// testName is a test or fuzz target that a document names.
var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z0-9]\\w+)`")

func TestEveryRowOfThesePagesNamesATestThatExists(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"../docs/reliability.md", "../docs/security.md",
		"../docs/vault.md",
		"../docs/migration.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		requireTestsInRows(t, string(text), testCode(t))
	}
}

// healed is what the column before the tests says: a time, or why there is none.
var healed = regexp.MustCompile(`^(?:\d+(?:\.\d)? s|at once|no read fails|by a person|–)$`)

func TestEveryFaultSaysWithinWhichTimeItHeals(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasSuffix(line, "| heals within | test |\n") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
		within := strings.TrimSpace(cells[len(cells)-2])
		if !healed.MatchString(within) {
			t.Errorf("%q is no time to heal: %s", within, line)
		}
		if seconds, err := strconv.ParseFloat(strings.TrimSuffix(within, " s"), 64); err == nil &&
			seconds > healsWithin.Seconds() {
			t.Errorf("%v s is longer than the promised %v: %s", seconds, healsWithin, line)
		}
	}
}

// GitHub drops the cells that a row has more than its header, without a word.
func TestEveryRowOfATableHasAsManyCellsAsItsHeader(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		want := 0 // cells of the table's header; 0 outside of tables
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "|") {
				want = 0
				continue
			}
			cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") - 1
			if want == 0 {
				want = cells
			}
			if cells != want {
				t.Errorf("%s: %d cells under a header of %d: %s", page, cells, want, line)
			}
		}
	}
}

// requireTestsInRows checks the rows of a page's tables, whose last column names tests.
func requireTestsInRows(t *testing.T, text, code string) {
	t.Helper()
	rows := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") ||
			strings.HasSuffix(line, "| test |\n") {
			continue
		}
		rows++
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
		named := testName.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(named) == 0 {
			t.Errorf("no test stands behind: %s", line)
		}
		for _, match := range named {
			if !strings.Contains(code, "func "+match[1]+"(") {
				t.Errorf("there is no test %s", match[1])
			}
		}
	}
	if rows == 0 {
		t.Error("the table is empty")
	}
}

// testCode is the text of all tests.
func testCode(t *testing.T) string {
	t.Helper()
	var code strings.Builder
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != "..":
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return code.String()
}

// Without a connection, a renewal drops what is cached of every connection.
func TestNoPageAdvisesToRenewTheLoginsOfEveryConnection(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range append(pages, "../README.md", "../cmd/secret-sidecar/invalidate.go") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "invalidate --renew-login") {
			t.Errorf("%s advises invalidate --renew-login without a connection", page)
		}
	}
}

// elsewhere is a block of commands that need what no test has: a registry, a container engine, a
// person who logs in.
var elsewhere = regexp.MustCompile("(?s)```sh elsewhere\n(.*?)```\n")

// TestCommandsThatRunElsewhereHaveTheFlagsThatTheDocumentsGiveThem asks each program for its flags,
// where it is there.
func TestCommandsThatRunElsewhereHaveTheFlagsThatTheDocumentsGiveThem(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	reader := newReader(t)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range elsewhere.FindAllStringSubmatch(string(text), -1) {
			for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
				reader.requireFlags(t, line)
			}
		}
	}
}

var (
	substitution = regexp.MustCompile(`\$\([^)]*\)`)
	// the program and its subcommands
	verbs    = regexp.MustCompile(`^[a-z0-9]+(?: [a-z][a-z-]*)*`)
	longFlag = regexp.MustCompile(` (--[a-z][a-z-]*)`)
)

// requireFlags checks a command's flags by what the program says with --help.
func (r *docsReader) requireFlags(t *testing.T, line string) {
	t.Helper()
	command := substitution.ReplaceAllString(strings.TrimSpace(line), "X")
	flags, verb := longFlag.FindAllStringSubmatch(command, -1), verbs.FindString(command)
	if len(flags) == 0 {
		return
	}
	help, err := r.bash(t.Context(), verb+" --help").CombinedOutput()
	if err != nil || !strings.Contains(string(help), verb+" ") {
		t.Logf("there is no %s here, its flags are not checked: %s", verb, command)
		return
	}
	for _, flag := range flags {
		if !strings.Contains(string(help), flag[1]) {
			t.Errorf("%s has no flag %s: %s", verb, flag[1], command)
		}
	}
}
