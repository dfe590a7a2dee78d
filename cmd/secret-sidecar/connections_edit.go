package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/server"
)

func (a *app) connectionsAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Test a connection and save it in the configuration file",
		Long: `Tests the connection first, as "connections test" does, and saves nothing when it cannot be
used. The file is replaced atomically, with mode 0600: the sidecar's user must own it. What else
stands in it stays. A running sidecar picks the change up.`,
		Example: `  secret-sidecar connections add prod --config config.yaml \
    --address https://vault.example:8200 --role-id ID --secret-id-file FILE
  secret-sidecar connections add team-a --project p1 --project p2 \
    --address … --role-id … --secret-id-file …`,
		Args: exactly("the new connection's name", 1),
	}
	flags := addConnectionFlags(cmd)
	scope := addChoice(cmd, "scope",
		"who may use it: every project, or those of --project, which alone implies project",
		"platform", "project")
	projects := cmd.Flags().StringArray("project", nil,
		"project that may use it; may be given several times")
	reference := cmd.Flags().String("path", "", "reference to read in the test as well")
	file := addConfigFlag(cmd)
	a.addTimeout(cmd, "how long the whole test may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(*projects) > 0 && !cmd.Flags().Changed("scope") {
			scope.value = "project"
		}
		if (scope.value == "project") != (len(*projects) > 0) {
			return usagef("--scope project and --project go together: give both or neither")
		}
		connection, err := flags.connection(args[0], scopes[scope.value], *projects)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		defer cancel()
		return a.addConnection(ctx, *file, connection, *reference)
	}
	return cmd
}

var scopes = map[string]server.Scope{"platform": server.ScopePlatform,
	"project": server.ScopeProject}

func (a *app) addConnection(ctx context.Context, file string, connection server.Connection,
	reference string) error {
	// before the login, which costs one of Vault's few attempts
	already, err := config.CheckNewConnection(file, connection)
	if err != nil {
		return editError(file, connection.Name, err)
	}
	if already == 1 {
		a.note("warning: this is the second connection of %s: requests must name their "+
			"connection from now on", file)
	}
	before := modeOf(file)
	if err := a.testEach(ctx, []server.Connection{connection}, reference); err != nil {
		return fmt.Errorf("nothing is saved: %w", err)
	}
	if err := config.AddConnection(file, connection); err != nil {
		return editError(file, connection.Name, err)
	}
	a.noteMode(file, before)
	if before == 0 {
		a.note("created %s: start the sidecar with --config %s", file, file)
	}
	_, err = fmt.Fprintf(a.out, "saved connection %s in %s\n", connection.Name, file)
	return err
}

// note prints a remark about the answer to standard error, so that the output stays clean.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.err, "secret-sidecar: "+format+"\n", args...)
}

// modeOf returns the file's permission bits; 0 when it is absent.
func modeOf(file string) fs.FileMode {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Mode().Perm()
}

// noteMode says that an edit removed permissions that the file had before.
func (a *app) noteMode(file string, before fs.FileMode) {
	if before&^0o600 != 0 {
		a.note("the mode of %s is 0600 now, it was %04o: the sidecar's user must own it", file,
			before)
	}
}

func (a *app) connectionsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a connection from the configuration file",
		Long: "Removes the connection from the file, and leaves the rest as it is. A running " +
			"sidecar picks the change up.",
		Example: "  secret-sidecar connections remove prod --config config.yaml",
		Args:    exactly("the connection's name", 1),
	}
	file := addConfigFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		before := modeOf(*file)
		if err := config.RemoveConnection(*file, args[0]); err != nil {
			return editError(*file, args[0], err)
		}
		a.noteMode(*file, before)
		_, err := fmt.Fprintf(a.out, "removed connection %s from %s\n", args[0], *file)
		return err
	}
	return cmd
}

// editError classifies the error of an edit. A file that was wrong before, or would be wrong
// afterwards, is a mistake of the configuration.
func editError(file, name string, err error) error {
	var mistakes config.Mistakes
	switch {
	case errors.Is(err, config.ErrConnectionExists):
		return fmt.Errorf("%s has a connection %s already: choose another name, or remove that "+
			"one first", file, name)
	case errors.Is(err, config.ErrConnectionNotFound):
		return fmt.Errorf("%s has no connection %s: check the name, and the file with --config",
			file, name)
	case errors.Is(err, fs.ErrNotExist):
		return usagef("there is no configuration file %s: name the right one with --config", file)
	case errors.As(err, &mistakes):
		return usageError{err}
	}
	return err
}
