package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// scheme is what a target of gRPC's, or a URL, begins with.
var scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:`)

// CheckPath returns an error that wraps ErrConfig for a text that is no path of a socket.
func CheckPath(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%w: the path is empty", ErrConfig)
	case path[0] == '@' || path[0] == 0 || strings.HasPrefix(path, "unix-abstract:"):
		return fmt.Errorf("%w: abstract sockets have no permissions: give a path in a directory", ErrConfig)
	case scheme.MatchString(path):
		return fmt.Errorf("%w: %q is no path: write the socket's path, or unix:///path", ErrConfig, path)
	case strings.HasSuffix(path, "/"):
		return fmt.Errorf("%w: %s names a folder: add the socket's name", ErrConfig, path)
	case len(path) > MaxPath:
		return fmt.Errorf("%w: the path has %d bytes, Linux allows %d: choose a shorter one", ErrConfig, len(path), MaxPath)
	}
	return nil
}

// ErrExposed is wrapped by Exposed's error.
var ErrExposed = errors.New("another user can listen in the sidecar's place, or keep it from listening")

// Exposed returns an error that wraps ErrExposed when another user, root excepted, can put something
// of its own in the place of the socket or of its lock file. A volume that is mounted as the socket's
// directory counts as private: who else may write in it, its mounts say. A directory that is not
// there yet will be private.
func Exposed(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil //nolint:nilerr // Listen says what is wrong
	}
	for directory, own := filepath.Dir(path), true; ; own = false {
		var info unix.Stat_t
		switch err := unix.Stat(directory, &info); {
		case errors.Is(err, fs.ErrNotExist): // it is made, and private
		case err != nil:
			return nil //nolint:nilerr // Listen says what is wrong
		case replaceable(info, own) && !isVolume(directory, info):
			return fmt.Errorf("%w: %s is writable by others than this user: "+
				"use a directory of its own with mode 0700, or 0750 for a group", ErrExposed, directory)
		}
		above := filepath.Dir(directory)
		if above == directory {
			return nil
		}
		directory = above
	}
}

// replaceable reports whether another user can make, or in a directory above the socket's rename,
// what is in the directory. The sticky bit keeps others from renaming, not from being first.
func replaceable(directory unix.Stat_t, own bool) bool {
	const writableByOthers = 0o022
	foreign := directory.Uid != 0 && int(directory.Uid) != os.Geteuid()
	sticky := directory.Mode&unix.S_ISVTX != 0
	return foreign || directory.Mode&writableByOthers != 0 && (own || !sticky)
}

// isVolume reports whether something is mounted at the directory that is not shared by all, as a
// temporary directory is.
func isVolume(directory string, info unix.Stat_t) bool {
	var more unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, directory, 0, 0, &more)
	return err == nil && more.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 && info.Mode&unix.S_ISVTX == 0
}
