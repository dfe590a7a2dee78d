package server

import (
	"errors"
	"sync/atomic"

	"github.com/secret-sidecar/secret-sidecar/cache"
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

// endOf returns how a request for one value ended; secret is nil when err is not.
func endOf(secret *secretsidecarv1.ResolveResponse, err error) end {
	if err == nil {
		return endOfSource[secret.GetSource()]
	}
	if _, ok := errors.AsType[rememberedError](err); ok {
		return endNegative
	}
	if known, ok := endOfReason[problemOf(err).reason]; ok {
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

// rememberedError is an absence that was not looked for again.
type rememberedError struct{ error }

// Unwrap returns the absence.
func (e rememberedError) Unwrap() error { return e.error }

// orRemembered marks an error that the cache has remembered.
func orRemembered(source cache.Source, err error) error {
	if err != nil && source == cache.SourceCache {
		return rememberedError{err}
	}
	return err
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
