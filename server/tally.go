package server

import (
	"sync/atomic"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// kind is how a request for one value ended: one of these, or kindError and the place of its reason in reasons.
type kind int

const (
	kindVault kind = iota
	kindCache
	kindStale
	kindNegative // an absence that is remembered
	kindError
)

// kindNames are the kinds in metrics and spans.
var kindNames = [...]string{kindVault: "vault", kindCache: "cache", kindStale: "stale", kindNegative: "negative", kindError: "error"}

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

const numKinds = int(kindError) + len(reasons)

var kindOfReason = func() map[string]kind {
	kinds := make(map[string]kind, len(reasons))
	for i, reason := range reasons {
		kinds[reason] = kindError + kind(i)
	}
	return kinds
}()

var kindOfSource = [...]kind{
	secretsidecarv1.Source_SOURCE_VAULT: kindVault,
	secretsidecarv1.Source_SOURCE_CACHE: kindCache,
	secretsidecarv1.Source_SOURCE_STALE: kindStale,
}

// kindOf returns the kind that an outcome is counted as.
func kindOf(o *outcome) kind {
	switch {
	case o.problem == nil:
		return kindOfSource[o.secret.GetSource()]
	case o.remembered:
		return kindNegative
	}
	if known, ok := kindOfReason[o.problem.reason]; ok {
		return known
	}
	return kind(numKinds - 1)
}

// outcome and reason are the kind in metrics and spans; reason is empty for all but errors.
func (e kind) outcome() string { return kindNames[min(e, kindError)] }

func (e kind) reason() string {
	if e < kindError {
		return ""
	}
	return reasons[e-kindError]
}

// counters count what happened on one connection since the sidecar started, whatever reloads came
// between. They only grow. They are safe for concurrent use.
type counters struct {
	connection string // its name; empty for requests that found none
	resolved   [numKinds]atomic.Uint64
	refreshes  atomic.Uint64 // reads begun ahead of expiry
	coalesced  atomic.Uint64 // callers who waited for a read of somebody else's

	invalidations, invalidated atomic.Uint64 // calls, and the secrets that they dropped
	loginRejections            atomic.Uint64
}

func (t *counters) resolves(e kind) uint64 { return t.resolved[e].Load() }

func (t *counters) resolveCounts() *secretsidecarv1.ResolveCounts {
	counts := &secretsidecarv1.ResolveCounts{
		Vault: t.resolves(kindVault), Cache: t.resolves(kindCache), Stale: t.resolves(kindStale), Negative: t.resolves(kindNegative),
	}
	for e := kindError; e < kind(numKinds); e++ {
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
