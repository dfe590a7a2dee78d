package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
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

// succeeds runs the binary, which has to end well, and returns its standard output.
func (s *sandbox) succeeds(args ...string) string {
	s.t.Helper()
	done := s.run(args...)
	if done.code != 0 {
		s.t.Fatalf("%v ended with %d: %s", args, done.code, done.stderr)
	}
	return done.stdout
}

// fails runs the binary, which has to end with a code and say each of the words on standard error.
func (s *sandbox) fails(code int, words []string, args ...string) {
	s.t.Helper()
	done := s.run(args...)
	if done.code != code {
		s.t.Errorf("%v ended with %d, want %d: %s", args, done.code, code, done.stderr)
	}
	for _, word := range words {
		if !strings.Contains(done.stderr, word) {
			s.t.Errorf("%v does not say %q: %s", args, word, done.stderr)
		}
	}
}

func TestTheCommandLineAsksARunningSidecar(t *testing.T) {
	t.Parallel()
	sandbox := newSandbox(t)
	v := vaulttest.RealPrivate(t)
	value := sandbox.newSecret()
	v.WriteSecret(t, "secret/data/app",
		map[string]any{"key": value, "tls/key": sandbox.keep("slashed"), "port": 5432})
	l := sandbox.defaultLogin(v)
	sandbox.start("--config", sandbox.config(l.connection("prod", v.Address)))

	t.Run("resolve prints the value and nothing else", func(t *testing.T) {
		s := sandbox.in(t)
		for want, args := range map[string][]string{
			value + "\n": {"secret/data/app/key"},
			"slashed\n":  {"secret/data/app", "--key", "tls/key"},
			"5432\n": {"secret/data/app/port", "--connection", "prod", "--version", "1", "--max-age",
				"0s"},
		} {
			if done := s.revealing(append([]string{"resolve"}, args...)...); done.code != 0 ||
				done.stdout != want || done.stderr != "" {
				t.Errorf("resolve %v: exit %d, %q, %q", args, done.code, done.stdout, done.stderr)
			}
		}
	})
	t.Run("resolve --output json prints the whole answer", func(t *testing.T) {
		done := sandbox.in(t).revealing("resolve", "secret/data/app/key", "--output", "json")
		var answer map[string]any
		if err := json.Unmarshal([]byte(done.stdout), &answer); err != nil {
			t.Fatalf("%v: %s", err, done.stdout)
		}
		requireFields(t, answer, map[string]any{"value": value, "value_type": "VALUE_TYPE_STRING",
			"version": 1.0, "source": "SOURCE_CACHE"})
	})
	t.Run("resolve says why it fails", func(t *testing.T) {
		s := sandbox.in(t)
		s.fails(1, []string{"SECRET_NOT_FOUND"}, "resolve", "secret/data/absent/key")
		s.fails(1, []string{"INVALID_PATH"}, "resolve", "nonsense")
		s.fails(1, []string{"CONNECTION_NOT_FOUND"}, "resolve", "secret/data/app/key",
			"--connection",
			"absent")
		s.fails(1, []string{s.path("nobody"), "--socket"}, "resolve", "secret/data/app/key",
			"--socket",
			s.path("nobody"))
	})
	t.Run("invalidate counts what it dropped", func(t *testing.T) {
		s := sandbox.in(t)
		s.revealing("resolve", "secret/data/app/key")
		for _, test := range []struct {
			want string
			args []string
		}{
			{"dropped 1 cached secret\n", []string{"secret/data/app/key"}},
			{"dropped 0 cached secrets\n", []string{"secret/data/", "--connection", "prod"}},
		} {
			if out := s.succeeds(append([]string{"invalidate"},
				test.args...)...); out != test.want {
				t.Errorf("invalidate %v says %q, want %q", test.args, out, test.want)
			}
		}
		s.succeeds("invalidate", "--renew-login")
	})
	t.Run("connections list", func(t *testing.T) {
		s := sandbox.in(t)
		for _, word := range []string{"prod", "READY", "platform", v.Address} {
			if table := s.succeeds("connections", "list"); !strings.Contains(table, word) {
				t.Errorf("the table does not show %q:\n%s", word, table)
			}
		}
		var list struct {
			Connections []struct{ Name, State string }
		}
		text := s.succeeds("connections", "list", "--output", "json")
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Connections) != 1 ||
			list.Connections[0].State != "CONNECTION_STATE_READY" {
			t.Errorf("%v: %s", err, text)
		}
	})
	t.Run("connections test", func(t *testing.T) {
		s := sandbox.in(t)
		report := s.succeeds("connections", "test", "prod")
		for _, word := range []string{"reach", "login", "PASSED", "1."} {
			if !strings.Contains(report, word) {
				t.Errorf("the report does not show %q:\n%s", word, report)
			}
		}
		s.fails(1, []string{"CONNECTION_NOT_FOUND"}, "connections", "test", "absent")
	})
	t.Run("health", func(t *testing.T) {
		s := sandbox.in(t)
		s.succeeds("health")
		s.succeeds("health", "--service", "liveness")
		s.succeeds("health", "--service", "connection/prod")
		s.fails(1, nil, "health", "--service", "connection/absent")
		s.fails(1, []string{s.path("nobody")}, "health", "--socket", s.path("nobody"))
	})
	t.Run("version and completion", func(t *testing.T) {
		s := sandbox.in(t)
		if version := s.succeeds("version"); !strings.HasPrefix(version, "secret-sidecar ") {
			t.Errorf("version says %q", version)
		}
		if script := s.succeeds("completion", "bash"); !strings.Contains(script, "secret-sidecar") {
			t.Errorf("completion prints %q", script)
		}
	})
}

