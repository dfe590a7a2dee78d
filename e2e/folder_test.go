package e2e_test

import (
	"io/fs"
	"os"
	"path/filepath"
)

// longestRoot leaves room for a test's folder and its socket below the root: a socket's path has 107 bytes.
const longestRoot = 60

// folderRoot returns where tests make their folders: the temporary folder, unless other users cannot get into it
// or its name is too long for sockets; then another one.
func folderRoot() string {
	for _, root := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if len(root) <= longestRoot && isOpenToAll(root) {
			return root
		}
	}
	return os.TempDir()
}

// isOpenToAll reports whether every user can pass through the folder and all those above it.
func isOpenToAll(folder string) bool {
	const search fs.FileMode = 0o001
	info, err := os.Stat(folder)
	if err != nil || !info.IsDir() || info.Mode()&search == 0 {
		return false
	}
	above := filepath.Dir(folder)
	return above == folder || isOpenToAll(above)
}
