package e2e_test

import (
	"bytes"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"

	"github.com/secret-sidecar/secret-sidecar/e2e/containertest"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// The conditions of a pod, on this machine: the sidecar and a worker in containers of their own, as
// different users, with a group (the pod's fsGroup) and a directory in memory in common.

const (
	podSidecar = 65532
	podWorker  = 41005
	podGroup   = 42005
	podMemory  = 256 << 20
	// podDirectory is where both containers see the directory that they share.
	podDirectory = "/run/secret-sidecar"
	podSocket    = podDirectory + "/s.sock"
)

// pod is the volumes of a pod, and the Vault of its sidecar.
type pod struct {
	*sandbox
	proxy          *proxy
	login          *login
	value          string // of secret/data/app/key
	config, secret *volume
}

func newPod(t *testing.T) *pod {
	t.Helper()
	containertest.Require(t)
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	p := &pod{sandbox: s, proxy: s.newProxy(v), login: s.defaultLogin(v), value: s.newSecret()}
	s.writeSecret(v, "secret/data/app", "key", p.value)
	s.must(os.Chmod(s.dir, 0o711)) // #nosec G302 -- the containers' users pass through it
	p.config, p.secret = s.newVolumeOf("config", 0o644, 0, podGroup), s.newVolumeOf("secret", 0o440,
		0, podGroup)
	p.secret.swap(map[string]string{"secret-id": p.login.secretID})
	p.config.swap(map[string]string{"config.yaml": p.configText("timeout: 20s")})
	p.shareMemory()
	return p
}

// configText is the configuration with more lines for its connection.
func (p *pod) configText(lines ...string) string {
	connection := p.login.connection("prod", p.proxy.address,
		append(lines, "secret_id_file: /etc/vault/secret-id")...)
	return strings.Replace(p.sandbox.configText(connection), p.socket(), podSocket+`, mode: "0660"`,
		1)
}

// shareMemory mounts the directory of the socket as the kubelet mounts an emptyDir in memory for a
// pod with an fsGroup: the group may write, and owns whatever is made there.
func (p *pod) shareMemory() {
	p.t.Helper()
	directory := p.subdirectory("run")
	p.must(unix.Mount("tmpfs", directory, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m"))
	p.t.Cleanup(func() { _ = unix.Unmount(directory, unix.MNT_DETACH) })
	p.must(os.Chown(directory, 0, podGroup))
	p.must(os.Chmod(directory, fs.ModeSetgid|0o777))
}

// containedSidecar is the sidecar in its container.
type containedSidecar struct {
	*sidecar
	container *containertest.Container
}

// startSidecar starts the sidecar's container, and waits for nothing.
func (p *pod) startSidecar() *containedSidecar {
	p.t.Helper()
	c := containertest.New(p.t, containertest.Spec{
		Root: p.path("sidecar-root"),
		Args: []string{"/secret-sidecar", "serve", "--log-level", "debug"},
		Env:  append(exporting(), endAtOnce, "SECRET_SIDECAR_SOCKET="+podSocket),
		UID:  podSidecar, GID: podSidecar, Groups: []uint32{podGroup},
		// the binary under test is not static: it has the race detector
		Volumes: append(containertest.Programs(),
			containertest.Volume{Source: binary, Target: "/secret-sidecar"},
			containertest.Volume{Source: p.config.dir, Target: "/etc/secret-sidecar"},
			containertest.Volume{Source: p.secret.dir, Target: "/etc/vault"},
			containertest.Volume{Source: p.path("run"), Target: podDirectory, Writable: true}),
		Memory: podMemory, CPUs: 1,
	})
	command, log, exports := c.Command(), &output{}, &output{}
	command.Stdout, command.Stderr = exports, log
	p.recordLive("traces and metrics of the pod's sidecar", exports.String)
	return &containedSidecar{sidecar: p.launch(command, log), container: c}
}

// awaitStarted waits for the manifest's startup probe, which runs in the container. It shows that
// the socket answers; the sidecar may not have logged in yet.
func (r *containedSidecar) awaitStarted() {
	r.sandbox.t.Helper()
	r.await("startupProbe")
}

// await waits until a probe of the manifest's succeeds.
func (r *containedSidecar) await(probe string) {
	r.sandbox.t.Helper()
	eventually(r.sandbox.t, probe+" succeeds", func() bool { return r.probe(probe) == nil })
}

// probe runs a probe of the manifest's in the container.
func (r *containedSidecar) probe(name string) error {
	r.sandbox.t.Helper()
	return r.container.Exec(probeCommand(r.sandbox.t, name)...).Run()
}

// probeCommand is the command of a probe in the manifest of the pod.
func probeCommand(t *testing.T, probe string) []string {
	t.Helper()
	manifest, err := os.ReadFile("../deploy/kubernetes/component-with-own-fs-group/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path, err := yaml.PathString("$.spec.template.spec.initContainers[0]." + probe +
		".exec.command")
	if err != nil {
		t.Fatal(err)
	}
	var command []string
	if err := path.Read(bytes.NewReader(manifest), &command); err != nil {
		t.Fatalf("the manifest has no command of a %s: %v", probe, err)
	}
	return command
}

// crash kills the sidecar with SIGKILL, as running out of memory does.
func (r *containedSidecar) crash() {
	r.sandbox.t.Helper()
	r.killed = true
	r.container.Kill()
	r.awaitExit()
}

// newWorkingPod returns a pod whose containers started in the order of a native sidecar, and whose
// worker gets answers.
func newWorkingPod(t *testing.T) (*pod, *containedSidecar, *worker) {
	t.Helper()
	p := newPod(t)
	r := p.startSidecar()
	r.awaitStarted()
	w := p.startWorker()
	w.awaitAnswers(10)
	return p, r, w
}
