package config_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func newConnection(name string) server.Connection {
	return server.Connection{Name: name, Scope: server.ScopePlatform, Vault: conn.Settings{
		Endpoint: vault.Endpoint{Address: "https://new:8200"},
		Role: login.Role{RoleID: login.Credential{Value: redact.New("new-role")},
			SecretID: login.Credential{File: "/run/new"}},
	}}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const commented = `# the sidecar of team a
socket: {path: /tmp/s.sock} # here

connections: # all of them
  # production
  - name: prod # do not touch
    scope: platform

    address: https://vault:8200
    role_id: "é"
    bind_secret_id: false # later

  # the sandbox
  - {name: dev, scope: platform, address: "http://v", role_id: r, secret_id: s}
    # belongs to dev
  # the end of the list

# what follows
cache: {max_bytes: 1MiB}
`

const saved = `  - name: new
    scope: platform
    address: https://new:8200
    role_id: new-role
    secret_id_file: /run/new
`

func TestAddConnectionKeepsTheRestOfTheFile(t *testing.T) {
	tests := []struct{ name, before, after string }{
		{"comments and order", commented, strings.Replace(commented, "    # belongs to dev\n", "    # belongs to dev\n"+saved, 1)},
		{"the last key", minimal, minimal + saved},
		{"no line end", strings.TrimSuffix(minimal, "\n"), minimal + saved},
		{"a list that is not indented", "connections:\n- {name: a, scope: platform, address: 'http://v', role_id: r, secret_id: s}\ncache: {}\n",
			"connections:\n- {name: a, scope: platform, address: 'http://v', role_id: r, " +
				"secret_id: s}\n" + strings.ReplaceAll(saved[2:], "\n  ", "\n") + "cache: {}\n"},
		{"an empty list", "connections: [] # none\ncache: {}\n", "connections: # none\n" + saved + "cache: {}\n"},
		{"only comments", "# mine\n", "# mine\nconnections:\n" + saved},
		{"an empty file", "", "connections:\n" + saved},
		{"no connections", "socket: {path: /tmp/s.sock} # mine\n", "socket: {path: /tmp/s.sock} # mine\nconnections:\n" + saved},
		{"no connections and no line end", "cache: {}", "cache: {}\nconnections:\n" + saved},
		{"connections without a value", "connections: # none yet\ncache: {}\n", "connections: # none yet\n" + saved + "cache: {}\n"},
		{"connections that are null", "cache: {}\nconnections: null\n", "cache: {}\nconnections:\n" + saved},
		{"line ends of Windows", strings.ReplaceAll(commented, "\n", "\r\n"),
			strings.ReplaceAll(strings.Replace(commented, "    # belongs to dev\n",
				"    # belongs to dev\n"+saved, 1), "\n", "\r\n")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.before)
			if err := config.AddConnection(path, newConnection("new")); err != nil {
				t.Fatal(err)
			}
			if got := read(t, path); got != test.after {
				t.Errorf("got\n%s\nwant\n%s", got, test.after)
			}
		})
	}
}

func TestAFileWithAMixOfLineEndsIsNotEdited(t *testing.T) {
	before := strings.Replace(minimal, "\n", "\r\n", 1)
	path := write(t, before)
	if err := config.AddConnection(path, newConnection("new")); err == nil ||
		read(t, path) != before {
		t.Errorf("error %v, the file is now\n%q", err, read(t, path))
	}
}

