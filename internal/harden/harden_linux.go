package harden

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func process() []Step {
	return []Step{
		{Name: "not_dumpable", Err: forbidDumping()},
		{Name: "no_core_files", Err: forbidCoreFiles()},
		{Name: "no_new_privileges", Err: forbidNewPrivileges()},
	}
}

// forbidDumping keeps other processes of the same user from reading the memory (ptrace, /proc/PID/mem,
// /proc/PID/environ): the files under /proc/PID belong to root from then on. The process itself may still open
// its own.
func forbidDumping() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// forbidCoreFiles also covers a core_pattern that pays no heed to dumpability.
func forbidCoreFiles() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// forbidNewPrivileges makes setuid programs run without their privileges. The flag belongs to a thread, so it is
// set on all of them; a binary with cgo cannot, there the threads started later inherit it.
func forbidNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	switch {
	case errors.Is(errno, syscall.ENOTSUP):
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	case errno != 0:
		return errno
	}
	return nil
}
