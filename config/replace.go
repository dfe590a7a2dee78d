package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// editFile replaces the file at path atomically with what change makes of its content, with mode
// 0600. A symlink stays: its target is replaced. Meanwhile other edits in the same directory wait.
func editFile(path string, change func(text string, exists bool) (string, error)) error {
	target, err := followLinks(path)
	if err != nil {
		return err
	}
	directory := filepath.Dir(target)
	lock, err := lockDirectory(directory)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()

	text, err := readText(target)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return err
	}
	lines, ok := newLineEnds(string(text))
	if !ok {
		return errLayout
	}
	changed, err := change(lines.unix, !absent)
	if err != nil {
		return err
	}
	if err := replaceFile(target, lines.restore(changed)); err != nil {
		return writeError(path, err)
	}
	return nil
}

// followLinks returns the file that path points to; for an absent one, path itself.
func followLinks(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err == nil {
		return target, nil
	}
	// An edit at the same time may have made it meanwhile.
	if info, linkErr := os.Lstat(path); errors.Is(linkErr, fs.ErrNotExist) ||
		linkErr == nil && info.Mode()&fs.ModeSymlink == 0 {
		return path, nil
	}
	return "", fmt.Errorf("find the config file behind the link %s: %w", path, err)
}

// lockDirectory waits for the directory's lock, which closing the directory releases. Locking the
// directory leaves no lock file behind.
func lockDirectory(directory string) (*os.File, error) {
	lock, err := os.Open(directory) // #nosec G304 -- the operator names the file
	if errors.Is(err, fs.ErrPermission) {
		return nil,
			fmt.Errorf("open the directory of the config file: %w: run the command as its owner",
				err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the directory of the config file: %w", err)
	}
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			_ = lock.Close()
			return nil, fmt.Errorf("lock the directory of the config file: %w", err)
		}
	}
}

// replaceFile writes a new file beside target and renames it, so that a reader sees the old content
// or the new, even after a power cut.
func replaceFile(target, text string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(target), ".config-*.tmp") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	keepOwner(file, target)
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), target); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(target))
}

// keepOwner gives the new file to the old one's owner. Only root can do that; for others the owner
// is the same anyway, or changes.
func keepOwner(file *os.File, target string) {
	info, err := os.Stat(target)
	if err != nil {
		return
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = file.Chown(int(stat.Uid), int(stat.Gid))
	}
}

func syncDirectory(directory string) error {
	file, err := os.Open(directory) // #nosec G304 -- the operator names the file
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func writeError(path string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s is on a read-only file system, as a Kubernetes ConfigMap or Secret "+
			"is: change it at its source: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("write %s: no permission: run the command as the owner of its "+
			"directory: %w",
			path, err)
	}
	return fmt.Errorf("write %s: %w", path, err)
}
