package smallfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/smallfile"
)

func TestOnlyRegularFilesWithinTheBoundAreRead(t *testing.T) {
	directory := t.TempDir()
	at := func(name string) string { return filepath.Join(directory, name) }
	for name, size := range map[string]int{"empty": 0, "full": 8, "larger": 9} {
		if err := os.WriteFile(at(name), []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file string
		size int
		want error
	}{
		{at("empty"), 0, nil},
		{at("full"), 8, nil},
		{at("larger"), 0, smallfile.ErrTooLarge},
		{directory, 0, smallfile.ErrDirectory},
		{at("pipe"), 0, smallfile.ErrNotRegular},
		{"/dev/zero", 0, smallfile.ErrNotRegular},
		{at("missing"), 0, fs.ErrNotExist},
	} {
		content, err := smallfile.Read(test.file, 8)
		if len(content) != test.size || !errors.Is(err, test.want) {
			t.Errorf("%s: %d bytes, %v; want %d, %v", test.file, len(content), err, test.size,
				test.want)
		}
	}
}
