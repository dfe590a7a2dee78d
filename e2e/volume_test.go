package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// volume is a ConfigMap or a Secret as the kubelet lays it out: NAME is a link to ..data/NAME, and
// ..data is a link to the directory of the files.
type volume struct {
	sandbox *sandbox
	dir     string
	mode    fs.FileMode
	owner   int // of the files, and so is group; -1 for whoever runs the test
	group   int
	at      int
}

// newVolume makes an empty one.
func (s *sandbox) newVolume(name string) *volume {
	s.t.Helper()
	return s.newVolumeOf(name, 0o600, -1, -1)
}

// newVolumeOf is newVolume for files of another user or group.
func (s *sandbox) newVolumeOf(name string, mode fs.FileMode, owner, group int) *volume {
	s.t.Helper()
	v := &volume{sandbox: s, dir: s.subdirectory(name), mode: mode, owner: owner, group: group}
	v.open(v.dir)
	return v
}

// open lets the group into a directory.
func (v *volume) open(directory string) {
	v.sandbox.t.Helper()
	v.sandbox.must(os.Chown(directory, v.owner, v.group))
	v.sandbox.must(os.Chmod(directory, fs.ModeSetgid|0o755))
}

// swap replaces all files in one step.
func (v *volume) swap(files map[string]string) {
	s := v.sandbox
	s.t.Helper()
	v.at++
	version := fmt.Sprintf("..%d", v.at)
	directory := filepath.Join(v.dir, version)
	s.must(os.Mkdir(directory, 0o700))
	v.open(directory)
	for name, text := range files {
		path := filepath.Join(directory, name)
		s.must(os.WriteFile(path, []byte(text), v.mode))
		s.must(os.Chown(path, v.owner, v.group))
		if err := os.Symlink(filepath.Join("..data", name),
			filepath.Join(v.dir, name)); !os.IsExist(err) {
			s.must(err)
		}
	}
	s.must(os.Symlink(version, filepath.Join(v.dir, "..data_tmp")))
	s.must(os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	if v.at > 1 {
		// as the kubelet does
		s.must(os.RemoveAll(filepath.Join(v.dir, fmt.Sprintf("..%d", v.at-1))))
	}
}

// file is the path of one of the volume's files.
func (v *volume) file(name string) string { return filepath.Join(v.dir, name) }
