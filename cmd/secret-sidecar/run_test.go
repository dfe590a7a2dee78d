package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestDevLeavesNothingBehindWhenItEnds(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	directory := shortDirectory(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	code := make(chan int, 1)
	go func() {
		defer func() { _ = in.Close() }()
		code <- run(ctx, []string{"dev"}, streams{out: in, err: io.Discard},
			only("XDG_RUNTIME_DIR", directory))
	}()
	welcome := bufio.NewScanner(out)
	for welcome.Scan() {
		if strings.HasPrefix(welcome.Text(), "Try,") {
			stop()
		}
	}
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d, want 0", got)
	}
	if left, err := os.ReadDir(directory); err != nil || len(left) > 0 {
		t.Errorf("files left behind: %v, %v", left, err)
	}
}

func TestServeEndsItsGoroutinesWhileVaultIsAway(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	directory := shortDirectory(t)
	file := filepath.Join(directory, "config.yaml")
	text := "connections: [{name: away, scope: platform, address: 'http://127.0.0.1:1', role_id: " +
		"r, secret_id: s}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	getenv := only(socketEnv, filepath.Join(directory, "s.sock"))
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--config", file},
			streams{out: io.Discard, err: io.Discard}, getenv)
	}()
	awaitExit(t, exitDone, []string{"health", "--service", "liveness"}, getenv)
	awaitExit(t, exitFailed, []string{"health"}, getenv)
	stop()
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d, want 0", got)
	}
}

func TestAMissingPermissionForTheSocketSaysWhatToDo(t *testing.T) {
	for op, want := range map[string]string{
		"mkdir": "create it for this user, or choose another socket with --socket or socket.path",
		"open":  "let this user write in the socket's directory",
		"chown": "choose another one with socket.group",
	} {
		err := withSocketHint(fmt.Errorf("%w: %w", unixsocket.ErrConfig,
			&fs.PathError{Op: op, Path: "/p", Err: syscall.EACCES}))
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", op, err)
		}
	}
	exists := fmt.Errorf("%w: %w", unixsocket.ErrConfig,
		&fs.PathError{Op: "mkdir", Path: "/p", Err: syscall.ENOTDIR})
	if got := withSocketHint(exists); !errors.Is(got, syscall.ENOTDIR) ||
		got.Error() != exists.Error() {
		t.Errorf("a hint about permissions where none is missing: %v", got)
	}
}

// awaitExit runs a command until it ends with the exit code.
func awaitExit(t *testing.T, want int, args []string, getenv lookup) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for {
		if run(t.Context(), args, streams{out: io.Discard, err: io.Discard}, getenv) == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%v never ended with %d", args, want)
		}
	}
}

// shortDirectory is t.TempDir with a path that leaves room for a socket's name.
func shortDirectory(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "sidecar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

// only is an environment of one variable.
func only(name, value string) lookup {
	return func(asked string) (string, bool) {
		if asked != name {
			return "", false
		}
		return value, true
	}
}
