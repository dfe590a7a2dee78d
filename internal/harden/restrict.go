package harden

// Folders are what the process may still reach on the file system after RestrictFiles, with all that is below them.
type Folders struct {
	// Read may be read: those of the configuration, of credentials and certificates. What the system's libraries need
	// (/etc, /proc, /sys/fs/cgroup, the system's certificates) is always among them.
	Read []string
	// Write may be written too: those of the socket and of the audit log.
	Write []string
}

// LockMemory keeps the memory of the process, secrets included, from being swapped to disk. It needs CAP_IPC_LOCK or
// an unlimited RLIMIT_MEMLOCK: with less, the process would die once it has grown.
func LockMemory() Step { return Step{Name: "memory_locked", Err: lockMemory()} }

// RestrictFiles takes all files but those in folders away from the process, by Landlock. Files that are open stay
// so. It cannot be undone.
func RestrictFiles(folders Folders) Step {
	return Step{Name: "files_restricted", Err: restrictFiles(folders)}
}
