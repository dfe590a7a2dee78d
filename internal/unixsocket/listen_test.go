package unixsocket_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestListenMakesTheSocketWithTheModeAskedFor(t *testing.T) {
	for _, test := range []struct {
		name            string
		socket          unixsocket.Socket
		mode, directory fs.FileMode
	}{
		{"private by default", unixsocket.Socket{}, 0o600, 0o700},
		{"mode alone is enough", unixsocket.Socket{Mode: 0o666}, 0o666, 0o700},
		{"a group may enter the directory", unixsocket.Socket{Mode: 0o660, Group: "0"}, 0o660, 0o750},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory := filepath.Join(shortTempDir(t), "run")
			test.socket.Path = filepath.Join(directory, "s.sock")
			listener, err := unixsocket.Listen(test.socket)
			if err != nil {
				t.Fatal(err)
			}
			wantMode(t, test.socket.Path, test.mode)
			wantMode(t, directory, test.directory)
			if err := errors.Join(listener.Close(), listener.Close()); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(test.socket.Path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket outlives its listener: %v", err)
			}
		})
	}
}

func TestListenLeavesAnExistingDirectoryAsItIs(t *testing.T) {
	directory := filepath.Join(shortTempDir(t), "run")
	if err := os.Mkdir(directory, 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: filepath.Join(directory, "s"),
		Group: "0", Mode: 0o660})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	wantMode(t, directory, 0o755)
}

// Kubernetes makes such directories: an emptyDir is of the pod's fsGroup and hands that group on.
func TestInADirectoryThatHandsItsGroupOnTheSocketHasThatGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may give a directory to any group")
	}
	const gid = 65532
	directory := filepath.Join(shortTempDir(t), "run")
	if err := errors.Join(os.Mkdir(directory, 0o777), os.Chown(directory, -1, gid),
		os.Chmod(directory, 0o777|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory, "s")
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: path, Mode: 0o660})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var found unix.Stat_t
	if err := unix.Stat(path, &found); err != nil || found.Gid != gid {
		t.Errorf("the socket is of group %d, want %d: %v", found.Gid, gid, err)
	}
	wantMode(t, path, 0o660)
}

func TestListenRefusesABadSocketSetting(t *testing.T) {
	dir := shortTempDir(t)
	regular := filepath.Join(dir, "file")
	if err := os.WriteFile(regular, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		socket unixsocket.Socket
	}{
		{"no path", unixsocket.Socket{}},
		{"a directory", unixsocket.Socket{Path: filepath.Join(dir, "absent") + "/"}},
		{"an abstract socket", unixsocket.Socket{Path: "@abstract"}},
		{"a path of 108 bytes", unixsocket.Socket{Path: "/" + strings.Repeat("x", 107)}},
		{"a mode with other bits", unixsocket.Socket{Path: filepath.Join(dir, "s"), Mode: fs.ModeSetuid | 0o600}},
		{"an unknown group", unixsocket.Socket{Path: filepath.Join(dir, "s"), Group: "no-such-group"}},
		{"a regular file at the path", unixsocket.Socket{Path: regular}},
		{"a directory below a file", unixsocket.Socket{Path: filepath.Join(regular, "run", "s")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := unixsocket.Listen(test.socket); !errors.Is(err, unixsocket.ErrConfig) {
				t.Errorf("got %v, want ErrConfig", err)
			}
		})
	}
	if kept, err := os.ReadFile(regular); err != nil || string(kept) != "keep me" {
		t.Errorf("the regular file became %q, %v", kept, err)
	}
}

func TestListenLeavesALiveSocketAlone(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	first, err := unixsocket.Listen(unixsocket.Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	if _, err := unixsocket.Listen(unixsocket.Socket{Path: path}); !errors.Is(err,
		unixsocket.ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	wantAlive(t, path)
}

func TestListenLeavesAnotherProgramsSocketAlone(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := unixsocket.Listen(unixsocket.Socket{Path: path}); !errors.Is(err,
		unixsocket.ErrInUse) {
		t.Fatalf("got %v, want ErrInUse", err)
	}
	wantAlive(t, path)
}

func TestListenTakesOverTheSocketOfACrash(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	crashed, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	crashed.SetUnlinkOnClose(false)
	_ = crashed.Close()
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	wantAlive(t, path)
}

func TestClosingLeavesWhatTookTheSocketsPlace(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("precious"), 0o600),
		listener.Close()); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(path); err != nil || string(kept) != "precious" {
		t.Errorf("the file became %q, %v", kept, err)
	}
}

func TestOfManyStartsOnAnAbsentDirectoryOneServesAndTheOthersSayInUse(t *testing.T) {
	for range 20 {
		path := filepath.Join(shortTempDir(t), "a", "b", "s")
		outcomes := make(chan error)
		const starts = 4
		for range starts {
			go func() {
				listener, err := unixsocket.Listen(unixsocket.Socket{Path: path})
				if err == nil {
					t.Cleanup(func() { _ = listener.Close() })
				}
				outcomes <- err
			}()
		}
		serving := 0
		for range starts {
			switch err := <-outcomes; {
			case err == nil:
				serving++
			case !errors.Is(err, unixsocket.ErrInUse):
				t.Errorf("got %v, want ErrInUse", err)
			}
		}
		if serving != 1 {
			t.Errorf("%d serve", serving)
		}
	}
}

// The socket must not be open to others between bind and chmod: strace would show it, a watcher
// could miss it. What can be tested is that the umask is as before and that no wider mode is ever
// needed.
func TestListenLeavesTheUmaskAsItWas(t *testing.T) {
	dir := shortTempDir(t)
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: filepath.Join(dir, "s"),
		Mode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	made := filepath.Join(dir, "made")
	if err := exec.Command("touch", made).Run(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(made)
	if err != nil || info.Mode().Perm()&0o600 != 0o600 {
		t.Errorf("a file made afterwards has mode %v (%v)", info.Mode(), err)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %v, want %v", filepath.Base(path), got, want)
	}
}

func wantAlive(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("nobody answers: %v", err)
	}
	_ = conn.Close()
}

// shortTempDir is a directory whose name leaves room for a socket's.
func shortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ss")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
