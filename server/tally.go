package server

import (
	"sync/atomic"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// end is how a request for one value ended: one of these, or endError and the place of its reason in reasons.
type end int

const (
	endVault end = iota
	endCache
	endStale
	endNegative // an absence that is remembered
	endError
)

// endNames are the ends in metrics and spans.
var endNames = [...]string{endVault: "vault", endCache: "cache", endStale: "stale", endNegative: "negative", endError: "error"}

// reasons are those that a value can be refused with. The last one stands for what is not listed.
var reasons = [...]string{
	"INVALID_PATH", "INVALID_REQUEST", "CONNECTION_REQUIRED", "CONNECTION_NOT_FOUND", "SECRET_NOT_FOUND", "KEY_NOT_FOUND",
	"VERSION_DELETED", "VERSION_DESTROYED", "CALLER_NOT_ALLOWED", "PROJECT_REQUIRED", "PROJECT_NOT_ALLOWED",
	"VAULT_PERMISSION_DENIED", "LOGIN_REJECTED", "NOT_KV_V2", "RATE_LIMITED", "SECRET_TOO_LARGE", "OVERLOADED",
	"VAULT_UNREACHABLE", "VAULT_SEALED", "VAULT_RATE_LIMITED", "LOGIN_PENDING", "SHUTTING_DOWN", "AUDIT_FAILED",
	"DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL",
}

// alerting are the reasons that an alert is about, by whether a connection was found: shown from the start, at zero, for
// Prometheus takes no notice of how a series begins.
var alerting = map[bool][]string{
	true: {
		"VAULT_PERMISSION_DENIED", "LOGIN_REJECTED", "NOT_KV_V2", "OVERLOADED", "VAULT_UNREACHABLE", "VAULT_SEALED",
		"VAULT_RATE_LIMITED", "LOGIN_PENDING", "AUDIT_FAILED", "DEADLINE_EXCEEDED", "INTERNAL",
	},
	false: {"CONNECTION_REQUIRED", "CONNECTION_NOT_FOUND"},
}

const maxEnds = int(endError) + len(reasons)

var endOfReason = func() map[string]end {
	ends := make(map[string]end, len(reasons))
	for i, reason := range reasons {
		ends[reason] = endError + end(i)
	}
	return ends
}()

var endOfSource = [...]end{
	secretsidecarv1.Source_SOURCE_VAULT: endVault,
	secretsidecarv1.Source_SOURCE_CACHE: endCache,
	secretsidecarv1.Source_SOURCE_STALE: endStale,
}

// endOf returns the end that an outcome is counted as.
func endOf(o *outcome) end {
	switch {
	case o.problem == nil:
		return endOfSource[o.secret.GetSource()]
	case o.remembered:
		return endNegative
	}
	if known, ok := endOfReason[o.problem.reason]; ok {
		return known
	}
	return end(maxEnds - 1)
}

// outcome and reason are the end in metrics and spans; reason is empty for all but errors.
func (e end) outcome() string { return endNames[min(e, endError)] }

func (e end) reason() string {
	if e < endError {
		return ""
	}
	return reasons[e-endError]
}

// tally counts what happened on one connection since the sidecar started, whatever reloads came between. Its counters
// only grow; it is safe for concurrent use.
type tally struct {
	connection string // its name; empty for requests that found none
	ended      [maxEnds]atomic.Uint64
	refreshes  atomic.Uint64 // reads begun ahead of expiry
	coalesced  atomic.Uint64 // callers who waited for a read of somebody else's

	invalidations, invalidated atomic.Uint64 // calls, and the secrets that they dropped
	loginRejections            atomic.Uint64
}

func (t *tally) resolves(e end) uint64 { return t.ended[e].Load() }

func (t *tally) resolveCounts() *secretsidecarv1.ResolveCounts {
	counts := &secretsidecarv1.ResolveCounts{
		Vault: t.resolves(endVault), Cache: t.resolves(endCache), Stale: t.resolves(endStale), Negative: t.resolves(endNegative),
	}
	for e := endError; e < end(maxEnds); e++ {
		counts.Errors += t.resolves(e)
	}
	return counts
}

// reloadCounts counts the reloads of the configuration.
type reloadCounts struct {
	applied, refused atomic.Uint64
	lastRefused      atomic.Bool // a restart would fail
}

// CountReload counts a reload of the configuration for the metrics: err is why it was refused, nil
// when it was applied. Apply cannot do so itself: it never sees a configuration that cannot be read.
func (s *Server) CountReload(err error) {
	s.reloads.lastRefused.Store(err != nil)
	if err != nil {
		s.reloads.refused.Add(1)
		return
	}
	s.reloads.applied.Add(1)
}
