package config_test

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func noEnv(string) (string, bool) { return "", false }

func env(variables map[string]string) config.LookupEnv {
	return func(name string) (string, bool) {
		text, set := variables[name]
		return text, set
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Load(write(t, text), noEnv)
	if err != nil {
		t.Fatalf("Load: %v\n%s", err, text)
	}
	return cfg
}

const minimal = `connections:
  - name: prod
    scope: platform
    address: https://vault.example:8200
    role_id: role
    secret_id: secret
`

func TestLoadMergesTheDefaultsIn(t *testing.T) {
	cfg := load(t, minimal)

	want := server.Connection{
		Name: "prod", Scope: server.ScopePlatform, Required: true, Timeout: 10 * time.Second,
		Vault: conn.Settings{Endpoint: vault.Endpoint{Address: "https://vault.example:8200"},
			Role: login.Role{
				AuthMount: "approle",
				RoleID:    login.Credential{Value: redact.New("role")},
				SecretID:  login.Credential{Value: redact.New("secret")},
			}},
		Policy: cache.Policy{
			TTL: time.Hour, MaxStale: time.Hour, NegativeTTL: 10 * time.Second,
			RefreshAhead: 5 * time.Minute, MaxWaiting: 10000,
		},
	}
	if len(cfg.Connections) != 1 || !reflect.DeepEqual(cfg.Connections[0], want) {
		t.Errorf("connections: %+v\nwant %+v", cfg.Connections, want)
	}
	if want := (unixsocket.Socket{Path: "/run/secret-sidecar/sidecar.sock",
		Mode: 0o600}); cfg.Socket != want {
		t.Errorf("socket %+v, want %+v", cfg.Socket, want)
	}
	if cfg.Callers != nil || cfg.CacheBytes != 64<<20 {
		t.Errorf("callers %v, cache %v", cfg.Callers, cfg.CacheBytes)
	}
}

func TestLoadReadsEveryKey(t *testing.T) {
	path := write(t, `
socket: {path: /tmp/s.sock, mode: "0660", group: workers}
callers:
  - uid: 1000
    gid: 0
    connections: [prod]
    projects: [p1, p2]
    paths: ["flows/data/{project_id}/*"]
    methods: [Resolve, BatchResolve]
cache: {max_bytes: 1GiB}
defaults: {cache: {ttl: 2h, max_stale: 3h}, timeout: 20s}
connections:
  - name: prod
    aliases: [Vault-1, q8Zk3]
    scope: project
    project_ids: [p1]
    paths: ["flows/data/**", secret/data/shared/key]
    address: https://vault.example:8200/
    namespace: team-a/sub/
    auth_mount: team/approle
    role_id_env: ROLE
    secret_id_file: creds/secret_id
    secret_id_wrapped: true
    tls: {ca_file: /ca.pem, server_name: vault, client_cert_file: c.pem, client_key_file: k.pem}
    required: false
    timeout: 5s
    max_waiting: 7
    cache: {ttl: 15m}
`)
	cfg, err := config.Load(path, env(map[string]string{"ROLE": "role\n"}))
	if err != nil {
		t.Fatal(err)
	}
	directory := filepath.Dir(path)
	want := server.Connection{
		Name: "prod", Aliases: []string{"Vault-1", "q8Zk3"}, Scope: server.ScopeProject,
		ProjectIDs: []string{"p1"},
		Paths:      patterns(t, "flows/data/**", "secret/data/shared/key"), Timeout: 5 * time.Second,
		Vault: conn.Settings{
			Endpoint: vault.Endpoint{Address: "https://vault.example:8200", Namespace: "team-a/sub",
				TLS: vault.TLS{
					CAFile: "/ca.pem", ServerName: "vault",
					ClientCertFile: filepath.Join(directory, "c.pem"),
					ClientKeyFile:  filepath.Join(directory, "k.pem"),
				}},
			Role: login.Role{
				AuthMount: "team/approle", RoleID: login.Credential{Value: redact.New("role")},
				SecretID: login.Credential{File: filepath.Join(directory, "creds",
					"secret_id")},
				SecretIDWrapped: true,
			},
		},
		Policy: cache.Policy{
			TTL: 15 * time.Minute, MaxStale: 3 * time.Hour, NegativeTTL: 10 * time.Second,
			RefreshAhead: 5 * time.Minute, MaxWaiting: 7,
		},
	}
	if !reflect.DeepEqual(cfg.Connections, []server.Connection{want}) {
		t.Errorf("connection %+v\nwant %+v", cfg.Connections, want)
	}
	uid, gid := uint32(1000), uint32(0)
	callers := []server.CallerRule{{UID: &uid, GID: &gid, Connections: []string{"prod"},
		Projects: []string{"p1", "p2"}, Paths: patterns(t, "flows/data/{project_id}/*"),
		Methods: []string{"Resolve", "BatchResolve"}}}
	if !reflect.DeepEqual(cfg.Callers, callers) {
		t.Errorf("callers %+v", cfg.Callers)
	}
	if want := (unixsocket.Socket{Path: "/tmp/s.sock", Mode: 0o660,
		Group: "workers"}); cfg.Socket != want || cfg.CacheBytes != 1<<30 {
		t.Errorf("socket %+v, cache %+v", cfg.Socket, cfg.CacheBytes)
	}
}

func patterns(t *testing.T, texts ...string) []server.PathPattern {
	t.Helper()
	all := make([]server.PathPattern, len(texts))
	for i, text := range texts {
		var err error
		if all[i], err = server.ParsePathPattern(text); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestValuesThatAreAccepted(t *testing.T) {
	connection := func(line string) string { return with(line) }
	tests := []struct {
		name, text string
		got        func(*config.Config) any
		want       any
	}{
		{"a mode in quotes", `socket: {mode: "0640"}` + "\n" + minimal, func(c *config.Config) any { return c.Socket.Mode }, fs.FileMode(0o640)},
		{"a bare mode", "socket: {mode: 0660}\n" + minimal, func(c *config.Config) any { return c.Socket.Mode }, fs.FileMode(0o660)},
		{"a mode in YAML's octal", "socket: {mode: 0o660}\n" + minimal, func(c *config.Config) any { return c.Socket.Mode }, fs.FileMode(0o660)},
		{"a mode without the zero", "socket: {mode: 660}\n" + minimal, func(c *config.Config) any { return c.Socket.Mode }, fs.FileMode(0o660)},
		{"plain bytes", "cache: {max_bytes: 1000}\n" + minimal, func(c *config.Config) any { return c.CacheBytes }, int64(1000)},
		{"KiB", "cache: {max_bytes: 2KiB}\n" + minimal, func(c *config.Config) any { return c.CacheBytes }, int64(2048)},
		{"kB", "cache: {max_bytes: 2 kB}\n" + minimal, func(c *config.Config) any { return c.CacheBytes }, int64(2000)},
		{"MB", "cache: {max_bytes: 2MB}\n" + minimal, func(c *config.Config) any { return c.CacheBytes }, int64(2000000)},
		{"empty callers refuse everybody", "callers: []\n" + minimal, func(c *config.Config) any { return c.Callers }, []server.CallerRule{}},
		{"no connections", "connections: []", func(c *config.Config) any { return len(c.Connections) }, 0},
		{"0 without a unit switches off", connection("cache: {max_stale: 0, negative_ttl: 0s, refresh_ahead: 0}"),
			func(c *config.Config) any {
				return c.Connections[0].Policy
			}, cache.Policy{TTL: time.Hour, MaxWaiting: 10000}},
		{"defaults with nothing in them", "defaults:\n" + minimal, func(c *config.Config) any { return c.Connections[0].Timeout }, 10 * time.Second},
		{"a block text credential", connection("secret_id: |\n      secret"), func(c *config.Config) any { return c.Connections[0].Vault.SecretID.Value.Reveal() }, "secret"},
		{"an IPv6 address", strings.Replace(minimal, "vault.example", "[::1]", 1), func(c *config.Config) any { return c.Connections[0].Vault.Address }, "https://[::1]:8200"},
		{"a byte order mark and CRLF", "\ufeff" + strings.ReplaceAll(minimal, "\n", "\r\n"), func(c *config.Config) any { return c.Connections[0].Name }, "prod"},
		{"no scope is platform", `{"connections": [{"name": "a", "address": "http://v", "role_id": "r", "secret_id": "s"}]}`, func(c *config.Config) any { return c.Connections[0].Scope }, server.ScopePlatform},
		{"JSON", `{"connections": [{"name": "a", "scope": "platform", "address": "http://v", "role_id": "r", "secret_id": "s"}]}`, func(c *config.Config) any { return c.Connections[0].Name }, "a"},
		{"one document with its marker", "---\n" + minimal + "...\n", func(c *config.Config) any { return c.Connections[0].Name }, "prod"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.got(load(t, test.text)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestLoadTellsAnAbsentFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent.yaml")
	_, err := config.Load(path, noEnv)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want fs.ErrNotExist that names %s", err, path)
	}
	if _, err := config.Load(t.TempDir(), noEnv); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory: error %v", err)
	}
}

func TestCostlyFilesAreRefusedQuickly(t *testing.T) {
	const size = 1 << 17
	fill := func(text string) string { return strings.Repeat(text, size/len(text)) }
	for name, text := range map[string]string{
		"more than the limit": strings.Repeat("#", size+1),
		"brackets":            fill("["),
		"braces":              fill("{"),
		"dashes":              fill("- "),
		"keys on one line":    fill("a: "),
		"explicit keys":       fill("? "),
		"tags":                fill("! "),
		"anchors":             fill("&a "),
		"quotes":              fill(`"`),
		"a long key":          fill("a") + ": b",
		"spaces":              fill(" "),
		"keys":                fill("a: b\n"),
		"entries":             fill("- a\n"),
		"a flow mapping":      "{" + fill("a: b,") + "}",
		"flow entries":        "connections: [" + fill("{a: b},") + "]",
		"connections":         "connections:\n" + fill("  - a: b\n"),
		"a flow list":         "[" + fill("a,") + "]",
		"colons":              fill("a:\n "),
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before := threadTime(t)
			_, err := config.Load(write(t, text), noEnv)
			if err == nil {
				t.Error("no error")
			}
			if took := threadTime(t) - before; took > 30*time.Second {
				t.Errorf("took %v of a processor", took)
			}
		})
	}
}

// threadTime is how long a processor has worked for this thread; a busy machine does not lengthen
// it.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func TestNumbersAtTheirLimits(t *testing.T) {
	cfg := load(t, "callers: [{uid: 4294967294}]\n"+minimal+"    max_waiting: 2147483647\n")
	if *cfg.Callers[0].UID != math.MaxUint32-1 ||
		cfg.Connections[0].Policy.MaxWaiting != math.MaxInt32 {
		t.Errorf("uid %d, max_waiting %d", *cfg.Callers[0].UID,
			cfg.Connections[0].Policy.MaxWaiting)
	}
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func TestAPipeThatNobodyWritesToIsAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := config.Load(path, noEnv)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("Load waits for somebody to write")
	}
}
