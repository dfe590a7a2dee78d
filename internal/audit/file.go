package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// openPatience is how long the disk may take to open the file.
const openPatience = 5 * time.Second

// openFile opens the file for appending, and makes it with mode 0600 when it is absent. A disk that
// does not answer keeps a goroutine, not the caller.
func openFile(name string) (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	done := make(chan opened, 1)
	go func() { // ends when the disk answers
		file, err := openRegular(name)
		done <- opened{file, err}
	}()
	patience := time.NewTimer(openPatience)
	defer patience.Stop()
	select {
	case it := <-done:
		return it.file, it.err
	case <-patience.C:
		go func() { // ends when the disk answers
			if late := <-done; late.file != nil {
				_ = late.file.Close()
			}
		}()
		return nil,
			fmt.Errorf("open the audit log: %s is not opened within %v: check that its disk answers",
				name, openPatience)
	}
}

// openRegular refuses all but regular files. What has no end, or is read by somebody else, could
// hold up the sidecar, and a device may act on being opened.
func openRegular(name string) (*os.File, error) {
	if info, err := os.Stat(name); err == nil {
		if err := requireRegular(name, info); err != nil {
			return nil, err
		}
	}
	// It may be another file by now: O_NONBLOCK keeps a FIFO from holding up the open.
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	info, err := file.Stat()
	if err == nil {
		err = requireRegular(name, info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func requireRegular(name string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("open the audit log: %s is %s: name a regular file", name,
		kindOf(info.Mode()))
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}
