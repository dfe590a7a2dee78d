package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFileBytes bounds what a broken or hostile file can cost.
const maxFileBytes = 1 << 20

// LookupEnv looks up an environment variable, like os.LookupEnv.
type LookupEnv = func(name string) (value string, set bool)

// Load reads the configuration file at path, checks it and merges the defaults in. Relative file
// names count from the file's directory. One error, a Mistakes, lists everything that is wrong with
// it; a file that cannot be read is an error that wraps the cause, so that fs.ErrNotExist tells an
// absent one. Load does not open files that the configuration names, because they may appear later.
// See CheckFiles.
func Load(path string, getenv LookupEnv) (*Config, error) {
	cfg, mistakes, err := load(path, getenv)
	if err != nil {
		return nil, err
	}
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// Check is Load and CheckFiles in one: its error, a Mistakes, lists what either finds.
func Check(path string, getenv LookupEnv) (*Config, error) {
	cfg, mistakes, err := load(path, getenv)
	if err != nil {
		return nil, err
	}
	mistakes = append(mistakes, CheckFiles(cfg)...)
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// load returns what could be read of the configuration even when there are mistakes.
func load(path string, getenv LookupEnv) (*Config, Mistakes, error) {
	text, err := readText(path)
	if err != nil {
		return nil, nil, err
	}
	directory, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("find the directory of %s: %w", path, err)
	}
	cfg, mistakes := parse(source{name: path, directory: directory, text: text}, getenv)
	return cfg, mistakes, nil
}

// readText reads at most one byte more than a configuration may have, so that parse can refuse it.
// It does not wait at a pipe that nobody writes to.
func readText(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // #nosec G304 -- the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no config file at %s: %w", path, fs.ErrNotExist)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil,
			fmt.Errorf("read the config file: %w: run as the user who owns it, or give it to "+
				"this one", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the config file: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the config file: %w", err)
	}
	return text, nil
}
