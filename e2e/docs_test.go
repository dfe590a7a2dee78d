package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// docsSocket is the socket that the documents name; the tests put one of their own in its place.
const docsSocket = "/tmp/sidecar.sock"

// TestEveryCommandInTheDocumentsWorks runs the commands of all documents as a reader would: console blocks, with
// the answers that they show, against `secret-sidecar dev`; sh blocks line by line, in a directory that holds the
// files that the document shows.
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
	for _, page := range []string{"../docs/reliability.md", "../docs/security.md", "../docs/vault.md", "../docs/migration.md"} {
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
		if seconds, err := strconv.ParseFloat(strings.TrimSuffix(within, " s"), 64); err == nil && seconds > healsWithin.Seconds() {
			t.Errorf("%v s is longer than the promised %v: %s", seconds, healsWithin, line)
		}
	}
}

// requireTestsInRows checks the rows of a page's tables, whose last column names tests.
func requireTestsInRows(t *testing.T, text, code string) {
	t.Helper()
	rows := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| test |\n") {
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

// codeBlock is a fenced block of a document.
type codeBlock struct{ language, text string }

var fenced = regexp.MustCompile("(?s)```(\\w+)\n(.*?)```\n")

func codeBlocks(page string) []codeBlock {
	var blocks []codeBlock
	for _, match := range fenced.FindAllStringSubmatch(page, -1) {
		blocks = append(blocks, codeBlock{match[1], match[2]})
	}
	return blocks
}

// docsReader follows a document with a shell in an empty directory.
type docsReader struct {
	directory string
	env       []string
	server    *vaulttest.Vault // nil until a command needs it
}

func newReader(t *testing.T) *docsReader {
	t.Helper()
	directory, err := os.MkdirTemp(directoryRoot(), "ss")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	path := filepath.Dir(binary) + ":" + filepath.Dir(os.Getenv("GRPCURL")) + ":" + os.Getenv("PATH")
	return &docsReader{directory: directory, env: append(os.Environ(), "PATH="+path, "SECRET_SIDECAR_SOCKET="+filepath.Join(directory, "s"))}
}

// runSecret is a credential's file in a configuration.
var runSecret = regexp.MustCompile(`/run/secrets/([a-z-]+)`)

func (r *docsReader) follow(t *testing.T, b codeBlock) {
	t.Helper()
	text := strings.ReplaceAll(b.text, docsSocket, filepath.Join(r.directory, "s"))
	switch b.language {
	case "yaml":
		if strings.Contains(text, "connections:") {
			for _, file := range runSecret.FindAllStringSubmatch(text, -1) {
				r.write(t, file[1], "secret-id-of-the-documents")
			}
			r.write(t, "config.yaml", strings.ReplaceAll(text, "/run/secrets/", r.directory+"/"))
		}
	case "hcl":
		r.write(t, "policy.hcl", text)
	case "console":
		r.console(t, text)
	case "sh":
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
			command, _, _ := strings.Cut(strings.TrimSpace(line), " #")
			r.command(t, command)
		}
	}
}

func (r *docsReader) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.directory, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command runs one line of a sh block. What runs until it is stopped is started, seen to answer, and stopped;
// targets of make exist (running them is what runs this test).
func (r *docsReader) command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
	case words[0] == "make":
		r.shell(t, "make -n -C "+repository(t)+" "+strings.Join(words[1:], " ")+" >/dev/null")
	case words[0] == "secret-sidecar" && len(words) > 1 && (words[1] == "serve" || words[1] == "dev"):
		r.untilItAnswers(t, line)
	case words[0] == "secret-sidecar" && strings.Contains(line, "$VAULT_ADDR"):
		r.onVault(t, line)
	case words[0] == "secret-sidecar":
		r.shell(t, line)
	case words[0] == "vault":
		r.onVault(t, "$VAULT_BINARY"+strings.TrimPrefix(line, "vault"))
	case words[0] == "kubectl" || words[0] == "kustomize" || words[0] == "helm":
		// make test-manifests runs these.
	case words[0] == "apt-get" || words[0] == "/usr/bin/python3":
		// TestEverySampleOfTheClientsPageRuns needs what these make.
	default:
		t.Errorf("a command that no test can run: %s", line)
	}
}

