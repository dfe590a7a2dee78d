package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// exactly is cobra.ExactArgs with a message that says what the arguments are.
func exactly(what string, count int) cobra.PositionalArgs { return between(what, count, count) }

// between is cobra.RangeArgs with a message that says what the arguments are.
func between(what string, least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%q takes %s, and got %s", cmd.CommandPath(), what, plural(len(args), "argument"))
		}
		return nil
	}
}

// noArgs is between for a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	return between("no arguments", 0, 0)(cmd, args)
}
