package image_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/e2e/containertest"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// patience bounds every wait for something that should happen at once.
const patience = 2 * time.Minute

// logs collects what the container says. It is safe for concurrent use.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what was said so far.
func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestTheImageServesAsItsUserOnAReadOnlyRoot(t *testing.T) {
	first := filepath.Join(directory(t), "first")
	containertest.Require(t)
	v := vaulttest.Dev(t)
	v.Mount(t, "flows", "kv", "2")
	v.WriteSecret(t, "flows/data/mysec", map[string]any{"api_key": "value-of-the-image"})
	page := readPage(t)
	docker := host{
		root: unpack(t, openImage(t, first, runtime.GOARCH)),
		directories: map[string]string{"/etc/secret-sidecar": page.configure(t, v),
			"sidecar-socket": page.inMemory(t)},
	}
	c := containertest.New(t, docker.container(t, page.sidecar))
	serve, said := c.Command(), &logs{}
	serve.Stdout, serve.Stderr = said, said
	must(t, serve.Start())

	awaitHealth(t, c, said)
	run := func(args ...string) string {
		out, err := c.Exec(append([]string{"/secret-sidecar"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s%s", args, err, out, said)
		}
		return strings.TrimSpace(string(out))
	}
	if value := run("resolve", "flows/data/mysec/api_key"); value != "value-of-the-image" {
		t.Errorf("it resolves to %q", value)
	}
	want := fmt.Sprintf("secret-sidecar %s (revision %.12s) %s linux/%s", os.Getenv("VERSION"),
		os.Getenv("REVISION"), runtime.Version(), runtime.GOARCH)
	if version := run("version"); version != want {
		t.Errorf("it says that it is %q, want %q", version, want)
	}
	c.RequireConfined(sidecarUser)
	c.RequireLimits()
	if value := output(t, containertest.New(t,
		docker.container(t, page.worker))); value != "value-of-the-image" {
		t.Errorf("a worker of another user in the group is told %q", value)
	}
	if out, err := c.Exec("/bin/sh", "-c", "true").CombinedOutput(); err == nil {
		t.Errorf("it has a shell: %s", out)
	}

	must(t, serve.Process.Signal(syscall.SIGTERM))
	if err := serve.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, said)
	}
	if strings.Contains(said.String(), "value-of-the-image") {
		t.Error("its log holds the secret")
	}
}

// output runs a container to its end, and returns what it prints.
func output(t *testing.T, c *containertest.Container) string {
	t.Helper()
	out, err := c.Command().CombinedOutput()
	if err != nil {
		t.Errorf("the worker: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// awaitHealth asks as an exec probe does, until the sidecar is healthy.
func awaitHealth(t *testing.T, c *containertest.Container, said *logs) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := c.Exec("/secret-sidecar", "health").CombinedOutput()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not healthy: %v\n%s%s", err, out, said)
		case <-tick.C:
		}
	}
}
