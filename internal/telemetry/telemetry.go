// Package telemetry sets OpenTelemetry up from the standard OTEL_* variables. With none of them asking for an
// exporter it sets nothing up: no goroutine, no connection, no cost for a request.
package telemetry

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/grpc"
)

// serviceName is the resource's service.name unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says another.
const serviceName = "secret-sidecar"

// durationBuckets are the bounds, in seconds, of every histogram of durations: an answer from the cache takes
// some 100 µs, and the libraries' default begins at 5 ms.
var durationBuckets = []float64{
	25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
}

// Telemetry is what Setup has started. Its methods may be called once each, from any goroutine.
type Telemetry struct {
	stops   []func(context.Context) error
	options []grpc.ServerOption
}

// Setup starts the exporters that the environment asks for and makes their providers the global ones. getenv
// only decides whether: the SDK reads the details from the process's environment by itself. An error means
// that a variable holds a value that no exporter understands; nothing is left running then.
func Setup(ctx context.Context, getenv func(string) (string, bool)) (*Telemetry, error) {
	telemetry := &Telemetry{}
	wanted := wantedSignals(getenv)
	if wanted == (signals{}) {
		return telemetry, nil
	}
	if err := telemetry.start(ctx, wanted); err != nil {
		return nil, errors.Join(err, telemetry.Shutdown(ctx))
	}
	otel.SetErrorHandler(newErrorLogger())
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return telemetry, nil
}

// ServerOptions returns what makes a gRPC server report its calls, health checks excepted; nil when nothing is
// exported.
func (t *Telemetry) ServerOptions() []grpc.ServerOption { return t.options }

// Shutdown exports what is still held and stops everything that Setup started, within ctx.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var failed error
	for _, stop := range t.stops {
		failed = errors.Join(failed, stop(ctx))
	}
	return failed
}

func (t *Telemetry) start(ctx context.Context, wanted signals) error {
	about, err := describeService(ctx)
	if err != nil {
		return err
	}
	if wanted.traces {
		if err := t.startTraces(ctx, about); err != nil {
			return err
		}
	}
	if wanted.metrics {
		return t.startMetrics(ctx, about)
	}
	return nil
}

func (t *Telemetry) startTraces(ctx context.Context, about *resource.Resource) error {
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return fmt.Errorf("set up the export of traces (see the OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_* variables): %w", err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about))
	t.stops = append(t.stops, provider.Shutdown)
	otel.SetTracerProvider(provider)
	t.options = append(t.options, grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
		otelgrpc.WithMeterProvider(noop.NewMeterProvider()), // callDurations records
	)))
	return nil
}

func (t *Telemetry) startMetrics(ctx context.Context, about *resource.Resource) error {
	reader, err := autoexport.NewMetricReader(ctx)
	if err != nil {
		return fmt.Errorf("set up the export of metrics (see the OTEL_METRICS_EXPORTER and OTEL_EXPORTER_OTLP_* variables): %w", err)
	}
	provider := metric.NewMeterProvider(metric.WithReader(reader), metric.WithResource(about), metric.WithView(fineDurations()))
	t.stops = append(t.stops, provider.Shutdown)
	otel.SetMeterProvider(provider)
	calls, err := newCallDurations(provider.Meter(serviceName))
	if err != nil {
		return err
	}
	t.options = append(t.options, grpc.UnaryInterceptor(calls.intercept)) // before all that are chained
	// Goroutines, memory and garbage collection, read when metrics are exported. It has nothing to stop.
	if err := runtime.Start(runtime.WithMeterProvider(provider)); err != nil {
		return fmt.Errorf("set up the metrics of the Go runtime: %w", err)
	}
	return nil
}

func fineDurations() metric.View {
	return metric.NewView(
		metric.Instrument{Kind: metric.InstrumentKindHistogram, Unit: "s"},
		metric.Stream{Aggregation: metric.AggregationExplicitBucketHistogram{Boundaries: durationBuckets}},
	)
}

func describeService(ctx context.Context) (*resource.Resource, error) {
	about, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(serviceName)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // last, so that the environment wins
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return about, nil
}
