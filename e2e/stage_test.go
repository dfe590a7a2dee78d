package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that should happen at once. Machines that run tests are busy.
const patience = 30 * time.Second

// stage is what surrounds one test: a private folder, the secrets that the test made up, and the output of
// every process that it started. When the test ends, no secret may stand in any output.
type stage struct {
	t *testing.T
	// dir is private to the test and short: socket paths hold 107 bytes.
	dir string
	*leaks
}

func newStage(t *testing.T) *stage {
	t.Helper()
	dir, err := os.MkdirTemp(folderRoot(), "ss")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir, leaks: &leaks{}}
	t.Cleanup(func() {
		for _, found := range s.find() {
			t.Error(found)
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

// in is the same stage for a subtest, which is the one to fail then.
func (s *stage) in(t *testing.T) *stage { return &stage{t: t, dir: s.dir, leaks: s.leaks} }

// socket is the path where the stage's sidecar listens.
func (s *stage) socket() string { return filepath.Join(s.dir, "run", "s.sock") }

// path is a path in the stage's folder.
func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

// write makes or replaces a file in one step, like an editor or a deployment tool does.
func (s *stage) write(name, content string) string {
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

// newSecret makes up a secret.
func (s *stage) newSecret() string { return s.keep("top-secret-" + rand.Text()) }

// environ is the environment of the binary: nothing of the test's own but what processes need.
func (s *stage) environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}, more...)
}

// outcome is what a finished command left.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs the binary to its end. Its output may hold no secret; revealing is for those whose job it is.
func (s *stage) run(args ...string) outcome {
	s.t.Helper()
	done := s.revealing(args...)
	s.record("stdout of "+strings.Join(args, " "), done.stdout)
	return done
}

// revealing runs the binary to its end; its standard output may hold secrets.
func (s *stage) revealing(args ...string) outcome {
	s.t.Helper()
	return s.execute(exec.Command(binary, args...))
}

// execute runs a command to its end, in the stage's environment unless it has its own.
func (s *stage) execute(command *exec.Cmd) outcome {
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