func TestAddConnectionKnowsFlowLists(t *testing.T) {
	for _, before := range []string{
		`{"connections": [{"name": "a", "scope": "platform", "address": "http://v", "role_id": "r", "secret_id": "s"}], "cache": {}}`,
		"connections: [\n  {name: a, scope: platform, address: 'http://v', role_id: r, " +
			"secret_id: s},\n]\n",
		`{"connections": []}`,
	} {
		path := write(t, before)
		if err := config.AddConnection(path, newConnection("new")); err != nil {
			t.Fatalf("%v\n%s", err, before)
		}
		cfg, err := config.Load(path, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		if last := cfg.Connections[len(cfg.Connections)-1]; last.Name != "new" ||
			last.Vault.SecretID.File != "/run/new" {
			t.Errorf("last connection %+v", last)
		}
	}
}

func TestAddConnectionMakesAPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory", "config.yaml")
	connection := newConnection("new")
	connection.Scope, connection.ProjectIDs = server.ScopeProject, []string{"1", "p2"}
	connection.Vault.Namespace, connection.Vault.AuthMount, connection.Vault.SecretIDWrapped = "team", "mount", true
	connection.Vault.RoleID.Value = redact.New("yes: #1")
	connection.Vault.SecretID.File = "relative"
	connection.Vault.TLS = vault.TLS{CAFile: "/ca", ServerName: "n", ClientCertFile: "/c",
		ClientKeyFile: "/k"}
	if err := config.AddConnection(path, connection); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, error %v", info.Mode(), err)
	}
	cfg, err := config.Load(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got := cfg.Connections[0].Vault
	if got.RoleID.Value.Reveal() != "yes: #1" ||
		got.SecretID.File != filepath.Join(working, "relative") ||
		got.TLS != connection.Vault.TLS ||
		strings.Join(cfg.Connections[0].ProjectIDs, " ") != "1 p2" || got.Namespace != "team" ||
		got.AuthMount != "mount" || !got.SecretIDWrapped {
		t.Errorf("connection %+v", got)
	}
}

func TestEditsMakeTheModePrivateAndKeepTheLink(t *testing.T) {
	directory := t.TempDir()
	target, link := filepath.Join(directory, "target.yaml"), filepath.Join(directory, "config.yaml")
	if err := os.WriteFile(target, []byte(minimal), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target.yaml", link); err != nil {
		t.Fatal(err)
	}
	if err := config.AddConnection(link, newConnection("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, error %v", info.Mode(), err)
	}
	if info, err = os.Stat(target); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(directory); len(entries) != 2 {
		t.Errorf("files left behind: %v", entries)
	}
}

func TestEditsThatAreRefusedLeaveTheFileAlone(t *testing.T) {
	bad := newConnection("new")
	bad.Vault.Address = "vault"
	defaulted := minimal + "callers: [{uid: 1, connections: [prod]}]\n"
	tests := []struct {
		name, text, want string
		is               error
		edit             func(path string) error
	}{
		{"a name that exists", minimal, "add connection prod", config.ErrConnectionExists, func(p string) error { return config.AddConnection(p, newConnection("prod")) }},
		{"a name that is an alias", with("aliases: [new]"), "add connection new", config.ErrConnectionExists, func(p string) error { return config.AddConnection(p, newConnection("new")) }},
		{"an alias in the place of a name", with("aliases: [new]"), "", config.ErrConnectionNotFound, func(p string) error { return config.RemoveConnection(p, "new") }},
		{"an alias that a rule names", with("aliases: [new]") + "callers: [{uid: 1, connections: [new]}]\n", "callers[0].connections[0]: no connection has this name", nil, func(p string) error { return config.RemoveConnection(p, "prod") }},
		{"a bad connection", minimal, "address: want http://", nil, func(p string) error { return config.AddConnection(p, bad) }},
		{"a file with mistakes", with("timeout: 5"), "6:14: connections[0].timeout", nil, func(p string) error { return config.AddConnection(p, newConnection("new")) }},
		{"an unknown name", minimal, "", config.ErrConnectionNotFound, func(p string) error { return config.RemoveConnection(p, "new") }},
		{"a name that a rule names", defaulted, "callers[0].connections[0]: no connection has this name", nil, func(p string) error { return config.RemoveConnection(p, "prod") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.text)
			err := test.edit(path)
			if err == nil || !strings.Contains(err.Error(), test.want) ||
				test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v", err)
			}
			if read(t, path) != test.text {
				t.Error("the file changed")
			}
		})
	}
}

