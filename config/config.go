// Package config reads, checks and edits the sidecar's configuration file, and makes the configuration that
// the VAULT_* variables describe when there is no file.
//
// Its messages never quote what stands in the file, but for the keys that the format knows: any text may be
// a credential at the wrong place. They say where it stands instead.
package config

import (
	"io/fs"
	"log/slog"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const (
	// DefaultPath is where the configuration file is looked for.
	DefaultPath = "/etc/secret-sidecar/config.yaml"
	// DefaultSocketPath is where the sidecar listens.
	DefaultSocketPath = "/run/secret-sidecar/sidecar.sock"
)

// Config is a checked configuration with the defaults merged in. Treat it as read-only.
type Config struct {
	// Socket is where to listen.
	Socket Socket
	// Callers are the rules of who may ask. Nil: there are none, everybody may who can open the socket. An
	// empty, non-nil slice lets nobody in.
	Callers []Caller
	// CallerLimits bound what one caller may ask.
	CallerLimits CallerLimits
	// TestConnection bounds which Vaults a caller may have tested that are not configured.
	TestConnection TestConnection
	// Audit is where each secret that was asked for is written down; nil is nowhere.
	Audit *Audit
	// Hardening is what the process does without, beyond what it always does.
	Hardening Hardening
	// LogLevel is the least important level to log; nil leaves it to the command line.
	LogLevel *slog.Level
	// TracePaths puts the paths of secrets into the spans that are exported.
	TracePaths bool
	// NoReflection refuses clients that ask which services there are.
	NoReflection bool
	// Cache is what all connections share of the cache.
	Cache Cache
	// Connections are in the file's order; their names are unique.
	Connections []Connection

	defaults   Connection // what a connection is when it says nothing else
	origins    origins    // where CheckFiles' mistakes stand
	socketPath string     // socket.path as the file gives it; empty when it does not
}

// FileSocketPath returns the socket.path that the file sets; empty when it sets none. It stays as it is when
// the holder of the Config changes Socket.
func (c *Config) FileSocketPath() string { return c.socketPath }

// Socket is where to listen and who may open it.
type Socket struct {
	// Path is absolute and at most 107 bytes long.
	Path string
	// Mode is the socket's permission bits; the owner's read and write are always among them.
	Mode fs.FileMode
	// Group owns the socket: a name or a number. Empty is the process's own.
	Group string
}

// Caller is one rule of who may ask; at least one of UID and GID is given.
type Caller struct {
	// UID and GID must both match where both are given.
	UID, GID *uint32
	// Connections, Projects and Methods limit what the rule allows; nil is any. They are never empty.
	Connections, Projects, Methods []string
}

// CallerLimits bound what one caller, a process or the processes of one user that cannot be told apart, may ask.
type CallerLimits struct {
	// InFlight bounds the requests in progress; 0 is no bound.
	InFlight int
	// PerSecond bounds the secrets asked for in a second; 0 is no bound.
	PerSecond int
}

// TestConnection bounds which Vaults a caller may have tested that are not configured.
type TestConnection struct {
	// Allow lists hosts, and networks in CIDR notation. Nil is any; it is never empty.
	Allow []string
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

// Cache is what all connections share of the cache.
type Cache struct {
	// MaxBytes bounds the memory of cached secrets; more than 0.
	MaxBytes int64
}

// Connection is one Vault that secrets can be read from.
type Connection struct {
	// Name is made of a-z, 0-9 and "-".
	Name string
	// Scope tells who may use it, never zero.
	Scope Scope
	// ProjectIDs are the projects that may use it: at least one for ScopeProject, nil for ScopePlatform.
	ProjectIDs []string
	// Address is http(s)://host[:port], without a trailing slash.
	Address string
	// Namespace and AuthMount have no slash around them. An empty Namespace is none; AuthMount is never empty.
	Namespace, AuthMount string
	// RoleID is never zero. A zero SecretID is a role that needs none (bind_secret_id=false). Literals can be right, and
	// Files are absolute.
	RoleID, SecretID login.Credential
	// SecretIDWrapped says that SecretID is a response-wrapping token.
	SecretIDWrapped bool
	// TLS is how the server proves itself, and the sidecar to it.
	TLS TLS
	// Required makes the overall health wait for the first login.
	Required bool
	// Timeout bounds one operation against Vault; more than 0.
	Timeout time.Duration
	// MaxWaiting bounds the callers that wait for Vault at the same time; at least 1.
	MaxWaiting int
	// Cache is how its secrets are cached.
	Cache CachePolicy
}

// TLS names files in PEM format by absolute path. The zero value trusts the system's certificate authorities.
type TLS struct {
	// CAFile holds the certificate authorities to trust instead of the system's.
	CAFile string
	// ServerName is the name that the server's certificate must carry; empty is the address's host.
	ServerName string
	// ClientCertFile and ClientKeyFile are set together or not at all.
	ClientCertFile, ClientKeyFile string
}

// CachePolicy is how the secrets of a connection are cached.
type CachePolicy struct {
	// TTL is how long a secret is fresh; more than 0.
	TTL time.Duration
	// MaxStale is how much longer it may be served in an outage; 0 is never.
	MaxStale time.Duration
	// NegativeTTL is how long an absence is remembered; 0 is not at all.
	NegativeTTL time.Duration
	// RefreshAhead is how long before its expiry a secret in use is read again; 0 is never. The cache caps it
	// at a quarter of the TTL.
	RefreshAhead time.Duration
}

// Scope tells which projects may use a connection.
type Scope int

const (
	// ScopePlatform is every project, and requests without one.
	ScopePlatform Scope = iota + 1
	// ScopeProject is the connection's ProjectIDs alone.
	ScopeProject
)

// String returns the scope as the file spells it, or "" for the zero value.
func (s Scope) String() string {
	switch s {
	case ScopePlatform:
		return "platform"
	case ScopeProject:
		return "project"
	}
	return ""
}

func defaultSocket() Socket { return Socket{Path: DefaultSocketPath, Mode: 0o600} }

func defaultCache() Cache { return Cache{MaxBytes: 64 << 20} }

// defaultConnection holds what a connection is when neither it nor `defaults` says otherwise.
func defaultConnection() Connection {
	return Connection{
		AuthMount:  "approle",
		Required:   true,
		Timeout:    10 * time.Second,
		MaxWaiting: 10_000,
		Cache: CachePolicy{
			TTL:          time.Hour,
			MaxStale:     time.Hour,
			NegativeTTL:  10 * time.Second,
			RefreshAhead: 5 * time.Minute,
		},
	}
}
