package archtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const grpcPath = "google.golang.org/grpc"

// A worker that imports the client, or the API alone, must not get the sidecar's libraries, nor
// need a newer Go than grpc needs. It is compared with a worker that imports grpc alone.
func TestAWorkerThatImportsTheClientGetsFewModules(t *testing.T) {
	bare, bareGo := worker(t, grpcPath)
	for _, imported := range []string{"/client", "/gen/secretsidecar/v1"} {
		with, withGo := worker(t, module+imported)
		if grown := len(with) - len(bare); grown >= 10 {
			t.Errorf("%s: go list -m all grows by %d modules, from %v to %v", imported, grown, bare,
				with)
		}
		if withGo != bareGo {
			t.Errorf("%s: the worker's go.mod says go %s, and with grpc alone go %s", imported,
				withGo, bareGo)
		}
	}
}

// The image and `go install` know the go.mod of the product and of gen alone. What only the tests
// require must not change the versions that `make build` links.
func TestTheWorkspaceLinksWhatTheProductAsksFor(t *testing.T) {
	product, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(readFile(t, filepath.Join(root, "go.mod")), module+"/gen ")
	version, _, _ := strings.Cut(rest, "\n")
	alone := filepath.Join(t.TempDir(), "go.work")
	write(t, alone, "go 1.26.0\n\nuse "+product+"\n\nuse "+product+"/gen\n\n"+
		"replace "+module+"/gen "+version+" => "+product+"/gen\n")
	linked := func(workspace string) string {
		return goCommandIn(t, root, workspace, "list", "-deps",
			"-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "./cmd/secret-sidecar")
	}
	if got, want := linked(""), linked(alone); got != want {
		t.Errorf("make build links\n%s\nthe product's own go.mod asks for\n%s", got, want)
	}
}

// worker makes a module that imports the package, and returns the modules that it gets and the Go
// that it asks for.
func worker(t *testing.T, imported string) (modules []string, goVersion string) {
	t.Helper()
	dir := t.TempDir()
	gen, err := filepath.Abs(filepath.Join(root, "gen"))
	if err != nil {
		t.Fatal(err)
	}
	// A worker of an older Go: a requirement that asks for more would raise it.
	goMod := "module worker\n\ngo 1.24.0\n\n" +
		"require " + grpcPath + " " + grpcVersion(t, gen) + "\n\n" +
		"replace " + module + "/gen => " + gen + "\n" +
		"replace " + module + "/client => " + filepath.Join(filepath.Dir(gen), "client") + "\n"
	write(t, filepath.Join(dir, "go.mod"), goMod)
	write(t, filepath.Join(dir, "main.go"),
		"package main\n\nimport _ \""+imported+"\"\n\nfunc main() {}\n")
	goCommand(t, dir, "mod", "tidy")
	modules = strings.Split(goCommand(t, dir, "list", "-m", "all"), "\n")
	return modules, goCommand(t, dir, "list", "-m", "-f", "{{.GoVersion}}")
}

func grpcVersion(t *testing.T, gen string) string {
	t.Helper()
	return goCommand(t, gen, "list", "-m", "-f", "{{.Version}}", grpcPath)
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// goCommand runs the go command in a module by itself, outside of the workspace.
func goCommand(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return goCommandIn(t, dir, "off", args...)
}

// goCommandIn runs it in a workspace; "" is the project's own.
func goCommandIn(t *testing.T, dir, workspace string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "GOWORK="+workspace, "GOTOOLCHAIN=local")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
