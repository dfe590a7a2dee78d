package conn

import (
	"fmt"
	"slices"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// CheckStatus is how one check of a test ended.
type CheckStatus int

const (
	// CheckPassed means: all is well.
	CheckPassed CheckStatus = iota + 1
	// CheckWarning means: secrets can be read, but something is not as expected.
	CheckWarning
	// CheckFailed means: the connection does not work.
	CheckFailed
	// CheckSkipped means: not tried, because an earlier check failed or nothing was asked for.
	CheckSkipped
)

// String returns the status in lower case.
func (s CheckStatus) String() string {
	switch s {
	case CheckPassed:
		return "passed"
	case CheckWarning:
		return "warning"
	case CheckFailed:
		return "failed"
	case CheckSkipped:
		return "skipped"
	}
	return fmt.Sprintf("check status(%d)", int(s))
}

// Report is the outcome of a connection test. Its texts hold no credential, no secret value and
// nothing that Vault wrote, so anybody who may ask for a test may see them.
type Report struct {
	// Checks are "reach", "login", "mounts" and "path", always all four and in this order.
	Checks []Check
	// VaultVersion is empty when Vault was not reached.
	VaultVersion string
	// TokenTTL is the life of the test's own token; 0 without a login, and for a token that never
	// expires.
	TokenTTL time.Duration
	// Policies are the test token's.
	Policies []string
	// Mounts are the secrets engines that the token may list, by path, without Vault's own; nil
	// when it may not list them.
	Mounts []vault.Mount
}

// Check is one step of a test.
type Check struct {
	Name   string
	Status CheckStatus
	// Message says what was found; Remedy what to do about it, and is set on every failure.
	Message, Remedy string
	// Took is how long the step took; 0 when it was skipped.
	Took time.Duration
}

// OK reports whether no check failed.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Status == CheckFailed })
}

func passed(format string, args ...any) Check {
	return Check{Status: CheckPassed, Message: fmt.Sprintf(format, args...)}
}

func warning(message, remedy string) Check {
	return Check{Status: CheckWarning, Message: message, Remedy: remedy}
}

func failed(message, remedy string) Check {
	return Check{Status: CheckFailed, Message: message, Remedy: remedy}
}

func skipped(message string) Check { return Check{Status: CheckSkipped, Message: message} }
