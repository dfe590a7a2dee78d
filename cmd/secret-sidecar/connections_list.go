package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func (a *app) connectionsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "Show the state of each connection",
		Long:    "Asks the running sidecar for the state of every connection that the caller may use.",
		Example: "  secret-sidecar connections list\n  secret-sidecar connections list --output json",
		Args:    noArgs,
	}
	output := addChoice(cmd, "output", "how to print it", "table", "json")
	a.addTimeout(cmd, waitForAnswer)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		answer, err := ask(cmd.Context(), a, secretsidecarv1.SecretServiceClient.ListConnections, &secretsidecarv1.ListConnectionsRequest{})
		if err != nil {
			return err
		}
		if output.value == "json" {
			return printJSON(a.out, answer)
		}
		return printConnections(a.out, answer.GetConnections(), time.Now())
	}
	return cmd
}

func printConnections(w io.Writer, connections []*secretsidecarv1.ConnectionStatus, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATE\tSCOPE\tADDRESS\tTOKEN-LEFT\tCACHED\tLAST-ERROR")
	for _, c := range connections {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", c.GetName(), stateName(c.GetState()), scopeName(c),
			addressName(c), tokenLeft(c, now), c.GetCachedSecrets(), lastError(c))
	}
	return table.Flush()
}

func stateName(state secretsidecarv1.ConnectionState) string {
	return strings.TrimPrefix(state.String(), "CONNECTION_STATE_")
}

func scopeName(c *secretsidecarv1.ConnectionStatus) string {
	if c.GetScope() == secretsidecarv1.Scope_SCOPE_PROJECT {
		return "project:" + strings.Join(c.GetProjectIds(), ",")
	}
	return strings.ToLower(strings.TrimPrefix(c.GetScope().String(), "SCOPE_"))
}

func addressName(c *secretsidecarv1.ConnectionStatus) string {
	if c.GetNamespace() == "" {
		return c.GetAddress()
	}
	return c.GetAddress() + " namespace " + c.GetNamespace()
}

// tokenLeft is how long the token still lives; "-" without one.
func tokenLeft(c *secretsidecarv1.ConnectionStatus, now time.Time) string {
	expires := c.GetTokenExpiresAt()
	switch {
	case expires != nil:
		return max(expires.AsTime().Sub(now), 0).Round(time.Second).String()
	case c.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_READY:
		return "unlimited"
	}
	return "-"
}

func lastError(c *secretsidecarv1.ConnectionStatus) string {
	if c.GetLastError() == nil {
		return "-"
	}
	return c.GetLastError().GetReason() + ": " + c.GetLastError().GetMessage()
}
