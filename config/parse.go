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

// The keys that the format knows, by the mapping they stand in.
var (
	rootKeys = []string{
		"socket", "callers", "caller_limits", "test_connection", "audit", "reflection", "hardening", "log", "traces", "cache", "defaults", "connections", "invalidation",
	}
	socketKeys       = []string{"path", "mode", "group"}
	callerKeys       = []string{"uid", "gid", "connections", "projects", "methods"}
	limitKeys        = []string{"in_flight", "per_second"}
	testKeys         = []string{"allow"}
	auditKeys        = []string{"file", "format", "hash_paths", "required"}
	hardeningKeys    = []string{"lock_memory", "landlock"}
	logKeys          = []string{"level"}
	traceKeys        = []string{"paths"}
	cacheKeys        = []string{"max_bytes"}
	defaultsKeys     = []string{"cache", "timeout"}
	policyKeys       = []string{"ttl", "max_stale", "negative_ttl", "refresh_ahead"}
	tlsKeys          = []string{"ca_file", "server_name", "client_cert_file", "client_key_file"}
	invalidationKeys = []string{"redis"}
	redisKeys        = []string{"url", "password_file", "ca_file", "stream"}
	connectionKeys   = []string{
		"name", "scope", "project_ids", "address", "namespace", "auth_mount",
		"role_id", "role_id_file", "role_id_env", "secret_id", "secret_id_file", "secret_id_env",
		"secret_id_wrapped", "bind_secret_id", "tls", "required", "timeout", "max_waiting", "cache",
	}
	allKeys = slices.Concat(rootKeys, socketKeys, callerKeys, limitKeys, testKeys, auditKeys, hardeningKeys, logKeys, traceKeys, cacheKeys, defaultsKeys, policyKeys, tlsKeys, invalidationKeys, redisKeys, connectionKeys)
)

// methods are the RPCs that a caller rule may name. TestConnection with a spec is one of its own.
var methods = []string{"Resolve", "BatchResolve", "TestConnection", "TestConnectionSpec", "Invalidate", "ListConnections"}

// reader makes one Config out of one file.
type reader struct {
	notes
	folder  string
	getenv  LookupEnv
	origins origins
	names   map[string]int // line of each connection's name
}

func newConfig() *Config {
	return &Config{Settings: server.Settings{CacheBytes: defaultCacheBytes}, AtStart: AtStart{Socket: defaultSocket()}}
}

// parse reads as much as it can of src: the Config is complete only when there are no mistakes.
func parse(src source, getenv LookupEnv) (*Config, Mistakes) {
	cfg := newConfig()
	node, mistake := src.root()
	if mistake != nil {
		return cfg, Mistakes{*mistake}
	}
	r := &reader{notes: notes{file: src.name}, folder: src.folder, getenv: getenv, origins: origins{}, names: map[string]int{}}
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
	if list := root.at("connections"); list.present() || !root.meant["connections"] { // a misspelt key is noted already
		cfg.Connections = r.connections(list, cfg.defaults)
	}
	cfg.Callers = r.callers(root.at("callers"))
	cfg.CallerLimits = root.at("caller_limits").callerLimits()
	cfg.TestHosts = root.at("test_connection").testHosts()
	cfg.Audit = r.audit(root.at("audit"))
	cfg.Hardening = root.at("hardening").hardening()
	cfg.LogLevel = root.at("log").mapping(logKeys...).at("level").logLevel()
	cfg.TracePaths = root.at("traces").mapping(traceKeys...).at("paths").boolean(false)
	cfg.NoReflection = !root.at("reflection").boolean(true)
	cfg.Fleet = r.fleet(root.at("invalidation"))
	cfg.origins = r.origins
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
		v.mistake("has %d bytes, Linux allows %d: choose a shorter path", len(path), unixsocket.MaxPath)
	}
	return path
}

func (r *reader) callers(v value) []server.CallerRule {
	switch {
	case !v.present():
		return nil
	case v.isNull():
		v.mistake("has no rules: write [] to refuse everybody, or remove the key to let everybody in who can open the socket")
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
		Methods:     m.at("methods").texts(),
	}
	if !m.anyMeant("uid", "gid") {
		m.mistake("a rule needs uid, gid or both: without them it matches nobody")
	}
	m.at("connections").eachUnknown(caller.Connections, "no connection has this name", func(name string) bool {
		_, known := r.names[name]
		return known
	})
	m.at("methods").eachUnknown(caller.Methods, `no such method: the methods are Resolve, BatchResolve, TestConnection, TestConnectionSpec, Invalidate, ListConnections`,
		func(name string) bool { return slices.Contains(methods, name) })
	return caller
}

// eachUnknown notes message at every entry of the list that is not known.
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

// id reads a user's or group's number, as a command prints it; nil is an absent one. The highest number means "no change"
// to Linux.
func (v value) id(printed string) *uint32 {
	if !v.present() {
		return nil
	}
	if _, isText := v.node.(*ast.StringNode); isText {
		v.mistake("want a whole number from 0 to %d, without quotes: write the number that %s", uint32(math.MaxUint32-1), printed)
		return nil
	}
	id := uint32(v.integer(0, 0, math.MaxUint32-1)) // #nosec G115 -- bounded
	return &id
}

// defaults returns what a connection is when it says nothing else.
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
