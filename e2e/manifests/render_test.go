package manifests_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// deploy is the directory under test.
const deploy = "../../deploy"

// tool returns the program that an environment variable names. make test-manifests installs it and
// sets it.
func tool(t *testing.T, variable string) string {
	t.Helper()
	program := os.Getenv(variable)
	if program == "" {
		t.Fatalf("%s is not set: run make test-manifests, or name the program", variable)
	}
	return program
}

// run runs a program that must succeed, and returns what it prints.
func run(t *testing.T, program string, arguments ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, arguments...)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(program), arguments, err, said.Bytes())
	}
	return out
}

// kustomize renders a directory.
func kustomize(t *testing.T, directory string) []byte {
	t.Helper()
	return run(t, tool(t, "KUSTOMIZE"), "build", directory)
}

// example renders one of the examples.
func example(t *testing.T, name string) []byte {
	t.Helper()
	return kustomize(t, filepath.Join(deploy, "kubernetes", "examples", name))
}

// helmCharts is a copy of the charts in which the example's dependency is in place, as `helm
// dependency update` leaves it.
func helmCharts(t *testing.T) (directory string) {
	t.Helper()
	directory = t.TempDir()
	if err := os.CopyFS(directory, os.DirFS(filepath.Join(deploy, "helm"))); err != nil {
		t.Fatal(err)
	}
	run(t, tool(t, "HELM"), "dependency", "update", filepath.Join(directory, "worker"))
	return directory
}

// helm renders the example chart.
func helm(t *testing.T, arguments ...string) []byte {
	t.Helper()
	chart := filepath.Join(helmCharts(t), "worker")
	return run(t, tool(t, "HELM"),
		append([]string{"template", "worker", chart, "--namespace", "flows"}, arguments...)...)
}

// overlay writes files into a new directory, from where ../kubernetes is a copy of
// deploy/kubernetes, and returns it.
func overlay(t *testing.T, files map[string]string) string {
	t.Helper()
	top := t.TempDir()
	if err := os.CopyFS(filepath.Join(top, "kubernetes"),
		os.DirFS(filepath.Join(deploy, "kubernetes"))); err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(top, "overlay")
	for name, text := range files {
		path := filepath.Join(directory, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

// knows asks the sidecar for its help on a command and its flags: it refuses what it does not know.
func knows(t *testing.T, words []string) error {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go",
		slices.Concat([]string{"run", "./cmd/secret-sidecar"}, words, []string{"--help"})...)
	// this module alone stands outside of go.work
	command.Dir, command.Env = "../..", append(os.Environ(), "GOWORK=")
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("secret-sidecar %q: %w\n%s", words, err, out)
	}
	if !strings.Contains(string(out), "secret-sidecar "+words[0]) { // the help of the whole program
		return fmt.Errorf("the sidecar has no command %q", words)
	}
	return nil
}