func TestConnectionsAreTestedBeforeTheyAreSaved(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.RealPrivate(t)
	l := s.defaultLogin(v)
	value := s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	config := s.path("config.yaml")
	if err := os.WriteFile(config,
		[]byte("# hands off\n"+s.configText(l.connection("prod", v.Address))), 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.start("--config", config)
	target := []string{"--address", v.Address, "--role-id", l.roleID, "--secret-id-file",
		l.secretIDFile}
	wrong := s.write("wrong", s.newSecret())
	bad := []string{"--address", v.Address, "--role-id", l.roleID, "--secret-id-file", wrong}

	s.succeeds(append([]string{"connections", "test"}, target...)...)
	s.succeeds("connections", "test", "prod")
	done := s.run(append([]string{"connections", "test"}, bad...)...)
	if done.code != 1 || !strings.Contains(done.stdout, "login") ||
		!strings.Contains(done.stdout, "FAILED") {
		t.Errorf("a test with a wrong secret_id: exit %d\n%s%s", done.code, done.stdout,
			done.stderr)
	}

	before, _ := os.ReadFile(config)
	if done := s.run(append([]string{"connections", "add", "spare", "--config", config},
		bad...)...); done.code != 1 {
		t.Errorf("add with a wrong secret_id: exit %d\n%s", done.code, done.stderr)
	}
	if after, _ := os.ReadFile(config); !bytes.Equal(after, before) {
		t.Errorf("a refused add changed the file:\n%s", after)
	}

	add := append([]string{"connections", "add", "spare", "--config", config, "--scope", "project",
		"--project", "p1"}, target...)
	s.succeeds(add...)
	r.awaitHealth("") // it was never away
	eventually(t, "the running sidecar has picked it up", func() bool {
		return s.revealing("resolve", "secret/data/app/key", "--connection", "spare", "--project",
			"p1").stdout == value+"\n"
	})
	after, _ := os.ReadFile(config)
	if !strings.Contains(string(after), "# hands off") ||
		!strings.Contains(string(after), "name: prod") {
		t.Errorf("add lost something:\n%s", after)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	if twice := s.run(add...); twice.code == 0 {
		t.Error("the same name was added twice")
	}
	s.succeeds("config", "check", "--config", config)

	s.succeeds("connections", "remove", "spare", "--config", config)
	eventually(t, "the running sidecar has dropped it", func() bool {
		return strings.Contains(s.revealing("resolve", "secret/data/app/key", "--connection",
			"spare",
			"--project", "p1").stderr, "CONNECTION_NOT_FOUND")
	})
	if gone := s.run("connections", "remove", "spare", "--config", config); gone.code == 0 {
		t.Error("a connection was removed twice")
	}
	leftovers, _ := filepath.Glob(config + "?*")
	if len(leftovers) > 0 {
		t.Errorf("left beside the file: %v", leftovers)
	}
}

func TestDevNeedsNothingElse(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	value := s.newSecret()
	command := exec.Command(binary, "dev", "--socket", s.socket(), "--secret",
		"secret/data/mysec/api_key="+value)
	command.Env = s.environ()
	var stderr output
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	}()
	lines := bufio.NewScanner(stdout)
	var said []string
	address := regexp.MustCompile(`http://\S+`)
	for lines.Scan() {
		said = append(said, lines.Text())
		if slices.ContainsFunc(said, address.MatchString) &&
			strings.Contains(strings.Join(said, "\n"), s.socket()) {
			break
		}
	}
	eventually(t, "the sidecar answers", func() bool { return s.run("health").code == 0 })
	if done := s.revealing("resolve", "secret/data/mysec/api_key"); done.stdout != value+"\n" {
		t.Errorf("resolve: %q %s\ndev said: %s", done.stdout, done.stderr, strings.Join(said, "\n"))
	}
	_ = command.Process.Signal(syscall.SIGTERM)
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	err, ended = command.Wait(), true
	if err != nil {
		t.Errorf("dev ended with %v\n%s", err, stderr.String())
	}
	if text := fmt.Sprint(said, stderr.String()); strings.Contains(text, value) {
		t.Errorf("dev shows the value of a secret:\n%s", text)
	}
	if _, err := os.Lstat(s.socket()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
