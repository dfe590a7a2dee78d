package containertest

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestAMachineCannotLimitWhereNoGroupWithTheControllersCanBeMade(t *testing.T) {
	tests := map[string]struct{ directories, files []string }{
		"no control groups at all":              {},
		"version 1 without a controller of CPU": {directories: []string{"memory"}},
		"version 1 whose groups have no limits": {directories: []string{"memory", "cpu"}},
		"version 2 that may not hand controllers down": {directories: []string{"cgroup.subtree_control"},
			files: []string{"cgroup.controllers"}},
		"version 2 whose groups have no limits": {files: []string{"cgroup.controllers"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, directory := range test.directories {
				must(t, os.Mkdir(root+"/"+directory, 0o755))
			}
			for _, file := range test.files {
				must(t, os.WriteFile(root+"/"+file, nil, 0o600))
			}
			if missingLimits(root) == nil {
				t.Error("it can")
			}
		})
	}
}

func TestLimitsAreAskedForWhateverTheRuntimeDoes(t *testing.T) {
	if !Limited(t) {
		t.Skip("nothing is limited here")
	}
	broken := t.TempDir()
	must(t, os.WriteFile(broken+"/runc", []byte("#!/bin/false\n"), 0o700)) // #nosec G306 -- a program
	t.Setenv("PATH", broken)
	c := New(t, Spec{Root: t.TempDir(), Args: []string{"/bin/true"}, Memory: 64 << 20, CPUs: 1})
	text, err := os.ReadFile(c.bundle + "/config.json")
	must(t, err)
	var config specs.Spec
	must(t, json.Unmarshal(text, &config))
	if asked := config.Linux.Resources; asked == nil || asked.Memory == nil || asked.CPU == nil {
		t.Errorf("a runtime that fails is taken for a machine without limits: %s", text)
	}
}

// listener hears what a check says of a test.
type listener struct {
	testing.TB
	errors []string
}

// Errorf implements testing.TB.
func (l *listener) Errorf(format string, args ...any) {
	l.errors = append(l.errors, fmt.Sprintf(format, args...))
}

func TestLimitsThatARuntimeDoesNotSetAreMissed(t *testing.T) {
	Require(t)
	if !Limited(t) {
		t.Skip("nothing is limited here")
	}
	wanted := Spec{Memory: 64 << 20, CPUs: 1}
	for name, test := range map[string]struct {
		set  Spec
		miss int
	}{
		"both are set": {wanted, 0}, "no memory": {Spec{CPUs: 1}, 1}, "no CPU": {Spec{Memory: 64 << 20},
			1}, "none": {Spec{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			heard := &listener{TB: t}
			c := New(heard, Spec{Root: t.TempDir(), Args: []string{"/bin/cat"}, UID: 65532,
				GID:     65532,
				Volumes: Programs(), Memory: test.set.Memory, CPUs: test.set.CPUs})
			command := c.Command()
			input, err := command.StdinPipe()
			must(t, err)
			output, err := command.StdoutPipe()
			must(t, err)
			must(t, command.Start())
			_, err = input.Write([]byte("runs"))
			must(t, err)
			if _, err := output.Read(make([]byte, 4)); err != nil {
				t.Fatalf("it does not run: %v", err)
			}
			c.spec.Memory, c.spec.CPUs = wanted.Memory, wanted.CPUs
			c.RequireLimits()
			if len(heard.errors) != test.miss {
				t.Errorf("%d limits are missing, and the check says %q", test.miss, heard.errors)
			}
			must(t, input.Close())
			must(t, command.Wait())
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
