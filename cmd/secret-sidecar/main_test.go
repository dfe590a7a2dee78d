package main

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
)

// TestMain makes the test binary the secret-sidecar program when a script runs it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"secret-sidecar": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"eventually": eventually,
			"mode":       mode,
			"expand":     expand,
			"signal":     signalAll,
		},
		Setup: setUp,
	})
}

// setUp gives each script a Vault of its own with an AppRole and a secret, and a directory for
// sockets: $WORK is too long for their paths.
func setUp(env *testscript.Env) error {
	directory, err := os.MkdirTemp("", "sidecar")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(directory) })
	vault := devvault.New(devvault.Options{})
	web := httptest.NewServer(vault)
	env.Defer(web.Close)
	roleID, secretID, err := vault.SetupAppRole("test",
		`path "secret/data/*" { capabilities = ["read"] }`)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"SOCKETS": directory, "XDG_RUNTIME_DIR": directory,
		"TEST_VAULT": web.URL, "TEST_ROLE_ID": roleID, "TEST_SECRET_ID": secretID,
		"GORACE": "atexit_sleep_ms=0", // else each program sleeps for a second at its end
	} {
		env.Setenv(name, value)
	}
	return vault.WriteSecret("mysec", map[string]any{"api_key": "supersecret"})
}

// expand replaces $VARIABLES in files: expand FILE...
func expand(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) < 1 {
		ts.Fatalf("usage: expand FILE...")
	}
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

// exits runs a program and checks its exit code: exits CODE PROGRAM ARGS...
func exits(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exited with %d, want %d", args[1:], got, want)
	}
}

// eventually runs a program until it succeeds: eventually PROGRAM ARGS...
func eventually(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) < 1 {
		ts.Fatalf("usage: eventually PROGRAM [ARGS...]")
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%v never succeeded: %v", args, err)
		}
	}
}

// signalAll sends a signal to the programs in the background: signal HUP|INT|TERM
func signalAll(ts *testscript.TestScript, negated bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "INT": syscall.SIGINT,
		"TERM": syscall.SIGTERM}
	if negated || len(args) != 1 || signals[args[0]] == nil {
		ts.Fatalf("usage: signal HUP|INT|TERM")
	}
	for _, program := range ts.BackgroundCmds() {
		ts.Check(program.Process.Signal(signals[args[0]]))
	}
}

// mode checks a file's permission bits: mode 0600 FILE
func mode(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) != 2 {
		ts.Fatalf("usage: mode BITS FILE")
	}
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := info.Mode().Perm(); got != os.FileMode(want) {
		ts.Fatalf("%s has mode %04o, want %s", args[1], got, args[0])
	}
}
