package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/harden"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// hardenProcess applies what every sidecar can do without. It logs what the system does not allow.
func hardenProcess(log *slog.Logger, getenv lookup) []server.Protection {
	var protections []server.Protection
	for _, step := range harden.Process() {
		protections = append(protections, protection(log, step))
	}
	harden.PaceGC(getenv)
	return append(protections, limitMemory(log, getenv))
}

var errNoMemoryLimit = errors.New("the control group sets no memory limit, or GOMEMLIMIT does")

func limitMemory(log *slog.Logger, getenv lookup) server.Protection {
	limit := harden.LimitMemory(getenv)
	if limit == 0 {
		return server.Protection{Name: memoryLimited, Err: errNoMemoryLimit}
	}
	log.Info("memory limit taken from the control group", "bytes", limit)
	return server.Protection{Name: memoryLimited}
}

const memoryLimited = "memory_limited"

// hardenAsAsked applies what the configuration asks for. It fails when a required protection is not
// available. Call it after the process has opened everything that it opens only once.
func hardenAsAsked(log *slog.Logger, settings *config.Config,
	source configSource) ([]server.Protection, error) {
	var protections []server.Protection
	for _, one := range []struct {
		key    string
		demand config.Demand
		apply  func() harden.Step
	}{
		{"hardening.lock_memory", settings.Hardening.LockMemory, harden.LockMemory},
		{"hardening.landlock", settings.Hardening.Landlock, func() harden.Step {
			return harden.RestrictFiles(directoriesOf(settings, source))
		}},
	} {
		if one.demand == config.DemandNone {
			continue
		}
		step := one.apply()
		protections = append(protections, protection(log, step))
		if step.Err != nil && one.demand == config.DemandRequire {
			return nil, fmt.Errorf("%s is required and cannot be had: %w", one.key, step.Err)
		}
	}
	return protections, nil
}

func protection(log *slog.Logger, step harden.Step) server.Protection {
	if step.Err != nil {
		log.Warn("the process could not be hardened", "protection", step.Name, "error", step.Err)
	} else {
		log.Info("the process is hardened", "protection", step.Name)
	}
	return server.Protection(step)
}

// directoriesOf returns the directories of all files that the configuration names. A link counts
// twice: a mounted Kubernetes Secret is a link into another directory.
func directoriesOf(c *config.Config, source configSource) harden.Directories {
	files := []string{source.path}
	for _, connection := range c.Connections {
		tls := connection.Vault.TLS
		files = append(files, connection.Vault.RoleID.File, connection.Vault.SecretID.File,
			connection.Vault.JWT.File,
			tls.CAFile, tls.ClientCertFile, tls.ClientKeyFile)
	}
	files = append(files, c.Fleet.PasswordFile, c.Fleet.CAFile)
	directories := harden.Directories{Write: []string{filepath.Dir(c.Socket.Path)}}
	for _, file := range files {
		directories.Read = append(directories.Read, directoriesTo(file)...)
	}
	if c.Audit.File != "" {
		directories.Write = append(directories.Write, directoriesTo(c.Audit.File)...)
	}
	slices.Sort(directories.Read)
	directories.Read = slices.Compact(directories.Read)
	return directories
}

// directoriesTo returns the directory of a file and the one that its links lead to; none for "".
func directoriesTo(file string) []string {
	if file == "" {
		return nil
	}
	directories := []string{filepath.Dir(file)}
	if target, err := filepath.EvalSymlinks(file); err == nil {
		directories = append(directories, filepath.Dir(target))
	}
	return directories
}
