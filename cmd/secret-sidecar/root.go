package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
)

// socketEnv names the socket where --socket does not.
const socketEnv = "SECRET_SIDECAR_SOCKET"

// streams are the standard streams of the process. Data goes to out, every remark about it to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// app is what all commands share.
type app struct {
	streams
	getenv  lookup
	socket  string        // --socket; empty when not given
	timeout time.Duration // --timeout of the commands that ask a sidecar or Vault
}

// run executes the command line and returns the exit code: 0 done, 1 failed, 2 usage or
// configuration.
func run(ctx context.Context, args []string, std streams, getenv lookup) int {
	a := &app{streams: std, getenv: getenv}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	started := false
	markStart(root, func() { started = true })
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if !started { // cobra refused the command line before any command of ours ran
		err = usageError{fmt.Errorf("%w: see %q", err, command.CommandPath()+" --help")}
	}
	printError(std.err, err)
	return exitCode(err)
}

// markStart makes every command below parent call started before it runs.
func markStart(parent *cobra.Command, started func()) {
	if runE := parent.RunE; runE != nil {
		parent.RunE = func(cmd *cobra.Command, args []string) error {
			started()
			return runE(cmd, args)
		}
	}
	for _, child := range parent.Commands() {
		markStart(child, started)
	}
}

func (a *app) rootCommand() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "secret-sidecar",
		Short: "Resolve references to HashiCorp Vault secrets over a local Unix socket",
		Long: `secret-sidecar runs beside a worker, logs in to HashiCorp Vault by AppRole, and answers
references such as secret/data/mysec/api_key over a Unix socket, from its cache where it may.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.`,
		Example: `  secret-sidecar dev                                  # try it: no Vault, no set-up
  secret-sidecar serve --config config.yaml           # run it
  secret-sidecar resolve secret/data/mysec/api_key    # ask it`,
		Version:       describeVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("{{.Version}}\n")
	root.PersistentFlags().StringVar(&a.socket, "socket", "",
		fmt.Sprintf("Unix socket of the sidecar (default $%s, else %s)", socketEnv,
			config.DefaultSocketPath))
	root.AddCommand(
		a.serveCommand(), a.devCommand(),
		a.resolveCommand(), a.invalidateCommand(), a.scanCommand(), a.connectionsCommand(), a.healthCommand(),
		a.configCommand(), a.versionCommand(), a.licensesCommand(),
	)
	root.SetHelpCommand(helpCommand(root))
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		group(completion)
	}
	return root
}

// helpCommand is cobra's, except that an unknown topic is wrong usage.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			topic, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no help on %q: see `secret-sidecar --help`",
					strings.Join(args, " "))
			}
			return topic.Help()
		},
	}
}

// group makes a command that only holds others: using it alone is wrong usage.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			cmd.SetOut(cmd.ErrOrStderr())
			_ = cmd.Help()
			return fmt.Errorf("a command is missing after %q", cmd.CommandPath())
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("unknown command %q for %q, did you mean %s", args[0],
				cmd.CommandPath(), strings.Join(near, " or "))
		}
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	cmd.SuggestionsMinimumDistance = 2
	// cobra checks Args only for a command that runs; this one never does
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// waitForAnswer is the meaning of --timeout for commands that only ask a running sidecar.
const waitForAnswer = "how long to wait for the sidecar's answer"

// addTimeout gives a command its --timeout.
func (a *app) addTimeout(cmd *cobra.Command, usage string) {
	cmd.Flags().DurationVar(&a.timeout, "timeout", 30*time.Second, usage)
}

// givenSocket returns the socket path that the command line or the environment names; empty when
// neither does. gRPC's forms unix:///path and unix:path are paths too.
func (a *app) givenSocket() string {
	path := a.socket
	if path == "" {
		path, _ = a.getenv(socketEnv)
	}
	if target, ok := strings.CutPrefix(path, "unix:"); ok {
		return strings.TrimPrefix(target, "//")
	}
	return path
}

// socketPath is givenSocket or the default.
func (a *app) socketPath() string {
	if path := a.givenSocket(); path != "" {
		return path
	}
	return config.DefaultSocketPath
}
