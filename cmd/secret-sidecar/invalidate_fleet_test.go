package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/redistest"
)

// startSidecar runs a sidecar of the fleet, whose Vault is away, until the test ends, and returns
// its environment.
func startSidecar(t *testing.T, redis *redistest.Server) lookup {
	t.Helper()
	directory := shortDirectory(t)
	file := filepath.Join(directory, "config.yaml")
	text := "connections: [{name: away, scope: platform, address: 'http://127.0.0.1:1', role_id: r, secret_id: s}]\n" +
		"invalidation: {redis: {url: '" + redis.URL() + "'}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	getenv := only(socketEnv, filepath.Join(directory, "s.sock"))
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"serve", "--config", file}, streams{out: io.Discard, err: io.Discard}, getenv)
	}()
	t.Cleanup(func() {
		stop()
		if got := <-code; got != exitDone {
			t.Errorf("exit code %d, want 0", got)
		}
	})
	awaitExit(t, exitDone, []string{"health", "--service", "liveness"}, getenv)
	return getenv
}

func runInvalidate(t *testing.T, getenv lookup, args ...string) (code int, out, failure string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"invalidate"}, args...), streams{out: &stdout, err: &stderr}, getenv)
	return code, stdout.String(), stderr.String()
}

func TestInvalidateReachesTheFleetWithAndWithoutASidecar(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		noSidecar := only(socketEnv, filepath.Join(shortDirectory(t), "none"))
		code, _, failure := runInvalidate(t, noSidecar, "--redis", redis.URL(), "--wait")
		if code != exitFailed || !strings.Contains(failure, "no sidecar lives in the fleet") {
			t.Errorf("before there is a sidecar: exit code %d, %s", code, failure)
		}
		first := startSidecar(t, redis)
		startSidecar(t, redis)
		for {
			code, out, _ := runInvalidate(t, first, "secret/data/a/k", "--fleet", "--wait")
			if code == exitDone && strings.HasSuffix(out, "2 of 2 living sidecars have dropped it\n") {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal(out)
			}
		}
		for _, test := range []struct {
			getenv lookup
			args   []string
			want   string
		}{
			{first, []string{"--fleet"}, "dropped 0 cached secrets\n"},
			{noSidecar, []string{"--redis", redis.URL()}, "told the fleet\n"},
			{noSidecar, []string{"secret/data/", "--connection", "away", "--redis", redis.URL(), "--wait"}, "2 of 2 living sidecars have dropped it\n"},
		} {
			if code, out, failure := runInvalidate(t, test.getenv, test.args...); code != exitDone || out != test.want {
				t.Errorf("%q: exit code %d, %q, %s; want %q", test.args, code, out, failure, test.want)
			}
		}
	})
}

func TestInvalidateRefusesFleetFlagsThatMeanNothing(t *testing.T) {
	getenv := only(socketEnv, filepath.Join(shortDirectory(t), "none"))
	for want, args := range map[string][]string{
		"add --fleet":             {"--wait"},
		"add --redis":             {"--redis-stream", "other"},
		"--redis is no URL":       {"--redis", "http://:hunter2@x"},
		"--redis has skip_verify": {"--redis", "rediss://:hunter2@x?skip_verify=true"},
		"reference":               {"no/reference", "--redis", "redis://127.0.0.1:1"},
		"read the authorities":    {"--redis", "rediss://x", "--redis-ca-file", "/nowhere"},
	} {
		code, _, failure := runInvalidate(t, getenv, args...)
		if code != exitUsage || !strings.Contains(failure, want) || strings.Contains(failure, "hunter2") {
			t.Errorf("%q: exit code %d, %s; want %q", args, code, failure, want)
		}
	}
	code, _, failure := runInvalidate(t, getenv, "--redis", "redis://127.0.0.1:1")
	if code != exitFailed || !strings.Contains(failure, "the fleet's Redis cannot be used: there is no connection") {
		t.Errorf("a Redis that is away: exit code %d, %s", code, failure)
	}
}
