package unixsocket_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestWhatIsNoPathIsNoSocket(t *testing.T) {
	for _, text := range []string{
		"", "@foo", "\x00foo", "unix-abstract:foo", "unix-abstract:/foo", "unix:/run/s.sock", "unix:///run/s.sock",
		"http://localhost:1", "dns:///x", "vsock:1:2", "/run/",
	} {
		if err := unixsocket.CheckPath(text); !errors.Is(err, unixsocket.ErrConfig) {
			t.Errorf("%q is taken: %v", text, err)
		}
	}
	for _, path := range []string{"/run/s.sock", "s", "./a:b", "dir/a:b", "/a@b", "./@foo"} {
		if err := unixsocket.CheckPath(path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestASocketWhoseDirectoryOthersMayWriteIsExposed(t *testing.T) {
	for name, test := range map[string]struct {
		mode, above fs.FileMode
		uid         int
		exposed     bool
	}{
		"private":                       {0o700, 0o755, 0, false},
		"open to a group to read":       {0o750, 0o755, 0, false},
		"open to all to read":           {0o755, 0o755, 0, false},
		"writable by all":               {0o777, 0o755, 0, true},
		"writable by all, sticky":       {0o777 | fs.ModeSticky, 0o755, 0, true},
		"writable by its group":         {0o770, 0o755, 0, true},
		"private below a shared one":    {0o700, 0o777, 0, true},
		"private below a temporary one": {0o700, 0o777 | fs.ModeSticky, 0, false},
		"of another user":               {0o700, 0o755, 4711, true},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getuid() != 0 && test.uid != 0 {
				t.Skip("only root may give a directory away")
			}
			above := filepath.Join(shortTempDir(t), "a")
			own := filepath.Join(above, "b")
			err := errors.Join(os.MkdirAll(own, 0o700), os.Chmod(own, test.mode), os.Chmod(above, test.above))
			if test.uid != 0 {
				err = errors.Join(err, os.Chown(own, test.uid, -1))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := unixsocket.Exposed(filepath.Join(own, "s.sock")); errors.Is(err, unixsocket.ErrExposed) != test.exposed {
				t.Errorf("exposed: %v", err)
			}
		})
	}
	if err := unixsocket.Exposed(filepath.Join(shortTempDir(t), "absent", "s.sock")); err != nil {
		t.Errorf("a directory that will be made: %v", err)
	}
}
