package harden

import (
	"errors"
	"fmt"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
)

// systemDirectories are what Go's resolver, its certificate pool and this package read.
var systemDirectories = []string{
	"/etc", "/proc", "/sys/fs/cgroup", "/usr/share/zoneinfo", "/usr/share/ca-certificates",
	"/usr/local/share/ca-certificates", "/var/lib/ca-certificates", "/system/etc/security/cacerts",
}

// landlockVersion is that of Linux 6.2. With an older one a file that may only be read can be
// truncated.
var landlockVersion = landlock.V3

func restrictFiles(directories Directories) error {
	read := slices.Concat(systemDirectories, directories.Read)
	err := landlockVersion.RestrictPaths(
		landlock.RODirs(read...).IgnoreIfMissing(),
		landlock.RWDirs(directories.Write...).IgnoreIfMissing(),
		landlock.RWFiles("/dev/null"),
	)
	if err != nil {
		return fmt.Errorf("this kernel has no Landlock of version 3 (Linux 6.2), "+
			"or it is turned off: %w", err)
	}
	return nil
}

// lockOnFault is MCL_ONFAULT of mlockall(2): memory that is reserved and never used stays free.
const lockOnFault = 4

func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if limit.Cur != unix.RLIM_INFINITY && !hasCapability(unix.CAP_IPC_LOCK) {
		return errors.New("it needs the capability IPC_LOCK, or RLIMIT_MEMLOCK unlimited")
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | lockOnFault)
}

// hasCapability reports whether this process has a capability among the first 32, in effect.
func hasCapability(number int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<number) != 0
}
