package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func (a *app) configCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "config",
		Short:   "Check the configuration file",
		Long:    "Works on the configuration file alone; no sidecar has to run.",
		Example: "  secret-sidecar config check --config config.yaml",
	})
	cmd.AddCommand(a.configCheckCommand())
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Report every mistake in the configuration, with its place",
		Long: `Reads the configuration as serve would, opens every file that it names, and looks the
socket's group up. Exit 2 when there are mistakes. What is valid but risky is a warning. No message
shows the value of a credential.`,
		Example: "  secret-sidecar config check --config config.yaml",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return fmt.Errorf("%q takes no arguments: did you mean --config %s",
					cmd.CommandPath(), args[0])
			}
			return noArgs(cmd, args)
		},
	}
	path := addConfigFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		source, err := a.findConfig(*path, cmd.Flags().Changed("config"))
		if err != nil {
			return err
		}
		loaded, err := source.check()
		if err != nil {
			return err
		}
		for _, risk := range risksOf(loaded) {
			if _, err := fmt.Fprintf(a.err, "warning: %s\n", risk); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(a.out, "OK: %s, %s\n", source, plural(len(loaded.Connections), "connection"))
		return err
	}
	return cmd
}

// risksOf returns what is valid and may do what nobody wants.
func risksOf(loaded *config.Config) []string {
	var risks []string
	for _, risk := range loaded.Risks {
		risks = append(risks, risk.String())
	}
	if err := unixsocket.Exposed(loaded.Socket.Path); err != nil {
		risks = append(risks, "socket.path: "+err.Error())
	}
	return risks
}
