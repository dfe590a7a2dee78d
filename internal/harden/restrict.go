package harden

// Directories are what the process may still reach on the file system after RestrictFiles, with all
// that is below them.
type Directories struct {
	// Read may be read: those of the configuration, of credentials and of certificates. What the
	// system's libraries need (/etc, /proc, /sys/fs/cgroup, the system's certificates) is always
	// among them.
	Read []string
	// Write may be read and written: those of the socket and of the audit log.
	Write []string
}

// LockMemory keeps the memory of the process, secrets included, from being swapped to disk. It
// needs CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK. With less, the process would die once it has
// grown.
func LockMemory() Step { return Step{Name: "memory_locked", Err: lockMemory()} }

// RestrictFiles takes every file outside of these directories away from the process, by Landlock.
// Files that are open stay open. It cannot be undone.
func RestrictFiles(directories Directories) Step {
	return Step{Name: "files_restricted", Err: restrictFiles(directories)}
}
