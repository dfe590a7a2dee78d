package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/secret-sidecar/secret-sidecar"
	root   = "../.."
)

// The libraries that several rooms may use.
var (
	grpcLibraries = []string{"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto"}
	// The API alone: setting up exporters is internal/telemetry's.
	otelAPI = []string{
		"go.opentelemetry.io/otel", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes",
		"go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/propagation", "go.opentelemetry.io/otel/trace",
	}
)

// rooms says what each part of the project may import beside the standard library. A package belongs to the
// longest name that it begins with; an import is allowed when it is listed, or lies below what is listed with
// "/..." at its end.
var rooms = map[string][]string{
	"gen":                below(grpcLibraries),
	"vault":              slices.Concat(otelAPI, ours("internal/redact", "internal/breaker"), []string{"github.com/hashicorp/vault/api"}),
	"vault/login":        slices.Concat(ours("vault", "internal/redact", "internal/filewatch", "internal/breaker"), []string{"golang.org/x/sync/...", "golang.org/x/time/rate"}),
	"vault/conn":         slices.Concat(ours("vault", "vault/login", "internal/filewatch", "internal/breaker"), []string{"golang.org/x/sync/...", "golang.org/x/time/rate"}),
	"vault/devvault":     {},
	"cache":              slices.Concat(otelAPI, []string{"github.com/dgraph-io/ristretto/v2/...", "golang.org/x/sync/..."}),
	"config":             slices.Concat(ours("internal/redact", "internal/filewatch", "vault/login"), []string{"github.com/goccy/go-yaml/..."}),
	"server":             slices.Concat(ours("gen/...", "cache", "vault", "vault/conn", "vault/login", "internal/audit", "internal/redact"), below(grpcLibraries), otelAPI, serverLibraries),
	"client":             slices.Concat(ours("gen/..."), below(grpcLibraries)),
	"internal/redact":    {},
	"internal/breaker":   {"github.com/cenkalti/backoff/v5"},
	"internal/audit":     {},
	"internal/filewatch": {"github.com/fsnotify/fsnotify"},
	"internal/vaulttest": ours("vault/devvault"),
	"internal":           {"..."},
	"cmd/secret-sidecar": {"..."},
	"e2e":                {"..."},
	"bench":              {"..."},
	"scripts":            {"..."},
}

var (
	serverLibraries = []string{"golang.org/x/sync/...", "golang.org/x/sys/unix", "golang.org/x/time/rate"}
)

// goPackage is the part of `go list -json` that the tests look at.
type goPackage struct {
	ImportPath string
	Imports    []string // of its files, tests left out
	Deps       []string // all that it links, itself left out
}

func TestEveryPackageImportsOnlyWhatItsRoomAllows(t *testing.T) {
	for _, p := range listPackages(t) {
		room, allowed := roomOf(p.ImportPath)
		if room == "" {
			t.Errorf("%s is in no room: give it one in internal/archtest", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !isStandard(imported) && !matches(imported, allowed) {
				t.Errorf("%s may not import %s (room %q)", p.ImportPath, imported, room)
			}
		}
	}
}

// What a package links, however far down, must not hold these.
func TestNothingReachesWhatItMustNotKnow(t *testing.T) {
	cases := []struct {
		rule string
		from []string
		to   []string
	}{
		{"the cache never meets Vault", ours("cache"), ours("vault/...", "server", "config", "gen/...")},
		{"Vault never meets the cache", ours("vault/..."), ours("cache", "server", "config", "gen/...")},
		{"gRPC ends at the server", ours("cache", "vault/...", "config"), below(grpcLibraries)},
		{"the server does not know the configuration file", ours("server"), ours("config", "cmd/...")},
		{"a worker that imports the client gets none of the sidecar", ours("client"), ours("server", "cache", "vault/...", "config", "internal/...")},
		{"internal packages serve the rooms and know none", ours("internal/..."), ours("server", "cache", "config", "client", "cmd/...")},
		{"the product links no test helper", ours("cmd/..."), append(ours("internal/vaulttest", "internal/archtest", "e2e/...", "bench/..."), "go.uber.org/goleak")},
		{"the product links no Vault server", ours("cmd/..."), []string{"github.com/hashicorp/vault", "github.com/hashicorp/vault/sdk/..."}},
	}
	packages := listPackages(t)
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			for _, p := range packages {
				for _, dep := range p.Deps {
					if matches(p.ImportPath, c.from) && matches(dep, c.to) {
						t.Errorf("%s depends on %s", p.ImportPath, dep)
					}
				}
			}
		})
	}
}

// listPackages asks the go command for every package of the modules in go.work.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	openEveryFolder(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "work")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			if len(packages) == 0 {
				t.Fatal("go list found no package")
			}
			return packages
		case err != nil:
			t.Fatalf("read go list's answer: %v", err)
		}
		packages = append(packages, p)
	}
}

// openEveryFolder makes `go test` notice when any file of the module changes: it caches a result together with
// the folders that the test itself opened, not with what a child process read.
func openEveryFolder(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func roomOf(importPath string) (room string, allowed []string) {
	for name, list := range rooms {
		if matches(importPath, ours(name+"/...")) && len(name) > len(room) {
			room, allowed = name, list
		}
	}
	return room, allowed
}

// matches reports whether a pattern is the path, or ends in "/..." and the path is or lies below what precedes.
func matches(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "...")
		if !open {
			return path == pattern
		}
		return strings.HasPrefix(path+"/", prefix)
	})
}

// isStandard reports whether a path is the standard library's: its first segment has no dot.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// ours turns paths inside the module into import paths.
func ours(paths ...string) []string {
	return each(paths, func(p string) string { return module + "/" + p })
}

// below turns paths into patterns of everything below them.
func below(paths []string) []string { return each(paths, func(p string) string { return p + "/..." }) }

func each(list []string, change func(string) string) []string {
	changed := make([]string, len(list))
	for i, s := range list {
		changed[i] = change(s)
	}
	return changed
}
