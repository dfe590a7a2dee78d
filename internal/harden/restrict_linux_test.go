package harden

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// restrictedEnv makes the test binary the process that restricts itself, because what RestrictFiles
// does cannot be undone.
const restrictedEnv = "TEST_RESTRICTED_DIRECTORY"

func TestRestrictedFilesAreOutOfReach(t *testing.T) {
	dir := os.Getenv(restrictedEnv)
	if dir == "" {
		outside := t.TempDir()
		t.Setenv(restrictedEnv, outside)
		for _, name := range []string{"read", "write"} {
			if err := os.MkdirAll(filepath.Join(outside, name), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(outside, name, "f"), []byte("x"),
				0o600); err != nil {
				t.Fatal(err)
			}
		}
		runAgain(t)
		return
	}
	read, write := filepath.Join(dir, "read"), filepath.Join(dir, "write")
	reachable := Directories{Read: []string{read}, Write: []string{write, "/absent"}}
	if step := RestrictFiles(reachable); step.Err != nil {
		t.Skipf("no Landlock here: %v", step.Err)
	}
	for what, err := range map[string]error{
		"read below Read":   tryRead(filepath.Join(read, "f")),
		"read below Write":  tryRead(filepath.Join(write, "f")),
		"write below Write": os.WriteFile(filepath.Join(write, "new"), nil, 0o600),
		"read the system's": tryRead("/etc/passwd"),
		"read its own":      tryRead("/proc/self/status"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"write below Read":   os.WriteFile(filepath.Join(read, "new"), nil, 0o600),
		"list the directory": tryList(dir),
		"list the root":      tryList("/root"),
		"write to /etc":      os.WriteFile("/etc/secret-sidecar-test", nil, 0o600),
		"run a program":      tryRun(t),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v, want no permission", what, err)
		}
	}
}

func tryRead(name string) error {
	_, err := os.ReadFile(name)
	return err
}

func tryList(name string) error {
	_, err := os.ReadDir(name)
	return err
}

func tryRun(t *testing.T) error {
	t.Helper()
	process, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err == nil {
		_, _ = process.Wait()
	}
	return err
}

func TestMemoryIsLockedOrTheReasonIsSaid(t *testing.T) {
	if os.Getenv(hardenedEnv) == "" {
		runAgain(t)
		return
	}
	step := LockMemory()
	if step.Err != nil {
		if !strings.Contains(step.Err.Error(), "RLIMIT_MEMLOCK") {
			t.Errorf("no reason: %v", step.Err)
		}
		return
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil || strings.Contains(string(text), "VmLck:\t       0 kB") {
		t.Errorf("nothing is locked: %v\n%s", err, text)
	}
}
