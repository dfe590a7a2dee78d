package server

import (
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// Settings is what a Server can change while it runs. Apply takes it by value and keeps no slice of
// it that the caller may still change.
type Settings struct {
	// Connections are the connections to serve; names are unique.
	Connections []Connection
	// Callers are the rules of who may ask. Nil lets everybody in who may open the socket; an
	// empty, non-nil slice lets nobody in.
	Callers []CallerRule
	// CallerLimits bound what one caller may ask. The zero value is no bound.
	CallerLimits CallerLimits
	// TestHosts lists the names, addresses and networks (CIDR) that TestConnection with a spec may
	// connect to. Nil is any.
	TestHosts []string
	// NoReflection turns server reflection off.
	NoReflection bool
	// Scan remembers by hash what is given out, and lets callers scan texts for it.
	Scan bool
	// CacheBytes bounds the memory of cached secrets, in bytes. Zero is 64 MiB.
	CacheBytes int64
}

// CallerLimits bound what one caller may ask: one process, or all processes of one user where the
// kernel names no pid, because they are in other pid namespaces.
type CallerLimits struct {
	// InFlight bounds the requests in progress; 0 is no bound.
	InFlight int
	// PerSecond bounds the secrets asked for in a second; 0 is no bound. After a pause a batch of
	// 256 fits, even when that is more.
	PerSecond int
}

// Connection is one Vault that secrets can be read from.
type Connection struct {
	// Name is what requests call it; unique.
	Name string
	// Aliases are other names that requests may use, unique among all names and aliases.
	Aliases []string
	// Scope tells who may use it. The zero value is refused by Apply.
	Scope Scope
	// ProjectIDs are the projects that may use it, for ScopeProject.
	ProjectIDs []string
	// Paths are what may be read: a reference has to match one. Empty is any.
	Paths []PathPattern
	// Required makes the overall health wait for this connection's first login.
	Required bool
	// Timeout bounds one operation against Vault, waiting for a login included; 0 is 10 s.
	Timeout time.Duration
	// Vault is which Vault it is, and whom to log in as. A change of it, and of nothing else, costs
	// a new login and what the connection has cached.
	Vault conn.Settings
	// Policy is how its secrets are cached.
	Policy cache.Policy
}

// Scope tells which projects may use a connection.
type Scope int

// A connection's scope fails closed: whoever is not named may not use it.
const (
	// ScopePlatform is every project, and requests without one.
	ScopePlatform Scope = iota + 1
	// ScopeProject is the connection's ProjectIDs alone.
	ScopeProject
)

// String returns the scope as a configuration spells it, or "" for the zero value.
func (s Scope) String() string {
	switch s {
	case ScopePlatform:
		return "platform"
	case ScopeProject:
		return "project"
	}
	return ""
}

// CallerRule lets processes that match it call what it names. Rules add up: one that allows is
// enough.
type CallerRule struct {
	// UID and GID must both match where both are given. GID matches the primary group and the
	// supplementary ones. A rule with neither matches nobody.
	UID, GID *uint32
	// Connections that may be used, by name or alias; empty is any.
	Connections []string
	// Projects that may be named; empty is any, and none. With projects, a request without one is
	// refused, and so is a method that carries none, unless Methods names it.
	Projects []string
	// Paths are what may be read: a reference has to match one. Empty is any.
	Paths []PathPattern
	// Methods that may be called, for example "Resolve"; empty is any but "Scan" and
	// "TestConnectionSpec", which is TestConnection with a spec. Those have to be named.
	// "RenewLogin" is Invalidate with renew_login; a rule with Projects or Paths has to name it for a
	// connection that others use.
	Methods []string
}
