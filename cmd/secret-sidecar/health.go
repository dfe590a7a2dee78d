package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func (a *app) healthCommand() *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Say whether the sidecar is serving (exit 0) or not (exit 1)",
		Long: `Asks the running sidecar's health service, for a Kubernetes exec probe.

Without --service: SERVING once every required connection has logged in. --service liveness: as
long as the process answers. --service connection/NAME: while that connection's token is valid.`,
		Example: `  secret-sidecar health
  secret-sidecar health --service liveness
  secret-sidecar health --service connection/prod`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&service, "service", "",
		"health service to ask for (default the sidecar as a whole)")
	a.addTimeout(cmd, waitForAnswer)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		state, err := a.askHealth(cmd.Context(), service)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.out, state); err != nil {
			return err
		}
		if state != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("not serving: see `secret-sidecar connections list` for the state " +
				"of each connection")
		}
		return nil
	}
	return cmd
}

func (a *app) askHealth(ctx context.Context,
	service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
	c, err := a.dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	answer, err := healthpb.NewHealthClient(c.conn).Check(ctx,
		&healthpb.HealthCheckRequest{Service: service})
	if status.Code(err) == codes.NotFound {
		return 0,
			fmt.Errorf("the sidecar has no health service %q: use none, liveness or "+
				"connection/NAME", service)
	}
	if err != nil {
		return 0, c.explain(err, a.timeout)
	}
	return answer.GetStatus(), nil
}
