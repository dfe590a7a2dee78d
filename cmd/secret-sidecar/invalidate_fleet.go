package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// fleetFlags say how the other sidecars are told.
type fleetFlags struct {
	wait                             bool
	redis, password, authority, name string
}

func (f *fleetFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.wait, "wait", false, "with --fleet: wait until all living sidecars have dropped it, and say how many have")
	flags.StringVar(&f.redis, "redis", "", "tell the fleet of this Redis, without a sidecar: redis://USER@HOST:PORT or rediss://…")
	flags.StringVar(&f.password, "redis-password-file", "", "file with the password for --redis")
	flags.StringVar(&f.authority, "redis-ca-file", "", "certificate authorities for --redis, instead of the system's")
	flags.StringVar(&f.name, "redis-stream", fleet.DefaultStream, "name of the fleet's stream in --redis")
}

// check finds flags that mean nothing without another one.
func (f *fleetFlags) check(cmd *cobra.Command, toFleet bool) error {
	switch {
	case f.wait && !toFleet && f.redis == "":
		return usagef("--wait waits for other sidecars: add --fleet")
	case f.redis != "":
		return nil
	}
	for _, flag := range []string{"redis-password-file", "redis-ca-file", "redis-stream"} {
		if cmd.Flags().Changed(flag) {
			return usagef("--%s says more about --redis: add --redis", flag)
		}
	}
	return nil
}

// tellFleet tells the sidecars of a Redis what to drop. There need be no sidecar here.
func (a *app) tellFleet(ctx context.Context, request *secretsidecarv1.InvalidateRequest, f fleetFlags) error {
	if err := checkTarget(request.GetPath()); err != nil {
		return usageError{err}
	}
	config := fleet.Config{URL: redact.New(f.redis), PasswordFile: f.password, CAFile: f.authority, Stream: f.name}
	if err := config.Check(); err != nil {
		return usagef("--redis %w", err)
	}
	others, err := fleet.Open(config, nil)
	if err != nil {
		return usageError{err}
	}
	defer others.Close() //nolint:errcheck // nothing of ours is in it any more
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	id, err := others.Tell(ctx, fleet.Invalidation{
		Connection: request.GetConnection(), Path: request.GetPath(), RenewLogin: request.GetRenewLogin(),
	})
	if err != nil {
		return err
	}
	if !f.wait {
		_, err = fmt.Fprintln(a.out, "told the fleet")
		return err
	}
	progress, err := others.Wait(ctx, id, a.showProgress)
	if isTerminal(a.err) {
		fmt.Fprintln(a.err)
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	return a.reportProgress(progress, others.Stream())
}

// checkTarget finds a path that the sidecars would ignore.
func checkTarget(path string) error {
	var err error
	switch {
	case path == "":
	case strings.HasSuffix(path, "/"):
		_, err = vault.ParsePrefix(path)
	default:
		_, err = vault.ParseReference(path, "")
	}
	return err
}

// showProgress writes over the last line on a terminal, and nothing elsewhere.
func (a *app) showProgress(p fleet.Progress) {
	if isTerminal(a.err) {
		fmt.Fprintf(a.err, "\r%d of %s have dropped it", p.Acknowledged, plural(p.Living, "living sidecar"))
	}
}

// reportProgress says how far the fleet has come. It is an error when not all have dropped it.
func (a *app) reportProgress(p fleet.Progress, stream string) error {
	switch {
	case p.Living == 0:
		return fmt.Errorf("no sidecar lives in the fleet %q: check the Redis and the name of the stream", stream)
	case !p.Done():
		return fmt.Errorf("%d of %s have dropped it within %v: the others are cut off from Redis, or have just ended; "+
			"try again, or wait longer with --timeout", p.Acknowledged, plural(p.Living, "living sidecar"), a.timeout)
	}
	_, err := fmt.Fprintf(a.out, "%d of %s have dropped it\n", p.Acknowledged, plural(p.Living, "living sidecar"))
	return err
}

// waitMargin is how much sooner the sidecar stops to wait than this command: the answer needs time
// too.
const waitMargin = time.Second

// askToWait makes the request wait for the fleet for most of the timeout.
func (a *app) askToWait(request *secretsidecarv1.InvalidateRequest) {
	request.Wait = durationpb.New(max(a.timeout-waitMargin, a.timeout/2))
}

// reportFleet prints what the sidecar says of the fleet; nothing where it was not asked to wait.
func (a *app) reportFleet(answer *secretsidecarv1.InvalidateResponse) error {
	now := answer.GetFleet()
	if now == nil {
		return nil
	}
	if now.GetLiving() == 0 {
		return errors.New("no sidecar lives in the fleet: this one is cut off from Redis, see its log")
	}
	return a.reportProgress(fleet.Progress{Living: int(now.GetLiving()), Acknowledged: int(now.GetAcknowledged())}, "")
}
