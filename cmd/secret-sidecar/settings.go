package main

import (
	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// This file is the one place that knows both the configuration file's structs and those of the packages that
// it configures.

func serverSettings(c *config.Config) server.Settings {
	settings := server.Settings{
		CacheBytes:   c.Cache.MaxBytes,
		CallerLimits: server.CallerLimits(c.CallerLimits),
		TestHosts:    c.TestConnection.Allow,
		NoReflection: c.NoReflection,
	}
	for _, connection := range c.Connections {
		settings.Connections = append(settings.Connections, serverConnection(connection))
	}
	if c.Callers != nil {
		settings.Callers = make([]server.CallerRule, 0, len(c.Callers)) // empty rules let nobody in, nil everybody
	}
	for _, caller := range c.Callers {
		settings.Callers = append(settings.Callers, server.CallerRule(caller))
	}
	return settings
}

func serverConnection(c config.Connection) server.Connection {
	return server.Connection{
		Name:       c.Name,
		Scope:      server.Scope(c.Scope), // numbered alike
		ProjectIDs: c.ProjectIDs,
		Required:   c.Required,
		Vault:      vaultConfig(c),
		Policy: cache.Policy{
			TTL:          c.Cache.TTL,
			MaxStale:     c.Cache.MaxStale,
			NegativeTTL:  c.Cache.NegativeTTL,
			RefreshAhead: c.Cache.RefreshAhead,
			MaxWaiting:   c.MaxWaiting,
		},
	}
}

func vaultConfig(c config.Connection) conn.Config {
	return conn.Config{
		Config:          vault.Config{Address: c.Address, Namespace: c.Namespace, TLS: vaultTLS(c.TLS)},
		Name:            c.Name,
		AuthMount:       c.AuthMount,
		RoleID:          c.RoleID,
		SecretID:        c.SecretID,
		SecretIDWrapped: c.SecretIDWrapped,
		Timeout:         c.Timeout,
	}
}

// newVaultConfig is vaultConfig for a connection that is not in a file yet.
func newVaultConfig(c config.NewConnection) conn.Config {
	return conn.Config{
		Config:    vault.Config{Address: c.Address, Namespace: c.Namespace, TLS: vaultTLS(c.TLS)},
		Name:      c.Name,
		AuthMount: c.AuthMount,
		RoleID:    login.Credential{Value: c.RoleID},
		SecretID:  login.Credential{File: c.SecretIDFile},
	}
}

func vaultTLS(t config.TLS) vault.TLS {
	return vault.TLS{CAFile: t.CAFile, ServerName: t.ServerName, ClientCertFile: t.ClientCertFile, ClientKeyFile: t.ClientKeyFile}
}

func serverSocket(s config.Socket) server.Socket {
	return server.Socket{Path: s.Path, Mode: s.Mode, Group: s.Group}
}
