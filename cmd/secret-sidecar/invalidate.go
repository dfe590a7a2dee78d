package main

import (
	"fmt"

	"github.com/spf13/cobra"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func (a *app) invalidateCommand() *cobra.Command {
	request := &secretsidecarv1.InvalidateRequest{}
	cmd := &cobra.Command{
		Use:   "invalidate [PATH]",
		Short: "Drop cached secrets",
		Long: `Drops secrets from the running sidecar's cache, so that the next request for them reads Vault.

PATH is a reference (drops its secret, in every version) or a prefix ending in "/" (drops every
secret below it). Without PATH everything is dropped. Without --connection that is so for every
connection.

With --fleet, every other sidecar of the fleet drops it too. With --redis, no sidecar is asked: the
fleet of that Redis is told directly. With --wait, the command ends when all that live have dropped
it, and fails when some have not within --timeout.`,
		Example: `  secret-sidecar invalidate secret/data/mysec/api_key
  secret-sidecar invalidate secret/data/team-a/ --connection prod
  secret-sidecar invalidate --connection prod --renew-login
  secret-sidecar invalidate secret/data/mysec/api_key --fleet --wait
  secret-sidecar invalidate secret/data/mysec/api_key --redis rediss://user@redis.example:6379 --redis-password-file pw`,
		Args: between("at most one path", 0, 1),
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Connection, "connection", "",
		"connection whose secrets to drop (default every one)")
	flags.BoolVar(&request.RenewLogin, "renew-login", false,
		"also drop the Vault token and log in again (default every connection's)")
	flags.BoolVar(&request.Fleet, "fleet", false, "also tell every other sidecar of the fleet")
	others := fleetFlags{}
	others.add(cmd)
	a.addTimeout(cmd, waitForAnswer)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			request.Path = args[0]
		}
		if err := others.check(cmd, request.GetFleet()); err != nil {
			return err
		}
		if others.redis != "" {
			return a.tellFleet(cmd.Context(), request, others)
		}
		if others.wait {
			a.askToWait(request)
		}
		answer, err := ask(cmd.Context(), a, secretsidecarv1.SecretServiceClient.Invalidate,
			request)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.out, "dropped %s\n",
			plural(int(answer.GetEntries()), "cached secret")); err != nil {
			return err
		}
		return a.reportFleet(answer)
	}
	return cmd
}

func plural(count int, what string) string {
	if count == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", count, what)
}
