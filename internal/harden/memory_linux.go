package harden

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cgroupMemoryLimit returns the memory limit of this process's control group in bytes, 0 when there
// is none.
func cgroupMemoryLimit() int64 { return memoryLimit(os.DirFS("/")) }

// memoryLimit is cgroupMemoryLimit below a given root directory. A group is also bound by the
// groups above it, so the lowest limit on the way up counts.
func memoryLimit(root fs.FS) int64 {
	mounted, group, file, ok := memoryGroup(root)
	if !ok {
		return 0
	}
	var lowest int64
	for dir := path.Join(mounted, group); strings.HasPrefix(dir, mounted); dir = path.Dir(dir) {
		limit := readLimit(root, path.Join(dir, file))
		if limit > 0 && (lowest == 0 || limit < lowest) {
			lowest = limit
		}
	}
	return lowest
}

// memoryGroup returns where the hierarchy with the memory controller is mounted, the group of this
// process in it, and the name of the file with a group's limit. A line of /proc/self/cgroup is
// NUMBER:CONTROLLERS:/GROUP, and that of version 2 names no controllers. Where both versions are
// mounted, memory belongs to the one that names it.
func memoryGroup(root fs.FS) (mounted, group, file string, ok bool) {
	const groups = "sys/fs/cgroup"
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return "", "", "", false
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(parts) != 3:
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			return groups + "/memory", parts[2], "memory.limit_in_bytes", true
		case parts[0] == "0" && parts[1] == "":
			mounted, group, file, ok = groups, parts[2], "memory.max", true
		}
	}
	return mounted, group, file, ok
}

// unlimited is more memory than any machine has. Version 1 says "no limit" by the largest number of
// pages.
const unlimited = 1 << 60

// readLimit returns 0 for no limit. The root group has no such file, and no limit.
func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || limit >= unlimited {
		return 0
	}
	return limit
}
