package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/telemetry"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// devFlags are the flags of `dev`.
type devFlags struct {
	secrets     []string
	vaultListen string
}

func (a *app) devCommand() *cobra.Command {
	var flags devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the sidecar on an embedded development Vault, without any set-up",
		Long: `Starts an in-memory Vault on the loopback interface, sets up an AppRole and the given
secrets, runs the sidecar on it, and prints what to try. Everything is gone when it ends. For
development and tests only.`,
		Example: `  secret-sidecar dev
  secret-sidecar dev --secret secret/data/mysec/api_key=supersecret \
    --secret secret/data/db/password=hunter2`,
		Args: noArgs,
	}
	cmd.Flags().StringArrayVar(&flags.secrets, "secret",
		[]string{"secret/data/mysec/api_key=supersecret"},
		"secret to put into the Vault, REF=VALUE; may be given several times")
	cmd.Flags().StringVar(&flags.vaultListen, "vault-listen", "127.0.0.1:0",
		"loopback address for the development Vault; port 0 takes a free one")
	cmd.Flags().StringVar(&a.socket, "socket", "",
		fmt.Sprintf("Unix socket of the sidecar (default $%s, else one in a private directory of "+
			"its own)", socketEnv))
	logs := addLogFlags(cmd, "warn", "debug", "info", "error")
	drain := addDrainTimeout(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkDrainTimeout(*drain); err != nil {
			return err
		}
		log := logs.open(a.err)
		defer log.close()
		return a.dev(cmd.Context(), flags, server.Options{Logger: log.Logger, DrainTimeout: *drain})
	}
	return cmd
}

// dev runs a development Vault and the sidecar on it until ctx is done.
func (a *app) dev(ctx context.Context, flags devFlags, options server.Options) error {
	slog.SetDefault(options.Logger)
	vault, err := startDevVault(flags)
	if err != nil {
		return err
	}
	defer vault.stop()
	socket, removeDirectory, err := a.devSocket()
	if err != nil {
		return err
	}
	defer removeDirectory()
	settings, err := config.FromEnv(vault.environment)
	if err != nil {
		return fmt.Errorf("configure the development Vault: %w", err)
	}
	settings.Socket.Path = socket
	exports, err := telemetry.Setup(ctx, a.getenv, versionNumber())
	if err != nil {
		return usageError{err}
	}
	defer flush(ctx, exports, options.Logger)
	options = exported(options, exports, settings)
	options.Version = describeVersion()
	listener, err := listen(settings.Socket)
	if err != nil {
		return err
	}
	warnOfExposure(options.Logger, socket)
	defer listener.Close() //nolint:errcheck // Serve has closed it unless something failed before
	return a.serveDev(ctx, listener, settings, vault, options)
}

// serveDev serves on the listener, and prints what to try once the sidecar has logged in.
func (a *app) serveDev(ctx context.Context, listener net.Listener, settings *config.Config,
	vault *devVault, options server.Options) error {
	sidecar, err := server.New(options)
	if err != nil {
		return err
	}
	if err := sidecar.Apply(settings.Settings); err != nil {
		return fmt.Errorf("set up the connection: %w", err)
	}
	ready, cancel := context.WithCancel(ctx)
	var announcing sync.WaitGroup
	announcing.Go(func() {
		err := waitUntilServing(ready, settings.Socket.Path)
		if err == nil {
			err = printWelcome(a.out, vault, settings.Socket.Path)
		}
		if err != nil && ready.Err() == nil {
			options.Logger.Error("what to try could not be printed", "error", err)
		}
	})
	defer announcing.Wait()
	defer cancel()
	return sidecar.Serve(ctx, listener)
}

// devSocket returns the socket of the flag or the environment, or one in a private directory of its
// own, and a function that removes that directory.
func (a *app) devSocket() (path string, remove func(), err error) {
	if path := a.givenSocket(); path != "" {
		if err := unixsocket.CheckPath(path); err != nil {
			return "", nil, usageError{err}
		}
		absolute, err := filepath.Abs(path)
		return absolute, func() {}, err
	}
	parent, _ := a.getenv("XDG_RUNTIME_DIR")
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		parent = os.TempDir()
	}
	directory, err := os.MkdirTemp(parent, "secret-sidecar-dev-")
	if err != nil {
		return "", nil,
			fmt.Errorf("make a directory for the socket: %w: name a socket with --socket",
				err)
	}
	return filepath.Join(directory, "sidecar.sock"), func() { _ = os.RemoveAll(directory) }, nil
}

// waitUntilServing watches the sidecar's health until it is SERVING.
func waitUntilServing(ctx context.Context, socket string) error {
	a := app{socket: socket}
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	updates, err := healthpb.NewHealthClient(c.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	for {
		update, err := updates.Recv()
		if err != nil {
			return err
		}
		if update.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
}
