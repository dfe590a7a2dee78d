package harden

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// cgroupMemoryLimit returns the memory limit of this process's control group (version 2) in bytes, 0 when there
// is none.
func cgroupMemoryLimit() int64 { return memoryLimit(os.DirFS("/")) }

// memoryLimit is cgroupMemoryLimit with the root folder given. The lowest limit on the way up counts.
func memoryLimit(root fs.FS) int64 {
	group, ok := ownGroup(root)
	if !ok {
		return 0
	}
	const mounted = "sys/fs/cgroup"
	var lowest int64
	for folder := path.Join(mounted, group); strings.HasPrefix(folder, mounted); folder = path.Dir(folder) {
		limit := readLimit(root, path.Join(folder, "memory.max"))
		if limit > 0 && (lowest == 0 || limit < lowest) {
			lowest = limit
		}
	}
	return lowest
}

// ownGroup returns the path of this process's group, from the line "0::/path" of version 2.
func ownGroup(root fs.FS) (string, bool) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		if group, ok := strings.CutPrefix(line, "0::/"); ok {
			return strings.TrimSuffix(group, "\n"), true
		}
	}
	return "", false
}

// readLimit returns 0 for "max", and for a file that is not there: the root group has none.
func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return limit
}
