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

// forbidDumping keeps other processes of the same user from reading the memory by ptrace,
// /proc/PID/mem or /proc/PID/environ. The files under /proc/PID belong to root from then on, and
// the process itself may still open its own.
func forbidDumping() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// forbidCoreFiles also covers a core_pattern that ignores whether the process is dumpable.
func forbidCoreFiles() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// forbidNewPrivileges makes setuid programs run without their privileges. The flag belongs to a
// thread, so it is set on all of them. A binary with cgo cannot do that: there it is set on this
// thread, and those that it starts inherit it.
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