// onVault runs a command with the address and the root token of a real Vault, where there is one.
func (r *docsReader) onVault(t *testing.T, line string) {
	t.Helper()
	if os.Getenv("VAULT_BINARY") == "" {
		return
	}
	if r.server == nil {
		r.server = vaulttest.RealPrivate(t)
		r.env = append(r.env, "VAULT_ADDR="+r.server.Address, "VAULT_TOKEN="+r.server.RootToken, "HOME="+r.directory)
	}
	r.shell(t, line)
}

func repository(t *testing.T) string {
	t.Helper()
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// shell runs a command that must succeed, and returns what it prints.
func (r *docsReader) shell(t *testing.T, line string) string {
	t.Helper()
	out, err := r.bash(t.Context(), line).CombinedOutput()
	if err != nil {
		t.Errorf("$ %s\n%s%v", line, out, err)
	}
	return string(out)
}

func (r *docsReader) bash(ctx context.Context, line string) *exec.Cmd {
	command := exec.CommandContext(ctx, "bash", "-c", line)
	command.Dir, command.Env = r.directory, r.env
	return command
}

// untilItAnswers starts a command, waits until the sidecar answers, and stops it.
func (r *docsReader) untilItAnswers(t *testing.T, line string) {
	t.Helper()
	var said bytes.Buffer
	stop := r.background(t, line, &said)
	r.shell(t, `until secret-sidecar health --service liveness; do read -rt 0.1 <> <(:) || :; done >/dev/null 2>&1`)
	if err := stop(); err != nil {
		t.Errorf("$ %s\n%s%v", line, said.String(), err)
	}
}

// background starts a command; stop ends it by SIGTERM and waits.
func (r *docsReader) background(t *testing.T, line string, out io.Writer) (stop func() error) {
	t.Helper()
	command := r.bash(context.WithoutCancel(t.Context()), "exec "+line)
	command.Stdout, command.Stderr = out, out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	return func() error {
		_ = command.Process.Signal(syscall.SIGTERM)
		return command.Wait()
	}
}

// console runs a transcript: lines that begin with "$ " are commands, what follows is what they print, where
// "..." stands for anything. They share one shell and one `secret-sidecar dev`.
func (r *docsReader) console(t *testing.T, transcript string) {
	t.Helper()
	var said bytes.Buffer
	stop := r.background(t, "secret-sidecar dev", &said)
	r.shell(t, `until secret-sidecar health; do read -rt 0.1 <> <(:) || :; done >/dev/null 2>&1`)
	defer func() {
		if err := stop(); err != nil {
			t.Errorf("secret-sidecar dev: %v\n%s", err, said.String())
		}
	}()
	script, want := "set -e\n", ""
	for line := range strings.Lines(transcript) {
		want += line
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			script += fmt.Sprintf("cat <<'ECHO'\n%sECHO\n%s", line, command)
		}
	}
	got := r.shell(t, script)
	if !matches(want, got) {
		t.Errorf("the document shows\n%s\nbut it is\n%s", want, got)
	}
}

// matches compares line by line, with runs of spaces folded; "..." in a line stands for the rest of it, and a
// line of only "..." for any number of lines.
func matches(want, got string) bool {
	pattern := "^"
	for line := range strings.Lines(want) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "..." {
			pattern += `(.*\n)*?`
			continue
		}
		pattern += strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, ".*") + `\n`
	}
	folded := ""
	for line := range strings.Lines(got) {
		folded += strings.Join(strings.Fields(line), " ") + "\n"
	}
	return regexp.MustCompile(pattern + "$").MatchString(folded)
}

// elsewhere is a block of commands that need what no test has: a registry, a container engine, a person who logs in.
var elsewhere = regexp.MustCompile("(?s)```sh elsewhere\n(.*?)```\n")

// TestCommandsThatRunElsewhereHaveTheFlagsThatTheDocumentsGiveThem asks each program for its flags, where it is there.
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
	verbs        = regexp.MustCompile(`^[a-z0-9]+(?: [a-z][a-z-]*)*`) // the program and its subcommands
	longFlag     = regexp.MustCompile(` (--[a-z][a-z-]*)`)
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
