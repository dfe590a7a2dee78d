package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrConfig is wrapped by errors of Listen about the path, the mode or the group: the
	// configuration has to change.
	ErrConfig = errors.New("bad socket setting")
	// ErrInUse is wrapped by Listen's error when a running process serves the socket.
	ErrInUse = errors.New("socket is in use")
)

// Socket is where to listen and who may open it.
type Socket struct {
	// Path of the socket, at most 107 bytes.
	Path string
	// Mode is the socket's permission bits. Zero is 0600.
	Mode fs.FileMode
	// Group owns the socket: a name or a number. Empty is the process's own.
	Group string
}

// Listen opens the Unix socket, so that it never appears with wider permissions than asked for. An
// absent directory is made, private (0700, or 0750 and of the group). A lock file beside the socket
// decides who owns it: a socket that a crash left is taken over, one that is served is left alone
// (ErrInUse), and anything else at the path too (ErrConfig). Closing the listener removes the
// socket.
func Listen(socket Socket) (net.Listener, error) {
	gid, err := socket.check()
	if err != nil {
		return nil, err
	}
	if err := socket.makeDirectory(gid); err != nil {
		return nil, err
	}
	lock, err := lockSocket(socket.Path)
	if err != nil {
		return nil, err
	}
	listener, err := socket.bind(gid)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	bound, err := os.Lstat(socket.Path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at the new socket: %w", err), listener.Close(),
			lock.Close())
	}
	return &socketListener{UnixListener: listener, path: socket.Path, bound: bound, lock: lock}, nil
}

// check returns the group's id, or -1 for none.
func (s Socket) check() (gid int, err error) {
	if err := CheckPath(s.Path); err != nil {
		return 0, err
	}
	if s.Mode&^fs.ModePerm != 0 {
		return 0, fmt.Errorf("%w: mode %v holds more than permission bits", ErrConfig, s.Mode)
	}
	if s.Group == "" {
		return -1, nil
	}
	if number, err := strconv.ParseUint(s.Group, 10, 31); err == nil {
		return int(number), nil
	}
	group, err := user.LookupGroup(s.Group)
	if err != nil {
		return 0,
			fmt.Errorf("%w: group %q does not exist on this machine: name one that does, or its "+
				"number", ErrConfig, s.Group)
	}
	return strconv.Atoi(group.Gid)
}

func (s Socket) makeDirectory(gid int) error {
	directory := filepath.Dir(s.Path)
	if _, err := os.Stat(directory); err == nil {
		return nil
	}
	if err := makeParents(filepath.Dir(directory)); err != nil {
		return fmt.Errorf("%w: make the directories above the socket's: %w", ErrConfig, err)
	}
	err := os.Mkdir(directory, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil // another sidecar was quicker; the lock decides between the two
	case err != nil:
		return fmt.Errorf("%w: make the socket's directory: %w", ErrConfig, err)
	case gid < 0:
		return nil
	}
	if err := os.Chown(directory, -1, gid); err != nil {
		return fmt.Errorf("%w: give the socket's directory to group %q: %w", ErrConfig, s.Group,
			err)
	}
	if err := os.Chmod(directory, 0o750); err != nil { // #nosec G302 -- the group has to reach the socket
		return fmt.Errorf("open the socket's directory to its group: %w", err)
	}
	return nil
}

// makeParents makes what is absent of the directories above the socket's, open to all whatever the
// umask: only the last directory is there to keep people out.
func makeParents(directory string) error {
	if _, err := os.Stat(directory); err == nil {
		return nil
	}
	if err := makeParents(filepath.Dir(directory)); err != nil {
		return err
	}
	if err := os.Mkdir(directory, 0o755); err != nil { // #nosec G301 -- see above
		return ignoreExisting(err)
	}
	return os.Chmod(directory, 0o755) // #nosec G302 -- see above
}

func ignoreExisting(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// lockSocket takes the lock that decides who owns the socket. It lasts as long as the file is open,
// and so never outlives the process. The file itself stays: removing it could take it from under a
// successor.
func lockSocket(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC,
		0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: open the lock beside the socket: %w", ErrConfig, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, inUse(path)
		}
		return nil, fmt.Errorf("lock %s.lock: %w", path, err)
	}
	return lock, nil
}

func inUse(path string) error {
	return fmt.Errorf("%w: another sidecar serves %s: stop it, or choose another socket", ErrInUse,
		path)
}

// bind makes the socket with no permissions at all and opens it up when it has its group.
func (s Socket) bind(gid int) (*net.UnixListener, error) {
	if err := clearLeftover(s.Path); err != nil {
		return nil, err
	}
	listener, err := listenClosed(s.Path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", s.Path, err)
	}
	if err := s.open(gid); err != nil {
		_ = listener.Close()
		_ = os.Remove(s.Path)
		return nil, err
	}
	return listener, nil
}

// clearLeftover removes a socket that nobody serves. The lock is ours, so no sidecar does; a
// connection tells whether another program does.
func clearLeftover(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: look at the socket's path: %w", ErrConfig, err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%w: %s exists and is no socket: remove it, or choose another path",
			ErrConfig, path)
	}
	conn, err := tryConnect(path)
	if err == nil {
		_ = conn.Close()
		return inUse(path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w: %s exists and cannot be tried: %w", ErrInUse, path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the socket that a crash left: %w", err)
	}
	return nil
}

func tryConnect(path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}

// umaskMu keeps two Listen calls from mixing up the process's umask.
var umaskMu sync.Mutex

// listenClosed binds under a umask that leaves no permission, so that nobody can connect yet.
func listenClosed(path string) (*net.UnixListener, error) {
	umaskMu.Lock()
	defer umaskMu.Unlock()
	before := unix.Umask(0o777)
	defer unix.Umask(before)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // socketListener removes it, while it holds the lock
	return listener, nil
}

func (s Socket) open(gid int) error {
	if gid >= 0 {
		if err := os.Chown(s.Path, -1, gid); err != nil {
			return fmt.Errorf("%w: give the socket to group %q: %w", ErrConfig, s.Group, err)
		}
	}
	mode := s.Mode
	if mode == 0 {
		mode = 0o600
	}
	if err := os.Chmod(s.Path, mode); err != nil {
		return fmt.Errorf("%w: set the socket's mode: %w", ErrConfig, err)
	}
	return nil
}

// socketListener removes its socket, if it is still there, and gives up its lock when it is closed.
type socketListener struct {
	*net.UnixListener
	path  string
	bound fs.FileInfo
	lock  *os.File
	close sync.Once
}

// Close implements net.Listener. It is safe to call more than once.
func (l *socketListener) Close() error {
	var err error
	l.close.Do(func() {
		err = errors.Join(l.remove(), l.UnixListener.Close(), l.lock.Close())
	})
	return err
}

// remove leaves alone what somebody else has put in the socket's place.
func (l *socketListener) remove() error {
	now, err := os.Lstat(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !os.SameFile(now, l.bound):
		return nil
	}
	return os.Remove(l.path)
}
