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
		Use:     "version",
		Short:   "Print the version",
		Long:    "Prints the version, the revision that it was built from, and the Go version that built it.",
		Example: "  secret-sidecar version",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, describeVersion())
			return err
		},
	}
}

// version is what the build names itself; the linker sets it (-X main.version=...). Empty is the module's.
var version string

// versionNumber is the build's version alone.
func versionNumber() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return cmp.Or(version, info.Main.Version)
	}
	return version
}

// describeVersion describes the build, from what the Go toolchain stamps into it too.
func describeVersion() string {
	number, revision := versionNumber(), ""
	if info, ok := debug.ReadBuildInfo(); ok {
		revision = revisionOf(info)
	}
	return fmt.Sprintf("secret-sidecar %s%s %s %s/%s", number, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func revisionOf(info *debug.BuildInfo) string {
	var revision, modified string
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			revision = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				modified = ", modified"
			}
		}
	}
	if revision == "" {
		return ""
	}
	return fmt.Sprintf(" (revision %.12s%s)", revision, modified)
}
