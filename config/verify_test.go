package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	everyOther = `socket: {path: /tmp/s.sock}
callers: [{uid: 1}]
caller_limits: {in_flight: 1}
test_connection: {allow: [vault]}
audit: {file: /tmp/audit}
reflection: true
scan: {enabled: true}
hardening: {lock_memory: try}
log: {level: info}
traces: {paths: true}
cache: {max_bytes: 1MiB}
invalidation: {redis: {url: "redis://a"}}
defaults: {timeout: 2s}
connections:
`
	entryOfA = `  - {name: a, scope: platform, address: "http://a", role_id: r, secret_id: s}` +
		"\n"
	everyKey = everyOther + entryOfA
)

func TestAnEditThatWouldChangeAnythingElseIsRefused(t *testing.T) {
	changes := map[string]struct{ from, to string }{
		"socket":          {"/tmp/s.sock", "/tmp/t.sock"},
		"callers":         {"uid: 1", "uid: 2"},
		"caller_limits":   {"in_flight: 1", "in_flight: 2"},
		"test_connection": {"[vault]", "[other]"},
		"audit":           {"/tmp/audit", "/tmp/other"},
		"reflection":      {"reflection: true", "reflection: false"},
		"scan":            {"enabled: true", "enabled: false"},
		"hardening":       {"lock_memory: try", "lock_memory: require"},
		"log":             {"level: info", "level: debug"},
		"traces":          {"paths: true", "paths: false"},
		"cache":           {"1MiB", "2MiB"},
		"invalidation":    {"redis://a", "redis://b"},
		"defaults":        {"timeout: 2s", "timeout: 3s"},
		"connections":     {"http://a", "http://b"},
	}
	for _, key := range rootKeys {
		if _, covered := changes[key]; !covered {
			t.Errorf("no change of %s is tried", key)
		}
	}
	changes["a connection's credentials"] = struct{ from, to string }{"secret_id: s",
		"secret_id: t"}
	changes["a connection's ttl"] = struct{ from, to string }{"secret_id: s",
		"secret_id: s, cache: {ttl: 1m}"}
	changes["a connection that goes"] = struct{ from, to string }{entryOfA, ""}
	before, err := parseForEdit("config.yaml", everyKey)
	if err != nil {
		t.Fatal(err)
	}
	const added = `  - {name: new, scope: platform, address: "http://n", role_id: r, secret_id: s}` + "\n"
	other, err := parseForEdit("config.yaml", everyKey+added)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(other.Connections)
	if err := verify("config.yaml", everyKey+added, true, before, want); err != nil {
		t.Errorf("the edit alone: %v", err)
	}
	for name, change := range changes {
		text := strings.Replace(everyKey, change.from, change.to, 1) + added
		if err := verify("config.yaml", text, true, before, want); !errors.Is(err, errLayout) {
			t.Errorf("%s changes too: %v", name, err)
		}
	}
}