func TestEditsDoNotNeedTheSidecarsEnvironment(t *testing.T) {
	path := write(t, with("secret_id_env: ONLY_THE_SIDECAR_HAS_IT", "timeout: 3s")+
		"defaults: {timeout: 1s, cache: {ttl: 1m}}\n")
	if err := config.AddConnection(path, newConnection("new")); err != nil {
		t.Fatal(err)
	}
	if err := config.RemoveConnection(path, "prod"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, path), "connections:\n"+saved+
		"defaults: {timeout: 1s, cache: {ttl: 1m}}\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestANewConnectionIsCheckedWithoutAChange(t *testing.T) {
	path := write(t, minimal)
	if already, err := config.CheckNewConnection(path, newConnection("new")); already != 1 ||
		err != nil {
		t.Errorf("got %d, %v; want 1 connection", already, err)
	}
	if _, err := config.CheckNewConnection(path, newConnection("prod")); !errors.Is(err,
		config.ErrConnectionExists) {
		t.Errorf("a name that is there: %v", err)
	}
	if read(t, path) != minimal {
		t.Error("the file changed")
	}
	absent := filepath.Join(t.TempDir(), "directory", "config.yaml")
	if already, err := config.CheckNewConnection(absent, newConnection("new")); already != 0 ||
		err != nil {
		t.Errorf("an absent file: %d, %v", already, err)
	}
	if _, err := os.Stat(filepath.Dir(absent)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the check made the directory: %v", err)
	}
}

func TestRemoveConnectionKeepsTheRestOfTheFile(t *testing.T) {
	const sandbox = "  # the sandbox\n  - {name: dev, scope: platform, address: \"http://v\", " +
		"role_id: r, secret_id: s}\n    # belongs to dev\n"
	production := commented[strings.Index(commented, "  # production"):strings.Index(commented,
		"  # the sandbox")]
	flow := "connections: [{name: a, scope: platform, address: 'http://v', role_id: r, " +
		"secret_id: s}, {name: b, scope: platform, address: 'http://v', role_id: r, secret_id: s}]\n"
	tests := []struct{ name, remove, before, after string }{
		{"the first", "prod", commented, strings.Replace(commented, production, "", 1)},
		{"the last", "dev", commented, strings.Replace(commented, sandbox, "", 1)},
		{"the only one", "prod", minimal + "cache: {}\n", "connections: []\ncache: {}\n"},
		{"the first of a flow list", "a", flow, "connections: [{name: b, scope: platform, address: 'http://v', role_id: r, secret_id: s}]\n"},
		{"the last of a flow list", "b", flow, "connections: [{name: a, scope: platform, address: 'http://v', role_id: r, secret_id: s}]\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.before)
			if err := config.RemoveConnection(path, test.remove); err != nil {
				t.Fatal(err)
			}
			if got := read(t, path); got != test.after {
				t.Errorf("got\n%s\nwant\n%s", got, test.after)
			}
		})
	}
}

func TestRemoveConnectionTellsAnAbsentFile(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "absent")
	if err := config.RemoveConnection(filepath.Join(directory, "config.yaml"), "a"); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(directory); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestSimultaneousEditsAllHappen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	const edits = 20
	var edit sync.WaitGroup
	for i := range edits {
		edit.Go(func() {
			if err := config.AddConnection(path,
				newConnection(fmt.Sprintf("c-%d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	edit.Wait()
	cfg, err := config.Load(path, noEnv)
	if err != nil || len(cfg.Connections) != edits {
		t.Errorf("connections %d, error %v", len(cfg.Connections), err)
	}
}

func TestAnAddedRoleWithoutASecretIDSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	connection := newConnection("new")
	connection.Vault.SecretID = login.Credential{}
	if err := config.AddConnection(path, connection); err != nil {
		t.Fatal(err)
	}
	if text := read(t, path); !strings.Contains(text, "bind_secret_id: false\n") {
		t.Errorf("saved %s", text)
	}
}

func TestAliasesAndPathsAreSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	connection := newConnection("new")
	connection.Aliases, connection.Paths = []string{"q8Zk3"}, patterns(t, "flows/data/{project_id}/**")
	if err := config.AddConnection(path, connection); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	got := cfg.Connections[0]
	if !slices.Equal(got.Aliases, connection.Aliases) || !reflect.DeepEqual(got.Paths, connection.Paths) {
		t.Errorf("saved %s", read(t, path))
	}
}
