package main

import (
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
			_, err := fmt.Fprintln(a.out, version())
			return err
		},
	}
}

// version describes the build from what the Go toolchain stamps into it.
func version() string {
	number, revision := "(unknown)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		number, revision = info.Main.Version, revisionOf(info)
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
