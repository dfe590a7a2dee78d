// Package e2e_test drives the built binary from outside: its command line, its socket, its files
// and the Vault behind it. Everything here is true of any build of secret-sidecar that keeps the
// contract.
//
// A test has a sandbox: a directory, its secrets, and the outputs that may hold none of them. Most
// begin with a setup: a sandbox with a Vault, a login, and a sidecar. Between sidecar and Vault
// stands a proxy (HTTP: it counts, holds and answers), a network (TCP: it goes bad) or a balancer
// (TCP: it has several backends). A load asks all the time and judges each answer by the history of
// what was written; a poll only counts answers. A probe asks until a fault is healed.
package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// binary is the path of the secret-sidecar under test. TestMain sets it before any test runs.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped by -short")
		return
	}
	if os.Getenv(helperEnv) != "" { // another process of a test's, which needs no binary
		os.Exit(m.Run())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp(directoryRoot(), "ss")
	if err != nil {
		return fail("make a directory for the binary", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Tests run it as other users too.
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- a directory with nothing but the binary
		return fail("open the directory of the binary", err)
	}
	binary = filepath.Join(dir, "secret-sidecar")
	build := exec.Command("go", "build", fmt.Sprintf("-race=%t", withRaceDetector), "-o", binary,
		"../cmd/secret-sidecar")
	if out, err := build.CombinedOutput(); err != nil {
		return fail("build the binary", fmt.Errorf("%w\n%s", err, out))
	}
	allowWaitingTests()
	zerolog.SetGlobalLevel(zerolog.Disabled) // Toxiproxy's toxics log by themselves
	return m.Run()
}

// TestACachedResultIsOneOfTheseSources reads the directories that the binary is built from: go test
// runs a package again when a directory that its tests have read has changed, and it knows nothing
// of a build.
func TestACachedResultIsOneOfTheseSources(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
		"{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}", "../cmd/secret-sidecar")
	directories, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, directory := range strings.Fields(string(directories)) {
		if _, err := os.ReadDir(directory); err != nil {
			t.Error(err)
		}
	}
	for _, file := range []string{"../go.mod", "../go.sum"} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

// allowWaitingTests runs more tests side by side than there are processors: most of them wait for a
// clock.
func allowWaitingTests() {
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	// go test always passes -test.timeout and friends, but -test.parallel only when asked.
	if !chosen {
		_ = flag.Set("test.parallel", "12")
	}
}

func fail(doing string, err error) int {
	fmt.Fprintf(os.Stderr, "e2e: %s: %v\n", doing, err)
	return 1
}
