package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// connectionTest is what `connections test` was asked to do.
type connectionTest struct {
	name  string // of a connection of the running sidecar, or
	file  string // a configuration file, or
	flags *connectionFlags
	path  string // reference to read as well; empty is none
}

func (a *app) connectionsTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test [NAME]",
		Short: "Try a connection step by step and say what to do about it",
		Long: `Tries to reach Vault, to log in, and to see its mounts, and prints a line for each. The
token taken for the test is revoked. Exit 1 when the connection cannot be used.

NAME is a connection of the running sidecar. --file tests every connection of a configuration
file, and --address one that is described by flags: both without a running sidecar.`,
		Example: `  secret-sidecar connections test prod
  secret-sidecar connections test prod --path secret/data/mysec/api_key
  secret-sidecar connections test --file config.yaml
  secret-sidecar connections test --address https://vault.example:8200 \
    --role-id ID --secret-id-file FILE`,
		Args: between("at most one connection", 0, 1),
	}
	test := connectionTest{flags: addConnectionFlags(cmd)}
	cmd.Flags().StringVar(&test.file, "file", "", "configuration file whose connections to test")
	cmd.Flags().StringVar(&test.path, "path", "", "reference to read as well")
	a.addTimeout(cmd, "how long the whole test may take")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			test.name = args[0]
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		defer cancel()
		return a.testConnections(ctx, test)
	}
	return cmd
}

func (a *app) testConnections(ctx context.Context, test connectionTest) error {
	switch {
	case test.name != "" && test.file == "" && test.flags.vault.Address == "":
		return a.testRunning(ctx, test.name, test.path)
	case test.name == "" && test.file != "" && test.flags.vault.Address == "":
		return a.testFile(ctx, test.file, test.path)
	case test.name == "" && test.file == "" && test.flags.vault.Address == "":
		return usagef("name a connection, or give --file or --address: see `secret-sidecar " +
			"connections test --help`")
	case test.name == "" && test.file == "":
		connection, err := test.flags.connection("described", server.ScopePlatform, nil)
		if err != nil {
			return err
		}
		return a.testEach(ctx, []server.Connection{connection}, test.path)
	}
	return usagef("give one of a connection's name, --file and --address: see `secret-sidecar " +
		"connections test --help`")
}

// testRunning asks the running sidecar to test one of its connections.
func (a *app) testRunning(ctx context.Context, name, path string) error {
	answer, err := ask(ctx, a, secretsidecarv1.SecretServiceClient.TestConnection,
		&secretsidecarv1.TestConnectionRequest{
			Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: name},
			Path:   path,
		})
	if err != nil {
		return err
	}
	return a.showReport(name, reportFromAnswer(answer))
}

func (a *app) testFile(ctx context.Context, file, path string) error {
	loaded, err := config.Load(file, a.getenv)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no configuration file %s: name the right one with --file", file)
	}
	if err != nil {
		return usageError{err}
	}
	return a.testEach(ctx, loaded.Connections, path)
}

// testEach tests the connections in this process, and fails when one of them cannot be used.
func (a *app) testEach(ctx context.Context, connections []server.Connection, path string) error {
	reference, err := vault.ParseOptionalReference(path)
	if err != nil {
		return usageError{fmt.Errorf("--path: %w", err)}
	}
	if len(connections) == 0 {
		return usagef("the file has no connection to test: add one to it")
	}
	budget := login.NewBudget()
	var failed error
	for _, connection := range connections {
		if connection.Vault.SecretIDWrapped {
			failed = fmt.Errorf(
				"connection %q is not tested: its secret_id is wrapped, and a test of the file "+
					"would use it up; "+
					"test the running sidecar's: secret-sidecar connections test %s",
				connection.Name,
				connection.Name)
			continue
		}
		report, err := conn.TestConfig(ctx, conn.Config{
			Settings: connection.Vault, Name: connection.Name, Timeout: connection.Timeout,
			Budget: budget,
		}, reference)
		if err != nil {
			return usageError{fmt.Errorf("connection %q: %w", connection.Name, err)}
		}
		if err := a.showReport(connection.Name, report); err != nil {
			failed = err
		}
	}
	return failed
}

// showReport prints the report and fails when it is not OK.
func (a *app) showReport(name string, report conn.Report) error {
	if err := printReport(a.out, name, report); err != nil {
		return err
	}
	if !report.OK() {
		return reportError(name, report)
	}
	return nil
}
