package config

import (
	"log/slog"
	"math"
	"net/netip"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/server"
)

func (v value) callerLimits() server.CallerLimits {
	m := v.mapping(limitKeys...)
	return server.CallerLimits{
		InFlight:  int(m.at("in_flight").integer(0, 0, math.MaxInt32)),
		PerSecond: int(m.at("per_second").integer(0, 0, math.MaxInt32)),
	}
}

func (v value) testHosts() []string {
	allow := v.mapping(testKeys...).at("allow")
	hosts := allow.texts()
	allow.eachUnknown(hosts,
		"is neither a host nor a network: write vault.example, 10.0.0.7 or 10.0.0.0/8, without scheme, "+
			"port and path", isHostOrNetwork)
	return hosts
}

// isHostOrNetwork leaves the rules of host names to whoever resolves them.
func isHostOrNetwork(text string) bool {
	if _, err := netip.ParsePrefix(text); err == nil {
		return true
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	return !strings.ContainsAny(text, "/:@?#*[] \t")
}

func (r *reader) audit(v value) Audit {
	if !v.present() {
		return Audit{}
	}
	m := v.mapping(auditKeys...)
	if !m.valid {
		return Audit{}
	}
	if format := m.at("format"); format.text("json") != "json" {
		format.mistake("the one format is json")
	}
	file := m.at("file")
	if !file.present() {
		file.mistake("is missing: name the file that lines are appended to")
	}
	return Audit{File: r.file(file), HashPaths: m.at("hash_paths").boolean(false),
		Required: m.at("required").boolean(true)}
}

func (v value) hardening() Hardening {
	m := v.mapping(hardeningKeys...)
	return Hardening{LockMemory: m.at("lock_memory").demand(), Landlock: m.at("landlock").demand()}
}

// logLevel reads the name of a level; nil when there is none.
func (v value) logLevel() *slog.Level {
	if !v.present() {
		return nil
	}
	level, known := logLevels[v.filledText()]
	if !known {
		v.mistake("want debug, info, warn or error; remove the key to leave it to --log-level")
		return nil
	}
	return &level
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn,
	"error": slog.LevelError,
}

func (v value) demand() Demand {
	if !v.present() {
		return DemandNone
	}
	switch v.filledText() {
	case "try":
		return DemandTry
	case "require":
		return DemandRequire
	}
	v.mistake("want try or require; remove the key to do without")
	return DemandNone
}
