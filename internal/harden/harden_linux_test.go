package harden

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hardenedEnv makes the test binary the process that hardens itself: what Process does cannot be
// undone.
const hardenedEnv = "TEST_HARDENED_PROCESS"

func TestProcessIsNotDumpableAndStillReadsItsOwnFiles(t *testing.T) {
	if os.Getenv(hardenedEnv) == "" {
		runAgain(t)
		return
	}
	runtime.LockOSThread() // with cgo, as -race needs it, the flag below is this thread's alone
	for _, step := range Process() {
		if step.Err != nil {
			t.Errorf("%s: %v", step.Name, step.Err)
		}
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable = %d, %v; want 0", dumpable, err)
	}
	var cores unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &cores); err != nil || cores.Max != 0 {
		t.Errorf("core limit = %+v, %v; want 0", cores, err)
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("own status, %v: no NoNewPrivs in\n%s", err, status)
	}
	if _, err := os.ReadDir("/proc/self/fd"); err != nil {
		t.Errorf("own descriptors: %v", err)
	}
}

func runAgain(t *testing.T) {
	t.Helper()
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$",
		"-test.count=1")
	again.Env = append(os.Environ(), hardenedEnv+"=1")
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
