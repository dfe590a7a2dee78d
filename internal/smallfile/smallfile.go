// Package smallfile reads the files that an operator names: the configuration, credentials,
// certificates. Their names may be wrong, and what is there may be a pipe that nobody writes to, a
// device without an end, or a disk image. So reading never blocks and never takes more memory than
// the caller allows.
package smallfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

var (
	// ErrDirectory means: the name is a directory's.
	ErrDirectory = errors.New("it is a directory")
	// ErrNotRegular means: it is a pipe, a device or a socket. Nothing was read from it.
	ErrNotRegular = errors.New("it is no regular file")
	// ErrTooLarge is wrapped where the file holds more than the caller allows.
	ErrTooLarge = errors.New("it is too large")
)

// Read returns what a regular file holds, most bytes at most. Its errors are the ones of this
// package, or an *fs.PathError.
func Read(name string, most int64) ([]byte, error) {
	// A pipe must not block.
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // #nosec G304 -- the operator names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, ErrDirectory
	case !info.Mode().IsRegular():
		return nil, ErrNotRegular
	}
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(content)) > most:
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrTooLarge, most)
	}
	return content, nil
}
