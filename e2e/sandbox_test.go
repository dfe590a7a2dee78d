package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that should happen at once. It is many times what
// anything needs, because machines that run tests are busy. Only a test that fails waits that long.
const patience = 2 * time.Minute

// sandbox is what surrounds one test: a private directory, the secrets that the test made up, and
// the output of every process that it started. When the test ends, no output may hold any of the
// secrets.
type sandbox struct {
	t *testing.T
	// dir is private to the test and short: socket paths hold 107 bytes.
	dir string
	*leaks
}

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	dir, err := os.MkdirTemp(directoryRoot(), "ss")
	if err != nil {
		t.Fatal(err)
	}
	s := &sandbox{t: t, dir: dir, leaks: &leaks{}}
	t.Cleanup(func() {
		for _, found := range s.find() {
			t.Error(found)
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

// in is the same sandbox for a subtest, which is the one to fail then.
func (s *sandbox) in(t *testing.T) *sandbox { return &sandbox{t: t, dir: s.dir, leaks: s.leaks} }

// socket is the path where the sandbox's sidecar listens.
func (s *sandbox) socket() string { return filepath.Join(s.dir, "run", "s.sock") }

// path is a path in the sandbox's directory.
func (s *sandbox) path(name string) string { return filepath.Join(s.dir, name) }

// write makes or replaces a file in one step, like an editor or a deployment tool does.
func (s *sandbox) write(name, content string) string {
	s.t.Helper()
	path := s.path(name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// subdirectory makes a directory in the sandbox's.
func (s *sandbox) subdirectory(name string) string {
	s.t.Helper()
	path := s.path(name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// must fails the test for an error.
func (s *sandbox) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// newSecret makes up a secret.
func (s *sandbox) newSecret() string { return s.keep("top-secret-" + rand.Text()) }

// endAtOnce keeps a program that has the race detector from sleeping for a second at its end.
const endAtOnce = "GORACE=atexit_sleep_ms=0"

// environ is the environment of the binary: what every process needs, and nothing of the test's
// own.
func (s *sandbox) environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, endAtOnce}, more...)
}

// outcome is what a finished command left.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs the binary to its end. Its output may hold no secret; revealing is for those whose job
// it is.
func (s *sandbox) run(args ...string) outcome {
	s.t.Helper()
	done := s.revealing(args...)
	s.record("stdout of "+strings.Join(args, " "), done.stdout)
	return done
}

// revealing runs the binary to its end. Its standard output may hold secrets.
func (s *sandbox) revealing(args ...string) outcome {
	s.t.Helper()
	return s.execute(exec.Command(binary, args...))
}

// execute runs a command to its end, in the sandbox's environment unless it has its own.
func (s *sandbox) execute(command *exec.Cmd) outcome {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if command.Env == nil {
		command.Env = s.environ("SECRET_SIDECAR_SOCKET=" + s.socket())
	}
	if err := command.Start(); err != nil {
		s.t.Fatalf("start %v: %v", command.Args, err)
	}
	timeout := time.AfterFunc(patience, func() { _ = command.Process.Signal(syscall.SIGQUIT) })
	err := command.Wait()
	if !timeout.Stop() {
		s.t.Fatalf("%v took longer than %v:\n%s", command.Args, patience, stderr.String())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("run %v: %v", command.Args, err)
	}
	s.record("stderr of "+strings.Join(command.Args, " "), stderr.String())
	return outcome{command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// output collects what a running process prints. It is safe for concurrent use.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns what was printed so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// everyTick calls do at every tick until ctx ends. A tick that comes while do still runs is lost.
func everyTick(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// eventually waits until holds says so.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v in vain: %s", patience, what)
		case <-tick.C:
		}
	}
}

// longestRoot leaves room for a test's directory and its socket: the path of a socket holds 107
// bytes.
const longestRoot = 60

// directoryRoot returns where tests make their directories. That is the temporary directory, unless
// other users cannot enter it or its name is too long for sockets.
func directoryRoot() string {
	for _, root := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if len(root) <= longestRoot && isOpenToAll(root) {
			return root
		}
	}
	return os.TempDir()
}

// isOpenToAll reports whether every user can pass through the directory and all those above it.
func isOpenToAll(directory string) bool {
	const search fs.FileMode = 0o001
	info, err := os.Stat(directory)
	if err != nil || !info.IsDir() || info.Mode()&search == 0 {
		return false
	}
	above := filepath.Dir(directory)
	return above == directory || isOpenToAll(above)
}
