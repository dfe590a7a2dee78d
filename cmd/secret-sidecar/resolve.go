package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

func (a *app) resolveCommand() *cobra.Command {
	request := &secretsidecarv1.ResolveRequest{}
	var maxAge, maxStale time.Duration
	cmd := &cobra.Command{
		Use:   "resolve REF",
		Short: "Print the value that a reference points to",
		Long: `Asks the running sidecar for one value and prints it, followed by a newline.

REF is mount/data/path/to/secret/key. A key that holds a slash is given with --key; REF is the
secret alone then. With --output json the whole answer is printed, the value exactly as it is.

--max-age 0s reads Vault now. In an outage a stale copy still comes, with a warning, unless
--max-stale 0s refuses it.`,
		Example: `  secret-sidecar resolve secret/data/mysec/api_key
  secret-sidecar resolve secret/data/mysec --key tls/key --connection prod
  secret-sidecar resolve secret/data/mysec/api_key --max-age 0s --output json`,
		Args: exactly("one reference, for example secret/data/mysec/api_key", 1),
	}
	output := addChoice(cmd, "output", "what to print: the value alone, or the whole answer",
		"value", "json")
	flags := cmd.Flags()
	flags.StringVar(&request.Connection, "connection", "",
		"connection to use; may be left out when there is only one")
	flags.StringVar(&request.ProjectId, "project", "", "project on whose behalf to ask")
	flags.StringVar(&request.Key, "key", "", "key inside the secret, when it holds a slash")
	flags.Uint32Var(&request.Version, "version", 0, "version of the secret; 0 is the latest")
	flags.DurationVar(&maxAge, "max-age", 0,
		"oldest cached copy to accept; 0s reads Vault now, or in an outage returns a stale copy "+
			"(default the connection's ttl)")
	flags.DurationVar(&maxStale, "max-stale", 0,
		"how far beyond its ttl a copy may be while Vault is out; 0s is never (default the "+
			"connection's max_stale)")
	a.addTimeout(cmd, waitForAnswer)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request.Path = args[0]
		if flags.Changed("max-age") {
			request.MaxAge = durationpb.New(maxAge)
		}
		if flags.Changed("max-stale") {
			request.MaxStale = durationpb.New(maxStale)
		}
		answer, err := ask(cmd.Context(), a, secretsidecarv1.SecretServiceClient.Resolve, request)
		if err != nil {
			return err
		}
		if output.value == "json" {
			return printJSON(a.out, answer)
		}
		warnIfStale(a.err, answer, time.Now())
		_, err = fmt.Fprintln(a.out, answer.GetValue())
		return err
	}
	return cmd
}

// warnIfStale warns that the value is from before an outage, which the value alone does not show.
func warnIfStale(w io.Writer, answer *secretsidecarv1.ResolveResponse, now time.Time) {
	if answer.GetSource() != secretsidecarv1.Source_SOURCE_STALE {
		return
	}
	fetched := answer.GetFetchedAt().AsTime()
	fmt.Fprintf(w,
		"secret-sidecar: warning: Vault is out, this copy was read %v ago (%s): add --max-stale "+
			"0s to refuse stale copies\n",
		max(now.Sub(fetched), 0).Round(time.Second), fetched.Format(time.RFC3339))
}
