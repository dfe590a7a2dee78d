package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// ownSocket puts a test's socket in the place of the one that the documents name, in a shell's words
// and in a program's.
func ownSocket(text, socket string) string {
	return strings.NewReplacer("~/.secret-sidecar/sidecar.sock", socket,
		"/home/me/.secret-sidecar/sidecar.sock", socket).Replace(text)
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
	path := filepath.Dir(binary) + ":" + filepath.Dir(os.Getenv("GRPCURL")) + ":" +
		os.Getenv("PATH")
	return &docsReader{directory: directory,
		env: append(os.Environ(), endAtOnce, "PATH="+path,
			"SECRET_SIDECAR_SOCKET="+filepath.Join(directory, "s"))}
}

// runSecret is a credential's file in a configuration.
var runSecret = regexp.MustCompile(`/run/secrets/([a-z-]+)`)

func (r *docsReader) follow(t *testing.T, b codeBlock) {
	t.Helper()
	text := ownSocket(b.text, filepath.Join(r.directory, "s"))
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

// command runs one line of a sh block. What runs until it is stopped is started, seen to answer,
// and stopped; targets of make exist (running them is what runs this test).
func (r *docsReader) command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
	case words[0] == "make":
		r.shell(t, "make -n -C "+repository(t)+" "+strings.Join(words[1:], " ")+" >/dev/null")
	case words[0] == "secret-sidecar" && len(words) > 1 &&
		(words[1] == "serve" || words[1] == "dev"):
		r.untilItAnswers(t, line)
	case words[0] == "secret-sidecar" && strings.Contains(line, "$VAULT_ADDR"):
		r.onVault(t, line)
	case words[0] == "secret-sidecar":
		r.shell(t, line)
	case words[0] == "vault":
		r.onVault(t, "$VAULT_BINARY"+strings.TrimPrefix(line, "vault"))
	case words[0] == "kubectl" || words[0] == "kustomize" || words[0] == "helm":
		// make test-manifests runs these.
	case slices.Contains([]string{"apt-get", "protoc", "/usr/bin/python3"}, words[0]):
		// TestEverySampleOfTheClientsPagesRuns needs what these make.
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
		r.env = append(r.env, "VAULT_ADDR="+r.server.Address, "VAULT_TOKEN="+r.server.RootToken,
			"HOME="+r.directory)
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
	r.shell(t,
		`until secret-sidecar health --service liveness; do read -rt 0.1 <> <(:) || :; done >/dev/null 2>&1`)
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

// console runs a transcript: lines that begin with "$ " are commands, what follows is what they
// print, where "..." stands for anything. They share one shell and one `secret-sidecar dev`.
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

// matches compares line by line, with runs of spaces folded; "..." in a line stands for the rest of
// it, and a line of only "..." for any number of lines.
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
