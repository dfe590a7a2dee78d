package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/telemetry"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// flushTimeout bounds how long shutdown waits for the last metrics and traces to be exported.
const flushTimeout = 3 * time.Second

func (a *app) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar",
		Long: `Runs the sidecar until SIGTERM or SIGINT, which let requests in progress finish; a second
one ends it at once. The socket answers from the start, health says when the logins are there.

Without a configuration file, VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT, VAULT_ROLE_ID(_FILE) and
VAULT_SECRET_ID(_FILE) make one connection called "default". The file is watched, and SIGHUP
re-reads it: a valid change takes effect without dropping a request, an invalid one is refused and
logged.

The socket is that of --socket, else of SECRET_SIDECAR_SOCKET, else of socket.path in the file,
else ` + config.DefaultSocketPath + `.`,
		Example: `  secret-sidecar serve
  secret-sidecar serve --config config.yaml --socket ~/.secret-sidecar/sidecar.sock --log-format text`,
		Args: noArgs,
	}
	path := addConfigFlag(cmd)
	logs := addLogFlags(cmd, "info", "debug", "warn", "error")
	drain := addDrainTimeout(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hangups := catchHangups()
		if err := checkDrainTimeout(*drain); err != nil {
			return err
		}
		source, err := a.findConfig(*path, cmd.Flags().Changed("config"))
		if err != nil {
			return err
		}
		log := logs.open(a.err)
		defer log.close()
		return serve(cmd.Context(), source, hangups, log,
			server.Options{Logger: log.Logger, DrainTimeout: *drain})
	}
	return cmd
}

func addDrainTimeout(cmd *cobra.Command) *time.Duration {
	return cmd.Flags().Duration("drain-timeout", 10*time.Second,
		"how long requests in progress may take to finish at the end")
}

func checkDrainTimeout(drain time.Duration) error {
	if drain <= 0 {
		return usagef("--drain-timeout is %v: give a time above zero, for example 10s", drain)
	}
	return nil
}

// serve runs the sidecar until ctx is done: harden, read the configuration, listen, then answer and
// log in side by side.
func serve(ctx context.Context, source configSource, hangups chan os.Signal, levels *sidecarLog,
	options server.Options) error {
	log := options.Logger
	slog.SetDefault(log) // for OpenTelemetry's errors, which know no logger
	protections := hardenProcess(log, source.getenv)
	watcher := source.watcher()
	defer watcher.Close()
	settings, err := source.load()
	if err != nil {
		return err
	}
	levels.follow(settings)
	source.warnOfSocket(log, settings)
	exports, err := telemetry.Setup(ctx, source.getenv, versionNumber())
	if err != nil {
		return usageError{err}
	}
	defer flush(ctx, exports, log)
	options = exported(options, exports, settings)
	auditing, err := openAudit(settings.Audit, log)
	if err != nil {
		return usageError{err}
	}
	defer auditing.close(log)
	options.Audit = auditing.log
	others, err := openFleet(settings.Fleet, log)
	if err != nil {
		return usageError{err}
	}
	defer closeFleet(others, log)
	options.Fleet = others
	warnOfRisks(log, settings)
	listener, err := listen(settings.Socket)
	if err != nil {
		return err
	}
	warnOfExposure(log, settings.Socket.Path)
	defer listener.Close() //nolint:errcheck // Serve has closed it unless something failed before
	asked, err := hardenAsAsked(log, settings, source)
	if err != nil {
		return err
	}
	options.Version, options.Protections = describeVersion(), slices.Concat(protections, asked)
	log.Info("configuration read", "from", source.String(), "connections",
		len(settings.Connections))
	return serveOn(ctx, listener, settings, options, &reloader{
		source: source, log: log, levels: levels, atStart: settings.AtStart,
		watcher: watcher, auditing: auditing, triggers: hangups,
	})
}

// serveOn answers on the listener and keeps the configuration up to date.
func serveOn(ctx context.Context, listener net.Listener, settings *config.Config,
	options server.Options, r *reloader) error {
	sidecar, err := server.New(options)
	if err != nil {
		return err
	}
	if err := sidecar.Apply(settings.Settings); err != nil {
		// Nothing was tried over the network yet, so this is a mistake in the configuration.
		return usageError{fmt.Errorf("set up the connections: %w", err)}
	}
	options.Logger.Info("serving", "socket", settings.Socket.Path)
	r.sidecar = sidecar
	reloads := startReloading(ctx, r)
	defer reloads.stop()
	return sidecar.Serve(ctx, listener)
}

// exported adds what telemetry needs of the server.
func exported(options server.Options, exports *telemetry.Telemetry,
	settings *config.Config) server.Options {
	options.ServerOptions = exports.ServerOptions()
	options.Meter, options.Tracer, options.TracePaths = exports.Meter(), exports.Tracer(),
		settings.TracePaths
	return options
}

// listen opens the socket. A bad path, mode or group is a mistake of the configuration.
func listen(socket unixsocket.Socket) (net.Listener, error) {
	listener, err := unixsocket.Listen(socket)
	if errors.Is(err, unixsocket.ErrConfig) {
		return nil, usageError{withSocketHint(err)}
	}
	return listener, err
}

// warnOfExposure says that others can take the socket's place.
func warnOfExposure(log *slog.Logger, path string) {
	if err := unixsocket.Exposed(path); err != nil {
		log.Warn("the socket's directory is not private", "socket", path, "error", err)
	}
}

// warnOfRisks says what is valid in the configuration and may do what nobody wants.
func warnOfRisks(log *slog.Logger, settings *config.Config) {
	for _, risk := range settings.Risks {
		log.Warn("the configuration has a risk", "risk", risk.String())
	}
}

// withSocketHint says what to do when this user lacks a permission for the socket.
func withSocketHint(err error) error {
	failed, ok := errors.AsType[*fs.PathError](err)
	switch {
	case !ok || !errors.Is(err, fs.ErrPermission):
		return err
	case failed.Op == "mkdir":
		return fmt.Errorf("%w: create it for this user, or choose another socket with --socket "+
			"or socket.path", err)
	case failed.Op == "chown":
		return fmt.Errorf("%w: make this user a member of the group, or choose another one with "+
			"socket.group", err)
	}
	return fmt.Errorf("%w: let this user write in the socket's directory, or choose another socket "+
		"with --socket or socket.path", err)
}

// flush exports what telemetry still holds. It runs after ctx is done, so it has a bound of its
// own.
func flush(ctx context.Context, exports *telemetry.Telemetry, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := exports.Shutdown(ctx); err != nil {
		log.Warn("the last metrics and traces may be lost", "error", err)
	}
}
