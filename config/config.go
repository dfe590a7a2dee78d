// Package config reads, checks and edits the sidecar's configuration file. Without a file, it makes
// the configuration that the VAULT_* variables describe.
//
// What it promises:
//
//   - One error, a Mistakes, lists everything that is wrong, each with its place and with what to
//     write instead.
//   - No message quotes the file, except for keys that the format knows: any other text may be a
//     misplaced credential. Messages say where the text is instead.
//   - A hostile or broken file costs little: its size, depth and keys are bounded before it is
//     parsed.
//   - An edit changes what was meant and nothing else. The edited text is read again and compared
//     before it replaces the file atomically.
//
// How it works. The text is refused early for parts of YAML that the format does without
// (syntax.go), then read key by key (parse.go, connection.go) into the very types that server,
// vault and cache take. Edits go by lines and columns (layout.go), because a YAML writer would lose
// comments and layout.
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
// It consists of the very types that server, vault and cache take, so nothing is copied field by
// field and nothing can be forgotten on the way.
//
// It is made of the very types that the packages take which it is for, so that nothing is copied
// field by field and nothing can be left out on the way.
type Config struct {
	// Settings take effect at once when the file changes.
	server.Settings
	// AtStart takes effect only at a start.
	AtStart
	// LogLevel is the least important level to log; nil leaves it to the command line.
	LogLevel *slog.Level
	// Risks are what is valid and may do what nobody wants, with its place.
	Risks []Mistake

	defaults   server.Connection // a connection that says nothing else
	origins    origins           // where CheckFiles' mistakes stand
	socketPath string            // socket.path as the file gives it; empty when it does not
}

// FileSocketPath returns the socket.path that the file sets; empty when it sets none. Changing
// Socket does not change it.
func (c *Config) FileSocketPath() string { return c.socketPath }

// AtStart is the part of a configuration that a running process cannot change, because it may have
// dropped the right to.
type AtStart struct {
	// Socket is where to listen. Its path is absolute, and the owner's read and write are always in
	// its mode.
	Socket unixsocket.Socket `key:"socket"`
	// Audit is where every request for a secret is logged; the zero value means nowhere.
	Audit Audit `key:"audit"`
	// Hardening is what the process gives up beyond what it always gives up.
	Hardening Hardening `key:"hardening"`
	// Fleet is where the other sidecars are told what was invalidated; the zero value is nowhere.
	Fleet fleet.Config `key:"invalidation"`
	// TracePaths puts the paths of secrets into the spans that are exported.
	TracePaths bool `key:"traces"`
}

// Changed returns the keys of the file in which next differs: they wait for the next start. It
// looks at all fields of the type, so that a field added later is not forgotten.
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
	// HashPaths logs a hash of each path instead of the path.
	HashPaths bool
	// Required refuses a request that cannot be logged.
	Required bool
}

// Hardening is what the process gives up beyond what it always gives up.
type Hardening struct {
	// LockMemory never swaps memory to disk.
	LockMemory Demand
	// Landlock hides the files that the process does not need.
	Landlock Demand
}

// Demand is how much a protection is wanted.
type Demand int

const (
	// DemandNone does not apply it.
	DemandNone Demand = iota
	// DemandTry applies it where the system allows.
	DemandTry
	// DemandRequire refuses to start without it.
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
