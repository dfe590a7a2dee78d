package main

import (
	"github.com/spf13/cobra"
)

func (a *app) connectionsCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "connections",
		Short: "List, test, add and remove connections to Vault",
		Long: `A connection is one Vault with the AppRole credentials to log in to it. They live in the
configuration file; a running sidecar picks up changes of the file by itself.`,
		Example: `  secret-sidecar connections list
  secret-sidecar connections test prod
  secret-sidecar connections add prod --address https://vault.example:8200 \
    --role-id ID --secret-id-file FILE`,
	})
	cmd.AddCommand(a.connectionsListCommand(), a.connectionsTestCommand(),
		a.connectionsAddCommand(), a.connectionsRemoveCommand())
	return cmd
}
