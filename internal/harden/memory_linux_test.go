package harden

import (
	"testing"
	"testing/fstest"
)

func TestTheLowestMemoryLimitOnTheWayUpCounts(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	tests := map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"own limit in a container": {fstest.MapFS{
			"proc/self/cgroup":         file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("67108864\n"),
		}, 67108864},
		"parent is tighter": {fstest.MapFS{
			"proc/self/cgroup":             file("1:name=systemd:/x\n0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("2000\n"),
			"sys/fs/cgroup/a/memory.max":   file("1000\n"),
		}, 1000},
		"parent without a limit": {fstest.MapFS{
			"proc/self/cgroup":             file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("2000\n"),
			"sys/fs/cgroup/a/memory.max":   file("max\n"),
		}, 2000},
		"no limit": {fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("max\n"),
		}, 0},
		"version 1 on the machine": {fstest.MapFS{
			"proc/self/cgroup": file("5:cpu,cpuacct:/a\n4:memory:/a/b\n1:name=systemd:/a\n"),
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": file("2000\n"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":   file("1000\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     file("9223372036854771712\n"),
		}, 1000},
		"version 1 in a container, which sees no more than its own group": {fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/kubepods/pod1/a\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("3000\n"),
		}, 3000},
		"version 1 has the memory where both are mounted": {fstest.MapFS{
			"proc/self/cgroup": file("0::/a\n4:memory:/a\n"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": file("3000\n"),
		}, 3000},
		"version 1 without a limit": {fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"),
		}, 0},
		"version 1 that is not mounted": {fstest.MapFS{"proc/self/cgroup": file("3:memory:/a\n")}, 0},
		"no cgroups":                    {fstest.MapFS{}, 0},
		"garbage is none": {fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("lots\n"),
		}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := memoryLimit(test.files); got != test.want {
				t.Errorf("limit = %d, want %d", got, test.want)
			}
		})
	}
}

func TestAGivenGOMEMLIMITIsLeftAlone(t *testing.T) {
	given := func(name string) (string, bool) { return "1GiB", name == "GOMEMLIMIT" }
	if limit := LimitMemory(given); limit != 0 {
		t.Errorf("set a limit of %d although one was given", limit)
	}
}
