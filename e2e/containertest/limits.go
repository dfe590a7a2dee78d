package containertest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// RequireLimits checks that the kernel limits the container's memory and CPU as its Spec says.
// Where nobody can make a control group with limits it logs why.
func (c *Container) RequireLimits() {
	c.t.Helper()
	if !Limited(c.t) {
		return
	}
	c.requireLimit("memory", "memory.limit_in_bytes", "memory.max",
		strconv.FormatInt(c.spec.Memory, 10))
	c.requireLimit("cpu", "cpu.cfs_quota_us", "cpu.max", strconv.FormatInt(c.spec.quota(), 10))
}

// Limited tells whether containers have the limits of their Spec here, and logs why not.
func Limited(t testing.TB) bool {
	t.Helper()
	err := limitsMissingHere()
	if err != nil {
		t.Logf("this machine cannot limit a container's memory and CPU: %v", err)
	}
	return err == nil
}

// requireLimit checks a file of the container's control group, which version 1 has for each
// controller and calls otherwise than version 2.
func (c *Container) requireLimit(controller, file1, file2, want string) {
	c.t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.PID()))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		group := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		file := "/sys/fs/cgroup" + group[2] + "/" + file2
		if group[1] != "" {
			file = "/sys/fs/cgroup/" + controller + group[2] + "/" + file1
		}
		if group[1] != "" && !slices.Contains(strings.Split(group[1], ","), controller) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue // both versions are mounted, and this one has not got the controller
		}
		if got := strings.Fields(string(text)); len(got) == 0 || got[0] != want {
			c.t.Errorf("%s is %q, want %s", file, text, want)
		}
		return
	}
	c.t.Errorf("no limit of %s in the control groups:\n%s", controller, groups)
}

func (s Spec) limits() *specs.LinuxResources {
	resources := &specs.LinuxResources{}
	if s.Memory > 0 {
		resources.Memory = &specs.LinuxMemory{Limit: &s.Memory}
	}
	if s.CPUs > 0 {
		period, quota := uint64(cpuPeriod), s.quota()
		resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	return resources
}

// cpuPeriod is the time in microseconds of which a container may run a part, as the kubelet has it.
const cpuPeriod = 100_000

// quota is that part.
func (s Spec) quota() int64 { return int64(s.CPUs * cpuPeriod) }

// controlGroups is where the kernel's control groups are mounted.
const controlGroups = "/sys/fs/cgroup"

// limitsMissingHere is missingLimits for this machine, which is asked once.
var limitsMissingHere = sync.OnceValue(func() error { return missingLimits(controlGroups) })

// missingLimits returns why nobody can make a control group below root that limits memory and CPU,
// nil when one can: it makes one. It runs no container, so that a runtime that fails is not taken
// for a machine without limits.
func missingLimits(root string) error {
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		// A group may limit what its parent hands down.
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory +cpu"),
			0o600); err != nil {
			return err
		}
		return tryGroup(root, "memory.max", "cpu.max")
	}
	return errors.Join(tryGroup(root+"/memory", "memory.limit_in_bytes"),
		tryGroup(root+"/cpu", "cpu.cfs_quota_us"))
}

// tryGroup makes a group, and checks that the kernel puts the files of its limits into it.
func tryGroup(parent string, files ...string) error {
	group, err := os.MkdirTemp(parent, "limits-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(group) }()
	for _, file := range files {
		if _, err := os.Stat(group + "/" + file); err != nil {
			return err
		}
	}
	return nil
}
