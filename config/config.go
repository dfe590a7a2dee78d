// Package config reads, checks and edits the sidecar's configuration file, and makes the configuration that
// the VAULT_* variables describe when there is no file.
//
// Its messages never quote what stands in the file, but for the keys that the format knows: any text may be
// a credential at the wrong place. They say where it stands instead.
package config

import (
	"log/slog"
	"reflect"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const (
	// DefaultPath is where the configuration file is looked for.
	DefaultPath = "/etc/secret-sidecar/config.yaml"
	// DefaultSocketPath is where the sidecar listens.
	DefaultSocketPath = "/run/secret-sidecar/sidecar.sock"
)

// Config is a checked configuration with the defaults merged in. Treat it as read-only.
//
// It is made of the very types that the packages take which it is for, so that nothing is copied field by field and
// nothing can be left out on the way.
type Config struct {
	// Settings take effect at once when the file changes.
	server.Settings
	// AtStart takes effect at a start alone.
	AtStart
	// LogLevel is the least important level to log; nil leaves it to the command line.
	LogLevel *slog.Level

	defaults   server.Connection // what a connection is when it says nothing else
	origins    origins           // where CheckFiles' mistakes stand
	socketPath string            // socket.path as the file gives it; empty when it does not
}

// FileSocketPath returns the socket.path that the file sets; empty when it sets none. It stays as it is when
// the holder of the Config changes Socket.
func (c *Config) FileSocketPath() string { return c.socketPath }

// AtStart is the part of a configuration that a running process cannot change: it may have dropped the right to.
type AtStart struct {
	// Socket is where to listen. Its path is absolute, and the owner's read and write are always in its mode.
	Socket unixsocket.Socket `key:"socket"`
	// Audit is where each secret that was asked for is written down; the zero value is nowhere.
	Audit Audit `key:"audit"`
	// Hardening is what the process does without, beyond what it always does.
	Hardening Hardening `key:"hardening"`
	// Fleet is where the other sidecars are told what was invalidated; the zero value is nowhere.
	Fleet fleet.Config `key:"invalidation"`
	// TracePaths puts the paths of secrets into the spans that are exported.
	TracePaths bool `key:"traces"`
}

// Changed returns the keys of the file under which next differs: what has to wait for the next start. It asks the type
// for its fields, so that one which is added later is not forgotten.
func (a AtStart) Changed(next AtStart) []string {
	var keys []string
	now, then := reflect.ValueOf(a), reflect.ValueOf(next)
	for i := range now.NumField() {
		if !now.Field(i).Equal(then.Field(i)) {
			keys = append(keys, now.Type().Field(i).Tag.Get("key"))
		}
	}
	return keys
}

// Audit is where each secret that was asked for is written down.
type Audit struct {
	// File is an absolute path.
	File string
	// HashPaths writes a hash in the place of each path.
	HashPaths bool
	// Required refuses a request that cannot be written down.
	Required bool
}

// Hardening is what the process does without, beyond what it always does.
type Hardening struct {
	// LockMemory keeps the memory from being swapped.
	LockMemory Demand
	// Landlock takes files away that the process does not need.
	Landlock Demand
}

// Demand says how much a protection is wanted.
type Demand int

const (
	// DemandNone leaves it.
	DemandNone Demand = iota
	// DemandTry takes it where it can be had.
	DemandTry
	// DemandRequire does not start without it.
	DemandRequire
)

func defaultSocket() unixsocket.Socket {
	return unixsocket.Socket{Path: DefaultSocketPath, Mode: 0o600}
}

// defaultCacheBytes bounds the memory of cached secrets.
const defaultCacheBytes = 64 << 20

// defaultConnection holds what a connection is when neither it nor `defaults` says otherwise.
func defaultConnection() server.Connection {
	return server.Connection{
		Required: true,
		Timeout:  conn.DefaultTimeout,
		Vault:    conn.Settings{Role: login.Role{AuthMount: "approle"}},
		Policy: cache.Policy{
			TTL:          time.Hour,
			MaxStale:     time.Hour,
			NegativeTTL:  10 * time.Second,
			RefreshAhead: 5 * time.Minute,
			MaxWaiting:   10_000,
		},
	}
}
