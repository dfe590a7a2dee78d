// Package containertest runs programs for tests as a pod's containers run: by an OCI runtime, runc,
// with a read-only root file system, as a user without capabilities or a way to new privileges,
// under the usual default profile of system calls, and within limits of memory and CPU. What it
// leaves out is a network of the pod's own: its containers share the machine's, where the test's
// Vault is.
//
// SECRET_SIDECAR_REQUIRE_CONTAINERS set to 1 turns a machine without runc from a skip into a
// failure.
package containertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync/atomic"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Spec says what a container runs.
type Spec struct {
	// Root is the directory with its file system, which it cannot write to. It is made if it is not
	// there.
	Root string
	Args []string
	Env  []string
	// UID, GID and Groups are who it runs as.
	UID, GID uint32
	Groups   []uint32
	// Volumes are directories and files of the machine that it sees at other places.
	Volumes []Volume
	// Memory is its limit in bytes, CPUs the number of processors that it may use. Both need
	// control groups: see Limited.
	Memory int64
	CPUs   float64
}

// Volume is a directory or file of the machine in a container.
type Volume struct {
	Source, Target string
	Writable       bool
}

// Container is one that has not run yet, runs, or has run.
type Container struct {
	t      testing.TB
	id     string
	state  string // the directory in which runc keeps its state
	bundle string
	spec   Spec
}

// Require skips the test on a machine that cannot run containers, unless they are required.
func Require(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("runc")
	switch {
	case err == nil && os.Geteuid() == 0:
		return
	case os.Getenv("SECRET_SIDECAR_REQUIRE_CONTAINERS") == "1":
		t.Fatal("containers take root and runc, and are required: apt-get install runc")
	default:
		t.Skip("containers take root and runc: apt-get install runc")
	}
}

// New prepares a container. The test's end removes it, and what still runs in it.
func New(t testing.TB, s Spec) *Container {
	t.Helper()
	directory := t.TempDir()
	c := &Container{t: t, spec: s, state: directory + "/state", bundle: directory,
		id: fmt.Sprintf("test-%d-%d", os.Getpid(), started.Add(1))}
	c.prepare(s, limitsMissingHere() == nil)
	t.Cleanup(func() { _ = c.runc("delete", "--force", c.id).Run() })
	return c
}

// started numbers the containers of this process.
var started atomic.Int64

// prepare writes what runc wants to know.
func (c *Container) prepare(s Spec, limited bool) {
	c.t.Helper()
	config, err := s.config(limited)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := json.Marshal(config)
	if err == nil {
		err = os.MkdirAll(s.Root, 0o755) // #nosec G301 -- its user has to get into it
	}
	if err == nil {
		err = os.WriteFile(c.bundle+"/config.json", text, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// Command is the command that runs the container to its end. It passes signals on, but for SIGKILL,
// and ends with the container's exit code.
func (c *Container) Command() *exec.Cmd { return c.runc("run", "--bundle", c.bundle, c.id) }

// Exec is a command that runs a program inside the running container, as its user, as an exec probe
// does.
func (c *Container) Exec(args ...string) *exec.Cmd {
	return c.runc(append([]string{"exec", c.id}, args...)...)
}

// Kill ends what runs in the container as a crash does.
func (c *Container) Kill() {
	c.t.Helper()
	if out, err := c.runc("kill", c.id, "KILL").CombinedOutput(); err != nil {
		c.t.Fatalf("kill %s: %v\n%s", c.id, err, out)
	}
}

// PID is the process that the container runs, as the machine numbers it.
func (c *Container) PID() int {
	c.t.Helper()
	out, err := c.runc("state", c.id).Output()
	var state specs.State
	if err == nil {
		err = json.Unmarshal(out, &state)
	}
	if err != nil {
		c.t.Fatalf("state of %s: %v\n%s", c.id, err, out)
	}
	return state.Pid
}

// RequireConfined checks what the kernel says of the container's process: its user, no capability
// in any set, no way to new privileges, a filter of system calls, and a root that it cannot write
// to.
func (c *Container) RequireConfined(uid uint32) {
	c.t.Helper()
	pid := c.PID()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		c.t.Fatal(err)
	}
	const none = "0000000000000000"
	for name, want := range map[string]string{
		// a filter
		"Uid": fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", uid), "NoNewPrivs": "1", "Seccomp": "2",
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
	} {
		if !bytes.Contains(status, []byte("\n"+name+":\t"+want+"\n")) {
			c.t.Errorf("%s of the process is not %q:\n%s", name, want, status)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		c.t.Fatal(err)
	}
	if !readOnlyRoot.Match(mounts) {
		c.t.Errorf("the root can be written to:\n%s", mounts)
	}
}

// readOnlyRoot is the line of /proc/PID/mountinfo of a root that is mounted for reading; see
// proc(5).
var readOnlyRoot = regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S+ / ro[, ]`)

func (c *Container) runc(args ...string) *exec.Cmd {
	return exec.Command("runc", append([]string{"--root", c.state},
		args...)...) // #nosec G204 -- the test's own arguments
}

// config is the container in the words of the OCI runtime specification.
func (s Spec) config(limited bool) (*specs.Spec, error) {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc",
			Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
			Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs",
			Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: controlGroups, Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
	for _, v := range s.Volumes {
		access := "ro"
		if v.Writable {
			access = "rw"
		}
		mounts = append(mounts, specs.Mount{Destination: v.Target, Type: "bind", Source: v.Source,
			Options: []string{"rbind", "nosuid", "nodev", access}})
	}
	config := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: s.Root, Readonly: true},
		Process: &specs.Process{
			Args: s.Args, Env: s.Env, Cwd: "/",
			User:            specs.User{UID: s.UID, GID: s.GID, AdditionalGids: s.Groups},
			Capabilities:    &specs.LinuxCapabilities{}, // none, in no set
			NoNewPrivileges: true,
		},
		Mounts: mounts,
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
				"/proc/sysrq-trigger"},
		},
	}
	if _, err := os.Stat(controlGroups + "/cgroup.controllers"); err == nil {
		// With version 2, a container sees its own groups alone; version 1 has it so by its mounts.
		config.Linux.Namespaces = append(config.Linux.Namespaces,
			specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if limited {
		config.Linux.Resources = s.limits()
	}
	var err error
	config.Linux.Seccomp, err = seccomp.GetDefaultProfile(config)
	return config, err
}

// Programs are the directories of the machine that its programs need, for a root that is otherwise
// empty.
func Programs() []Volume {
	var volumes []Volume
	for _, directory := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if _, err := os.Stat(directory); err == nil {
			volumes = append(volumes, Volume{Source: directory, Target: directory})
		}
	}
	return volumes
}
