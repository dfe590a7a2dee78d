package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// reportError is the error of `connections test` after it printed a report that is not OK.
func reportError(name string, report conn.Report) error {
	for _, check := range report.Checks {
		if check.Status == conn.CheckFailed && check.Name != "path" {
			return fmt.Errorf("connection %q cannot be used: the report says what to do", name)
		}
	}
	return fmt.Errorf("connection %q works, but the path check failed: the report says what to do",
		name)
}

// printReport prints one line per check with its remedy below, and what the login gave.
func printReport(w io.Writer, name string, report conn.Report) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "connection %s\n", name)
	for _, check := range report.Checks {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", check.Name, checkStatusName(check.Status),
			tookText(check.Took), check.Message)
		if check.Remedy != "" {
			fmt.Fprintf(table, "  \t\t\t-> %s\n", check.Remedy)
		}
	}
	for _, fact := range facts(report) {
		fmt.Fprintf(table, "  %s\n", fact)
	}
	return table.Flush()
}

// facts are the lines about what the login gave; none without one.
func facts(report conn.Report) []string {
	var facts []string
	if report.VaultVersion != "" {
		facts = append(facts, "vault "+report.VaultVersion)
	}
	if len(report.Policies) > 0 {
		ttl := "unlimited"
		if report.TokenTTL > 0 {
			ttl = report.TokenTTL.String()
		}
		facts = append(facts, "token ttl "+ttl+", policies "+strings.Join(report.Policies, ", "))
	}
	for _, mount := range report.Mounts {
		kind := mount.Type
		if mount.KVVersion > 0 {
			kind = fmt.Sprintf("%s version %d", mount.Type, mount.KVVersion)
		}
		facts = append(facts, "mount "+mount.Path+" "+kind)
	}
	return facts
}

func checkStatusName(s conn.CheckStatus) string {
	return strings.TrimPrefix(secretsidecarv1.CheckStatus(s).String(), "CHECK_STATUS_") // #nosec G115 -- numbered alike
}

func tookText(took time.Duration) string {
	if took == 0 {
		return "-"
	}
	return took.Round(100 * time.Microsecond).String()
}

// reportFromAnswer is the report that the sidecar sent.
func reportFromAnswer(answer *secretsidecarv1.TestConnectionResponse) conn.Report {
	report := conn.Report{
		VaultVersion: answer.GetVaultVersion(),
		TokenTTL:     answer.GetTokenTtl().AsDuration(),
		Policies:     answer.GetPolicies(),
	}
	for _, check := range answer.GetChecks() {
		report.Checks = append(report.Checks, conn.Check{
			Name:    check.GetName(),
			Status:  conn.CheckStatus(check.GetStatus()), // numbered alike
			Message: check.GetMessage(),
			Remedy:  check.GetRemedy(),
			Took:    check.GetTook().AsDuration(),
		})
	}
	for _, mount := range answer.GetMounts() {
		report.Mounts = append(report.Mounts,
			vault.Mount{Path: mount.GetPath(), Type: mount.GetType(),
				KVVersion: mount.GetKvVersion()})
	}
	return report
}
