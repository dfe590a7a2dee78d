package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long: "Prints the version, the revision that it was built from, and the Go version " +
			"that built it.",
		Example: "  secret-sidecar version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, describeVersion())
			return err
		},
	}
}

// The version and revision of the build; the linker sets both (-X main.version=... -X
// main.revision=...). An empty version means the module's, an empty revision the one that the Go
// toolchain found in the work tree.
var version, revision string

// versionNumber is the build's version alone.
func versionNumber() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return cmp.Or(version, info.Main.Version)
	}
	return version
}

// describeVersion describes the build, from what the Go toolchain stamps into it too.
func describeVersion() string {
	number, from := versionNumber(), described(revision, "")
	if info, ok := debug.ReadBuildInfo(); ok {
		from = cmp.Or(from, revisionOf(info))
	}
	return fmt.Sprintf("secret-sidecar %s%s %s %s/%s", number, from, runtime.Version(),
		runtime.GOOS, runtime.GOARCH)
}

func revisionOf(info *debug.BuildInfo) string {
	var commit, modified string
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			commit = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				modified = ", modified"
			}
		}
	}
	return described(commit, modified)
}

func described(commit, modified string) string {
	if commit == "" {
		return ""
	}
	return fmt.Sprintf(" (revision %.12s%s)", commit, modified)
}
