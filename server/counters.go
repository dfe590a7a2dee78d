package server

import (
	"context"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// kind is how a request for one value ended: one of these, or kindError and the place of its reason
// in reasons.
type kind int

const (
	kindVault kind = iota
	kindCache
	kindStale
	kindNegative  // an absence that is remembered
	kindCancelled // the client gave up: nothing has failed
	kindError
)

// kindNames are the kinds in metrics and spans.
var kindNames = [...]string{kindVault: "vault", kindCache: "cache", kindStale: "stale", kindNegative: "negative",
	kindCancelled: "cancelled", kindError: "error"}

// reasons are those that a value can be refused with. The last one stands for what is not listed.
var reasons = [...]string{
	"INVALID_PATH", "INVALID_REQUEST", "CONNECTION_REQUIRED", "CONNECTION_NOT_FOUND", "SECRET_NOT_FOUND", "KEY_NOT_FOUND",
	"VERSION_DELETED", "VERSION_DESTROYED", "CALLER_NOT_ALLOWED", "PROJECT_REQUIRED", "PROJECT_NOT_ALLOWED",
	"VAULT_PERMISSION_DENIED", "LOGIN_REJECTED", "NOT_KV_V2", "RATE_LIMITED", "SECRET_TOO_LARGE", "OVERLOADED",
	"VAULT_UNREACHABLE", "VAULT_SEALED", "VAULT_RATE_LIMITED", "LOGIN_PENDING", "SHUTTING_DOWN", "AUDIT_FAILED",
	"DEADLINE_EXCEEDED", "INTERNAL",
}

// alerting are the reasons that an alert is about, by whether a connection was found: shown from
// the start, at zero, for Prometheus takes no notice of how a series begins.
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
	case o.problem.reason == reasonCancelled:
		return kindCancelled
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
		Cancelled: t.resolves(kindCancelled),
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
// when it was applied. Apply cannot do so itself: it never sees a configuration that cannot be
// read.
func (s *Server) CountReload(err error) {
	s.reloads.lastRefused.Store(err != nil)
	if err != nil {
		s.reloads.refused.Add(1)
		return
	}
	s.reloads.applied.Add(1)
}

// callBuckets are the bounds, in seconds, of the durations of Vault calls. Beside a worker Vault is
// rarely nearer than 250 µs; a cached answer of a proxy on the same machine is.
var callBuckets = []float64{
	25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
}

// ageBuckets are the bounds, in seconds, of the ages of values. The usual ttl is an hour, and so is
// max_stale.
var ageBuckets = []float64{1, 5, 15, 60, 300, 900, 1800, 2700, 3600, 5400, 7200, 14400, 43200, 86400}

// instruments are those that record at once what happens. Nil is no metrics.
type instruments struct {
	ages  metric.Float64Histogram
	calls metric.Float64Histogram
}

func (m *metrics) newInstruments() *instruments {
	ages, err := m.meter.Float64Histogram("secret_sidecar.value.age", metric.WithUnit("s"),
		metric.WithDescription("How long ago the answered values were read from Vault"),
		metric.WithExplicitBucketBoundaries(ageBuckets...))
	m.check(err)
	// See https://opentelemetry.io/docs/specs/semconv/http/http-metrics/, of version 1.43.
	calls, err := m.meter.Float64Histogram("http.client.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of HTTP client requests."), metric.WithExplicitBucketBoundaries(callBuckets...))
	m.check(err)
	return &instruments{ages: ages, calls: calls}
}

// recorder records what happens on one connection, with attributes that are built once. It is safe
// for concurrent use.
type recorder struct {
	*instruments
	connection string
	server     []attribute.KeyValue // Vault's address
	ageOptions [kindNegative][]metric.RecordOption

	mu          sync.RWMutex
	callOptions map[vault.Call][]metric.RecordOption // guarded by mu; without their durations, they are few
}

// recorder returns nil when there are no metrics.
func (i *instruments) recorder(connection, address string) *recorder {
	if i == nil {
		return nil
	}
	r := &recorder{instruments: i, connection: connection, server: serverAttributes(address), callOptions: map[vault.Call][]metric.RecordOption{}}
	for e := range r.ageOptions {
		r.ageOptions[e] = recordOptions(named(connection), attribute.String(attrSource, kind(e).outcome()))
	}
	return r
}

func recordOptions(attributes ...attribute.KeyValue) []metric.RecordOption {
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attributes...))}
}

// serverAttributes are server.address and server.port of the semantic conventions; none for an
// empty address.
func serverAttributes(address string) []attribute.KeyValue {
	parsed, err := url.Parse(address)
	if err != nil || address == "" {
		return nil // vault.Open refuses it
	}
	attributes := []attribute.KeyValue{attribute.String("server.address", parsed.Hostname())}
	port := map[string]int{"http": 80, "https": 443}[parsed.Scheme]
	if given, err := strconv.Atoi(parsed.Port()); err == nil {
		port = given
	}
	return append(attributes, attribute.Int("server.port", port))
}

// age records that a value was answered which was read at fetchedAt. It goes by the wall clock, as
// fetched_at does: after the clock was set back the metric shows less than what the cache goes by.
func (r *recorder) age(ctx context.Context, e kind, fetchedAt time.Time) {
	r.ages.Record(ctx, max(time.Since(fetchedAt).Seconds(), 0), r.ageOptions[e]...)
}

// call records a call of Vault. Its trace, if any, is not at hand.
func (r *recorder) call(call vault.Call) {
	took := call.Took
	call.Took = 0
	r.mu.RLock()
	options := r.callOptions[call]
	r.mu.RUnlock()
	if options == nil {
		options = recordOptions(r.attributesOf(call)...)
		r.mu.Lock()
		r.callOptions[call] = options
		r.mu.Unlock()
	}
	r.calls.Record(context.Background(), took.Seconds(), options...)
}

func (r *recorder) attributesOf(call vault.Call) []attribute.KeyValue {
	attributes := append([]attribute.KeyValue{
		named(r.connection), attribute.String("vault.call", string(call.Kind)), attribute.String("http.request.method", call.Method),
	}, r.server...)
	if call.Status != 0 {
		attributes = append(attributes, attribute.Int("http.response.status_code", call.Status))
	}
	if call.ErrorType != "" {
		attributes = append(attributes, attribute.String(attrErrorType, call.ErrorType))
	}
	return attributes
}
