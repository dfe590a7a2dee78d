package config

import (
	"math"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// The keys that the format knows, by mapping.
var (
	rootKeys = []string{
		"socket", "callers", "caller_limits", "test_connection", "audit", "reflection", "hardening",
		"log", "traces", "scan", "cache", "defaults", "connections", "invalidation",
	}
	socketKeys       = []string{"path", "mode", "group"}
	callerKeys       = []string{"uid", "gid", "connections", "projects", "paths", "methods"}
	limitKeys        = []string{"in_flight", "per_second"}
	testKeys         = []string{"allow"}
	auditKeys        = []string{"file", "format", "hash_paths", "required"}
	hardeningKeys    = []string{"lock_memory", "landlock"}
	logKeys          = []string{"level"}
	traceKeys        = []string{"paths"}
	scanKeys         = []string{"enabled"}
	cacheKeys        = []string{"max_bytes"}
	defaultsKeys     = []string{"cache", "timeout"}
	policyKeys       = []string{"ttl", "max_stale", "negative_ttl", "refresh_ahead"}
	tlsKeys          = []string{"ca_file", "server_name", "client_cert_file", "client_key_file"}
	authKeys         = []string{"method", "mount", "namespace", "role", "token_file"}
	invalidationKeys = []string{"redis"}
	redisKeys        = []string{"url", "password_file", "ca_file", "stream"}
	connectionKeys   = []string{
		"name", "aliases", "scope", "project_ids", "paths", "address", "namespace", "auth",
		"auth_mount",
		"role_id", "role_id_file", "role_id_env", "secret_id", "secret_id_file", "secret_id_env",
		"secret_id_wrapped", "bind_secret_id", "tls", "required", "timeout", "max_waiting", "cache",
	}
	allKeys = slices.Concat(rootKeys, socketKeys, callerKeys, limitKeys, testKeys, auditKeys,
		hardeningKeys, logKeys, traceKeys, scanKeys, cacheKeys, defaultsKeys, policyKeys, tlsKeys,
		authKeys, invalidationKeys, redisKeys, connectionKeys)
)

// methods are the RPCs that a caller rule may name. TestConnection with a spec is a method of its
// own, and so is Invalidate with renew_login.
var methods = []string{"Resolve", "BatchResolve", "TestConnection", "TestConnectionSpec",
	"Invalidate", "RenewLogin", "ListConnections", "Scan", "Watch"}

// reader builds a Config from one file.
type reader struct {
	notes
	directory string
	getenv    LookupEnv
	origins   origins
	names     map[string]int // line of each connection's name, and of its aliases
}

func newConfig() *Config {
	return &Config{Settings: server.Settings{CacheBytes: defaultCacheBytes},
		AtStart: AtStart{Socket: defaultSocket()}}
}

// parse reads as much as it can of src, to find all mistakes at once. The Config is complete only
// when there are none.
func parse(src source, getenv LookupEnv) (*Config, Mistakes) {
	cfg := newConfig()
	node, mistake := src.root()
	if mistake != nil {
		return cfg, Mistakes{*mistake}
	}
	r := &reader{notes: notes{file: src.name}, directory: src.directory, getenv: getenv,
		origins: origins{}, names: map[string]int{}}
	top := value{notes: &r.notes, node: node}
	if node == nil || top.isNull() {
		top.mistake(`the file is empty: write "connections:" and at least one connection`)
		return cfg, r.mistakes
	}
	root := top.mapping(rootKeys...)
	if !root.valid {
		return cfg, r.mistakes
	}
	cfg.Socket = r.socket(root.at("socket"))
	if _, given := r.origins["socket.path"]; given {
		cfg.socketPath = cfg.Socket.Path
	}
	cfg.CacheBytes = root.at("cache").mapping(cacheKeys...).at("max_bytes").size(cfg.CacheBytes)
	cfg.defaults = r.defaults(root.at("defaults"))
	// A misspelled key is reported already.
	if list := root.at("connections"); list.present() || !root.meant["connections"] {
		cfg.Connections = r.connections(list, cfg.defaults)
	}
	cfg.Callers = r.callers(root.at("callers"))
	cfg.CallerLimits = root.at("caller_limits").callerLimits()
	cfg.TestHosts = root.at("test_connection").testHosts()
	cfg.Audit = r.audit(root.at("audit"))
	cfg.Hardening = root.at("hardening").hardening()
	cfg.LogLevel = root.at("log").mapping(logKeys...).at("level").logLevel()
	cfg.TracePaths = root.at("traces").mapping(traceKeys...).at("paths").boolean(false)
	cfg.Scan = root.at("scan").mapping(scanKeys...).at("enabled").boolean(false)
	cfg.NoReflection = !root.at("reflection").boolean(true)
	cfg.Fleet = r.fleet(root.at("invalidation"))
	cfg.origins, cfg.Risks = r.origins, r.risks
	return cfg, r.mistakes
}

func (r *reader) socket(v value) unixsocket.Socket {
	m, socket := v.mapping(socketKeys...), defaultSocket()
	if path := m.at("path"); path.present() {
		r.origins[path.path] = path.origin()
		socket.Path = path.socketPath()
	}
	socket.Mode = m.at("mode").mode(socket.Mode)
	group := m.at("group")
	r.origins[group.path] = group.origin()
	socket.Group = group.text(socket.Group)
	return socket
}

func (v value) socketPath() string {
	path := v.filledText()
	switch {
	case path == "":
	case !filepath.IsAbs(path):
		v.mistake("must be an absolute path, such as %s", DefaultSocketPath)
	case len(path) > unixsocket.MaxPath:
		v.mistake("has %d bytes, Linux allows %d: choose a shorter path", len(path),
			unixsocket.MaxPath)
	}
	return path
}

func (r *reader) callers(v value) []server.CallerRule {
	switch {
	case !v.present():
		return nil
	case v.isNull():
		v.mistake("has no rules: write [] to refuse everybody, or remove the key to let " +
			"everybody in who can open the socket")
		return nil
	}
	callers := []server.CallerRule{}
	for _, entry := range v.list() {
		callers = append(callers, r.caller(entry.mapping(callerKeys...)))
	}
	return callers
}

func (r *reader) caller(m mapping) server.CallerRule {
	if !m.valid {
		return server.CallerRule{}
	}
	caller := server.CallerRule{
		UID:         m.at("uid").id("id -u NAME prints"),
		GID:         m.at("gid").id("getent group NAME prints"),
		Connections: m.at("connections").texts(),
		Projects:    m.at("projects").texts(),
		Paths:       m.at("paths").pathPatterns(),
		Methods:     m.at("methods").texts(),
	}
	if !m.anyMeant("uid", "gid") {
		m.mistake("a rule needs uid, gid or both: without them it matches nobody")
	}
	m.at("connections").eachUnknown(caller.Connections, "no connection has this name",
		func(name string) bool {
			_, known := r.names[name]
			return known
		})
	m.at("methods").eachUnknown(caller.Methods,
		"no such method: the methods are Resolve, BatchResolve, TestConnection, "+
			"TestConnectionSpec, Invalidate, RenewLogin, ListConnections, Scan, Watch",
		func(name string) bool { return slices.Contains(methods, name) })
	return caller
}

// eachUnknown reports message at every entry of the list that is not known.
func (v value) eachUnknown(texts []string, message string, known func(string) bool) {
	if len(texts) == 0 {
		return
	}
	for i, entry := range v.list() {
		if texts[i] != "" && !known(texts[i]) {
			entry.mistake("%s", message)
		}
	}
}

// pathPatterns reads a list of patterns. Where one is wrong it notes why.
func (v value) pathPatterns() []server.PathPattern {
	texts := v.texts()
	if texts == nil {
		return nil
	}
	entries, patterns := v.list(), make([]server.PathPattern, len(texts))
	for i, text := range texts {
		pattern, err := server.ParsePathPattern(text)
		if err != nil && text != "" { // an empty text is noted already
			entries[i].mistake("%s", err)
		}
		patterns[i] = pattern
	}
	return patterns
}

// unmapped is Linux's overflow id: that of every user and group which a user namespace does not map.
const unmapped = 65534

// id reads a user's or group's number; nil when it is absent. The highest number means "no change"
// to Linux, and is refused.
func (v value) id(printed string) *uint32 {
	if !v.present() {
		return nil
	}
	if _, isText := v.node.(*ast.StringNode); isText {
		v.mistake("want a whole number from 0 to %d, without quotes: write the number that %s",
			uint32(math.MaxUint32-1), printed)
		return nil
	}
	id := uint32(v.integer(0, 0, math.MaxUint32-1)) // #nosec G115 -- bounded
	if id == unmapped {
		v.risk("is also what the kernel calls everybody whom the sidecar's user namespace does not map: give the caller another id")
	}
	return &id
}

// defaults returns a connection that says nothing else.
func (r *reader) defaults(v value) server.Connection {
	m, connection := v.mapping(defaultsKeys...), defaultConnection()
	connection.Timeout = m.at("timeout").duration(connection.Timeout, 1)
	connection.Policy = m.at("cache").policy(connection.Policy)
	return connection
}

func (v value) policy(fallback cache.Policy) cache.Policy {
	m := v.mapping(policyKeys...)
	fallback.TTL = m.at("ttl").duration(fallback.TTL, 1)
	fallback.MaxStale = m.at("max_stale").duration(fallback.MaxStale, 0)
	fallback.NegativeTTL = m.at("negative_ttl").duration(fallback.NegativeTTL, 0)
	fallback.RefreshAhead = m.at("refresh_ahead").duration(fallback.RefreshAhead, 0)
	return fallback
}
