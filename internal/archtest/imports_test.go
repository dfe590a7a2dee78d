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

// What several rooms may import. Of OpenTelemetry that is the API: internal/telemetry sets
// exporters up.
var (
	grpc = []string{
		"google.golang.org/grpc/...", "google.golang.org/protobuf/...",
		"google.golang.org/genproto/...",
	}
	otel = []string{
		"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes",
		"go.opentelemetry.io/otel/metric/...", "go.opentelemetry.io/otel/propagation",
		"go.opentelemetry.io/otel/semconv/...", "go.opentelemetry.io/otel/trace/...",
	}
)

// rooms says what each part of the project may import beside the standard library. A package
// belongs to the longest name that it begins with. A pattern is a path, one of ours where it begins
// with "./"; with "/..." at its end it is everything below that path too.
var rooms = map[string][]string{
	"cmd/secret-sidecar": {"..."},
	"server": slices.Concat(grpc, otel, []string{
		"./gen/...", "./cache", "./vault", "./vault/conn", "./vault/login", "./internal/admission",
		"./internal/audit", "./internal/fleet", "./internal/leak",
		"./internal/redact", "./internal/unixsocket", "golang.org/x/time/rate",
	}),
	"cache": {"github.com/dgraph-io/ristretto/v2"},
	"config": {
		"./cache", "./server", "./vault", "./vault/conn", "./vault/login", "./internal/fleet", "./internal/redact",
		"./internal/smallfile", "./internal/unixsocket", "github.com/goccy/go-yaml/...",
	},
	"vault": slices.Concat(otel, []string{
		"./internal/breaker", "./internal/redact", "./internal/smallfile",
		"github.com/hashicorp/vault/api", "golang.org/x/sync/semaphore",
	}),
	"vault/login": {
		"./vault", "./internal/breaker", "./internal/filewatch", "./internal/redact",
		"./internal/smallfile",
		"golang.org/x/sync/semaphore", "golang.org/x/time/rate",
	},
	"vault/conn": {
		"./vault", "./vault/login", "./internal/breaker", "./internal/filewatch",
		"golang.org/x/sync/semaphore", "golang.org/x/time/rate",
	},
	"client":             append([]string{"./gen/...", "./client"}, grpc...),
	"gen":                grpc,
	"proto":              {},
	"internal":           {"..."},
	"internal/admission": {"./internal/unixsocket", "golang.org/x/sys/unix", "golang.org/x/time/rate"},
	"internal/audit":     {"golang.org/x/sync/semaphore"},
	"internal/breaker":   {"github.com/cenkalti/backoff/v5"},
	"internal/chart":     {},
	"internal/devvault":  {},
	"internal/filewatch": {"github.com/fsnotify/fsnotify"},
	"internal/fleet": {
		"./internal/redact", "./internal/smallfile", "github.com/cenkalti/backoff/v5",
		"github.com/redis/go-redis/v9/...", "golang.org/x/time/rate",
	},
	"internal/leak":   {},
	"internal/redact": {},
	"internal/unixsocket": {
		"google.golang.org/grpc/credentials", "google.golang.org/grpc/peer",
		"golang.org/x/sys/unix",
	},
	"internal/vaulttest": {"./internal/devvault"},
	"e2e":                {"..."},
	"bench":              {"..."},
	"scripts":            {"..."},
}

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
		rule     string
		from, to []string
	}{
		{
			"gRPC ends at the server",
			[]string{"./cache", "./vault/..."},
			grpc,
		},
		{
			"a worker that imports the client gets none of the sidecar",
			[]string{"./client/..."},
			[]string{"./server", "./cache", "./vault/...", "./config", "./internal/..."},
		},
		{
			"internal packages serve the rooms and know none",
			[]string{"./internal/..."},
			[]string{"./server", "./cache", "./config", "./client", "./cmd/..."},
		},
		{
			"the product links no test helper",
			[]string{"./cmd/..."},
			[]string{
				"./internal/vaulttest", "./internal/redistest", "./internal/chart",
				"github.com/alicebob/miniredis/...",
				"go.uber.org/goleak",
			},
		},
		{
			"the product links no Vault server",
			[]string{"./cmd/..."},
			[]string{"github.com/hashicorp/vault", "github.com/hashicorp/vault/sdk/..."},
		},
		{
			// autoexport and the bridge bring what no documented variable turns on.
			"the product links no exporter that nobody can turn on",
			[]string{"./cmd/...", "./internal/telemetry"},
			[]string{
				"go.opentelemetry.io/contrib/bridges/...",
				"go.opentelemetry.io/contrib/exporters/...",
				"go.opentelemetry.io/otel/exporters/otlp/otlplog/...",
				"go.opentelemetry.io/otel/exporters/stdout/stdoutlog",
				"go.opentelemetry.io/otel/exporters/zipkin",
				"go.opentelemetry.io/otel/sdk/log/...",
			},
		},
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
	openEveryDirectory(t)
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

// openEveryDirectory makes `go test` notice when any file of the module changes: it caches a result
// with the directories that the test itself opened, not with what a child process read.
func openEveryDirectory(t *testing.T) {
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
		if matches(importPath, []string{"./" + name + "/..."}) && len(name) > len(room) {
			room, allowed = name, list
		}
	}
	return room, allowed
}

// matches reports whether one of the patterns is the path, or is above it.
func matches(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if inside, ok := strings.CutPrefix(pattern, "./"); ok {
			pattern = module + "/" + inside
		}
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
