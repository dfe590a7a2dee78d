package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wantedOf is what to write as a flag's value, by its type. Other types say so themselves.
var wantedOf = map[string]string{
	"bool":     "write true or false",
	"duration": "write a time such as 500ms, 10s or 1h30m",
	"uint32":   "write a whole number from 0 to 4294967295",
}

// flagError explains a flag's value that cannot be parsed. The parser's own text is for
// programmers.
func flagError(_ *cobra.Command, err error) error {
	wrong, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	flag := wrong.GetFlag()
	wanted, ok := wantedOf[flag.Value.Type()]
	if !ok {
		return err
	}
	return fmt.Errorf("invalid argument %q for %q flag: %s", wrong.GetValue(), "--"+flag.Name,
		wanted)
}

// exactly is cobra.ExactArgs with a message that says what the arguments are.
func exactly(what string, count int) cobra.PositionalArgs { return between(what, count, count) }

// between is cobra.RangeArgs with a message that says what the arguments are.
func between(what string, least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%q takes %s, and got %s", cmd.CommandPath(), what,
				plural(len(args), "argument"))
		}
		return nil
	}
}

// noArgs is between for a command that takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	return between("no arguments", 0, 0)(cmd, args)
}
