package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/filewatch"
)

// configSource is where the configuration comes from: a file, or the VAULT_* variables when there
// is no file at the default place.
type configSource struct {
	path   string // of the file; empty when the variables are used
	getenv lookup
	socket string // overrides the file's socket.path; empty does not

	socketFromEnv bool // socket is the variable's
}

// addConfigFlag gives a command its --config.
func addConfigFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("config", config.DefaultPath, "configuration file")
}

// findConfig decides between the file and the variables. A file named on the command line must
// exist.
func (a *app) findConfig(path string, named bool) (configSource, error) {
	source := configSource{path: path, getenv: a.getenv, socket: a.givenSocket(),
		socketFromEnv: a.socket == ""}
	_, err := os.Stat(path)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return source, nil // load finds whatever else is wrong with it
	case named:
		return configSource{},
			usagef("there is no configuration file %s: write it, or name another with --config",
				path)
	}
	if address, _ := a.getenv("VAULT_ADDR"); address == "" {
		return configSource{},
			usagef("nothing is configured: write %s, name another file with --config, "+
				"or set VAULT_ADDR, VAULT_ROLE_ID and VAULT_SECRET_ID_FILE", path)
	}
	source.path = ""
	return source, nil
}

// load reads the configuration. Its error lists every mistake.
func (s configSource) load() (*config.Config, error) {
	loaded, err := s.read()
	if err != nil {
		return nil, usageError{err}
	}
	if s.socket != "" {
		loaded.Socket.Path = s.socket
	}
	return loaded, nil
}

// watcher watches the file from now on; nil when there is none. Make it before load, so that no
// change falls between the two.
func (s configSource) watcher() *filewatch.Watcher {
	if s.path == "" {
		return nil
	}
	return filewatch.New([]string{s.path})
}

// warnOfSocket warns that a forgotten variable overrides the file. It does not warn of the flag,
// which everybody can see.
func (s configSource) warnOfSocket(log *slog.Logger, loaded *config.Config) {
	inFile := loaded.FileSocketPath()
	if s.socketFromEnv && s.socket != "" && inFile != "" && inFile != s.socket {
		log.Warn(socketEnv+" overrides socket.path", "variable", s.socket, "file", inFile)
	}
}

// check is load, and also opens the files that the configuration names.
func (s configSource) check() (*config.Config, error) {
	if s.path != "" {
		loaded, err := config.Check(s.path, s.getenv)
		if err != nil {
			return nil, usageError{err}
		}
		return loaded, nil
	}
	loaded, err := s.load()
	if err != nil {
		return nil, err
	}
	if mistakes := config.CheckFiles(loaded); len(mistakes) > 0 {
		return nil, usageError{mistakes}
	}
	return loaded, nil
}

func (s configSource) read() (*config.Config, error) {
	if s.path == "" {
		return config.FromEnv(s.getenv)
	}
	return config.Load(s.path, s.getenv)
}

// String names the source in the log.
func (s configSource) String() string {
	if s.path == "" {
		return "VAULT_* variables"
	}
	return s.path
}
