package image_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/secret-sidecar/secret-sidecar/internal/containertest"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// patience bounds every wait for something that should happen at once.
const patience = 30 * time.Second

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
	first := filepath.Join(folder(t), "first")
	containertest.Require(t)
	v := vaulttest.Dev(t)
	v.WriteSecret(t, "secret/data/app", map[string]any{"key": "value-of-the-image"})
	root := unpack(t, openImage(t, first, runtime.GOARCH))
	shared := inMemory(t)
	c := containertest.New(t, containertest.Spec{
		Root: root, Args: []string{"/secret-sidecar", "serve"}, UID: sidecarUser, GID: sidecarUser, Groups: []uint32{workers},
		Volumes: []containertest.Volume{
			{Source: configure(t, v), Target: "/etc/secret-sidecar"},
			{Source: shared, Target: "/run/secret-sidecar", Writable: true},
		},
		Memory: 64 << 20, CPUs: 1,
	})
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
	if value := run("resolve", "secret/data/app/key"); value != "value-of-the-image" {
		t.Errorf("it resolves to %q", value)
	}
	want := fmt.Sprintf("secret-sidecar %s (revision %.12s) %s linux/%s", os.Getenv("VERSION"), os.Getenv("REVISION"), runtime.Version(), runtime.GOARCH)
	if version := run("version"); version != want {
		t.Errorf("it says that it is %q, want %q", version, want)
	}
	c.RequireConfined(sidecarUser)
	c.RequireLimits()
	if value := asWorker(t, root, shared); value != "value-of-the-image" {
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

// configure writes a configuration for the image's user, and returns its folder.
func configure(t *testing.T, v *vaulttest.Vault) string {
	t.Helper()
	roleID, secretID := v.AppRole(t, "image", nil, `path "secret/*" { capabilities = ["read"] }`)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755)) // #nosec G302 -- read by the image's user
	for name, text := range map[string]string{
		"config.yaml": fmt.Sprintf("socket: {mode: \"0660\"}\nconnections:\n  - {name: prod, scope: platform, address: %q, role_id: %s, "+
			"secret_id_file: /etc/secret-sidecar/secret-id}\n", v.Address, roleID),
		"secret-id": secretID,
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400))
		must(t, os.Chown(filepath.Join(dir, name), sidecarUser, sidecarUser))
	}
	return dir
}

// asWorker asks for the secret in a container of its own.
func asWorker(t *testing.T, root, shared string) string {
	t.Helper()
	c := containertest.New(t, containertest.Spec{
		Root: root, Args: []string{"/secret-sidecar", "resolve", "secret/data/app/key"}, UID: 41006, GID: 41006, Groups: []uint32{workers},
		Volumes: []containertest.Volume{{Source: shared, Target: "/run/secret-sidecar"}},
	})
	out, err := c.Command().CombinedOutput()
	if err != nil {
		t.Errorf("the worker: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// workers is the group that may open the socket.
const workers = 2000

// inMemory mounts a folder in memory, with the options of docs/image.md.
func inMemory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, volumeOptions(t)))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// volumeOptions are those that the document gives the volume of the socket.
func volumeOptions(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`--opt o=(\S+)`).FindStringSubmatch(document(t))
	if len(found) != 2 || !strings.Contains(found[1], fmt.Sprintf("uid=%d,gid=%d", sidecarUser, workers)) {
		t.Fatalf("the document has no options for the volume: %v", found)
	}
	return found[1]
}

// document is the page about the image.
func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/image.md")
	must(t, err)
	return string(text)
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
