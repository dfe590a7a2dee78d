package server

import (
	"context"
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// callBuckets are the bounds, in seconds, of the durations of Vault calls. Beside a worker Vault is rarely nearer than
// 250 µs; a cached answer of a proxy on the same machine is.
var callBuckets = []float64{
	25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
}

// ageBuckets are the bounds, in seconds, of the ages of values. The usual ttl is an hour, and so is max_stale.
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

// recorder records what happens on one connection, with attributes that are built once. It is safe for concurrent use.
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

// serverAttributes are server.address and server.port of the semantic conventions; none for an empty address.
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

// age records that a value was answered which was read at fetchedAt. It goes by the wall clock, as fetched_at does: after
// the clock was set back the metric shows less than what the cache goes by.
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
