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

// hardenProcess applies what every sidecar does without. What cannot be had is logged.
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

// hardenAsAsked applies what the configuration asks for. Its error means that it requires what cannot be had. Call it
// when everything is open that the process opens once.
func hardenAsAsked(log *slog.Logger, settings *config.Config, source configSource) ([]server.Protection, error) {
	var protections []server.Protection
	for _, one := range []struct {
		key    string
		demand config.Demand
		apply  func() harden.Step
	}{
		{"hardening.lock_memory", settings.Hardening.LockMemory, harden.LockMemory},
		{"hardening.landlock", settings.Hardening.Landlock, func() harden.Step { return harden.RestrictFiles(foldersOf(settings, source)) }},
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

// foldersOf returns the folders of all files that the configuration names. Links count twice: a secret of Kubernetes'
// is a link into another folder.
func foldersOf(c *config.Config, source configSource) harden.Directories {
	files := []string{source.path}
	for _, connection := range c.Connections {
		tls := connection.Vault.TLS
		files = append(files, connection.Vault.RoleID.File, connection.Vault.SecretID.File, tls.CAFile, tls.ClientCertFile, tls.ClientKeyFile)
	}
	folders := harden.Directories{Write: []string{filepath.Dir(c.Socket.Path)}}
	files = append(files, c.Fleet.PasswordFile, c.Fleet.CAFile)
	for _, file := range files {
		folders.Read = append(folders.Read, foldersTo(file)...)
	}
	if c.Audit.File != "" {
		folders.Write = append(folders.Write, foldersTo(c.Audit.File)...)
	}
	slices.Sort(folders.Read)
	folders.Read = slices.Compact(folders.Read)
	return folders
}

// foldersTo returns the folder of a file and the one that its links lead to; none for "".
func foldersTo(file string) []string {
	if file == "" {
		return nil
	}
	folders := []string{filepath.Dir(file)}
	if target, err := filepath.EvalSymlinks(file); err == nil {
		folders = append(folders, filepath.Dir(target))
	}
	return folders
}
