package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// minWatchInterval keeps a mistyped interval from loading the sidecar.
const minWatchInterval = 100 * time.Millisecond

func (a *app) connectionsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the state of each connection",
		Long: `Asks the running sidecar for the state of every connection that the caller may use: since
when it is so, how long the token still lives, how many secrets are cached, what became of the
values asked for since the start (the share that was answered without Vault, how many by stale
copies, how many not at all), and, where something is wrong, what and what to do about it.

With --watch it asks again until it is interrupted, and shows a sidecar that is away as such. JSON
is then one object a line.`,
		Example: `  secret-sidecar connections list
  secret-sidecar connections list --watch
  secret-sidecar connections list --output json`,
		Args: noArgs,
	}
	output := addChoice(cmd, "output", "how to print it", "table", "json")
	watch := cmd.Flags().Bool("watch", false, "ask again until interrupted")
	interval := cmd.Flags().Duration("interval", 2*time.Second, "how often to ask with --watch")
	a.addTimeout(cmd, waitForAnswer)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *interval < minWatchInterval {
			return usagef("--interval is %v: give %v or more", *interval, minWatchInterval)
		}
		list := connectionList{app: a, json: output.value == "json"}
		if *watch {
			return list.watch(cmd.Context(), *interval)
		}
		return list.once(cmd.Context())
	}
	return cmd
}

// connectionList prints the connections.
type connectionList struct {
	*app
	json bool
}

func (l connectionList) once(ctx context.Context) error {
	answer, err := l.ask(ctx)
	if err != nil {
		return err
	}
	if l.json {
		return printJSON(l.out, answer)
	}
	return printStatus(l.out, answer, time.Now())
}

func (l connectionList) ask(ctx context.Context) (*secretsidecarv1.ListConnectionsResponse, error) {
	return ask(ctx, l.app, secretsidecarv1.SecretServiceClient.ListConnections,
		&secretsidecarv1.ListConnectionsRequest{})
}

// watch prints the connections every so often until ctx is done, which is a success. Wrong usage
// ends it at once.
func (l connectionList) watch(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		answer, err := l.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if usage, ok := errors.AsType[usageError](err); ok {
			return usage
		}
		if err := l.refresh(answer, err, time.Now()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// refresh prints one round of a watch: over the last one on a terminal, else below it.
func (l connectionList) refresh(answer *secretsidecarv1.ListConnectionsResponse, failure error,
	now time.Time) error {
	if l.json {
		if failure != nil {
			printError(l.err, failure)
			return nil
		}
		return printJSONLine(l.out, answer)
	}
	const clearScreen = "\x1b[H\x1b[2J" // keeps what was scrolled away
	var screen strings.Builder
	if isTerminal(l.out) {
		screen.WriteString(clearScreen)
	}
	fmt.Fprintf(&screen, "%s  secret-sidecar at %s\n\n", now.Format(time.DateTime), l.socketPath())
	if failure != nil {
		fmt.Fprintf(&screen, "%v\n", failure)
	} else if err := printStatus(&screen, answer, now); err != nil {
		return err
	}
	if !isTerminal(l.out) {
		screen.WriteString("\n")
	}
	_, err := io.WriteString(l.out, screen.String())
	return err
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printStatus prints the connections and, below them, that the audit log cannot be written: nobody
// may be answered then, however well the connections are.
func printStatus(w io.Writer, answer *secretsidecarv1.ListConnectionsResponse,
	now time.Time) error {
	if err := printConnections(w, answer.GetConnections(), now); err != nil {
		return err
	}
	for _, one := range answer.GetProcess().GetProtections() {
		if one.GetName() == "audit_log" && !one.GetInForce() {
			fmt.Fprintf(w, "\naudit log: %s\n", one.GetReason())
		}
	}
	return nil
}

// printConnections prints a line for each connection and, below it, what is wrong and what to do
// about it.
func printConnections(w io.Writer, connections []*secretsidecarv1.ConnectionStatus,
	now time.Time) error {
	var rows strings.Builder
	table := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table,
		"NAME\tSTATE\tSINCE\tTOKEN-LEFT\tCACHED\tHITS\tSTALE\tFAILED\tSCOPE\tADDRESS")
	for _, c := range connections {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\n", c.GetName(),
			stateName(c.GetState()), sinceText(c, now),
			tokenLeft(c, now), c.GetCachedSecrets(), hitRatio(c.GetResolves()),
			c.GetResolves().GetStale(), failures(c.GetResolves()),
			scopeName(c), addressName(c))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	// Errors are long: in the table they would widen a column.
	lines := strings.SplitAfter(rows.String(), "\n")
	text := lines[0]
	for i, c := range connections {
		text += lines[i+1]
		if failure := c.GetLastError(); failure != nil {
			text += "  " + failure.GetReason() + ": " + failure.GetMessage() + "\n"
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

func stateName(state secretsidecarv1.ConnectionState) string {
	return strings.TrimPrefix(state.String(), "CONNECTION_STATE_")
}

// sinceText is how long the state has lasted; "-" when the sidecar does not say.
func sinceText(c *secretsidecarv1.ConnectionStatus, now time.Time) string {
	if c.GetStateSince() == nil {
		return "-"
	}
	return shortDuration(now.Sub(c.GetStateSince().AsTime()))
}

// shortDuration writes the two largest units of a duration: 3d4h, 2h5m, 4m10s, 7s.
func shortDuration(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// hitRatio is the share of values that did not wait for Vault; errors count against it. "-" before
// the first value.
func hitRatio(counts *secretsidecarv1.ResolveCounts) string {
	hits := counts.GetCache() + counts.GetStale()
	all := hits + counts.GetVault() + failures(counts)
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(hits)/float64(all))
}

// failures counts the values that were not answered, remembered absences included: a flow that asks
// for them fails.
func failures(counts *secretsidecarv1.ResolveCounts) uint64 {
	return counts.GetErrors() + counts.GetNegative()
}

// scopeName names at most two projects, so that many do not widen the table. JSON has them all.
func scopeName(c *secretsidecarv1.ConnectionStatus) string {
	const most = 2
	if c.GetScope() == secretsidecarv1.Scope_SCOPE_PROJECT {
		projects := c.GetProjectIds()
		if more := len(projects) - most; more > 0 {
			projects = append(slices.Clone(projects[:most]), fmt.Sprintf("+%d", more))
		}
		return "project:" + strings.Join(projects, ",")
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
		return shortDuration(expires.AsTime().Sub(now))
	case c.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_READY:
		return "unlimited"
	}
	return "-"
}
