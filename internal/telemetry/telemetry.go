// Package telemetry sets OpenTelemetry up from the standard OTEL_* variables, and from them alone:
// an operator configures the sidecar as every other service. Unless a variable asks for an exporter
// there is no goroutine, no connection and no cost for a request.
//
// Most of the package exists because the SDK's own way did not fit:
//
//   - The exporters are named here (exporters.go): autoexport takes a single name, and links the
//     exporters of logs, which nobody can turn on.
//   - The duration of calls is recorded here (calls.go): otelgrpc takes a quarter of the throughput
//     of cached answers for it.
//   - The SDK's errors and warnings pass a filter (errors.go): some quote a variable, and a
//     variable can hold a collector's credential.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// serviceName is the resource's service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES
// names another.
const serviceName = "secret-sidecar"

// lookup finds an environment variable, as os.LookupEnv does.
type lookup = func(name string) (string, bool)

// Telemetry is what Setup has started. Shutdown may be called once, the other methods by any
// goroutine at any time.
type Telemetry struct {
	meter   metric.Meter                  // nil: no metrics
	tracer  trace.Tracer                  // nil: no traces
	stops   []func(context.Context) error // one for each exporter
	options []grpc.ServerOption
}

// Setup starts the exporters that the environment asks for, and describes the service with its
// version. getenv only decides which: the SDK reads the details from the process's environment by
// itself. An error means that a variable holds a value which no exporter understands, or that an
// exporter cannot start. Nothing is left running then.
func Setup(ctx context.Context, getenv lookup, version string) (*Telemetry, error) {
	telemetry := &Telemetry{}
	wanted := wantedSignals(getenv)
	if wanted.nothing() {
		return telemetry, nil
	}
	otel.SetLogger(newWarningLogger()) // before anything reads a variable
	otel.SetErrorHandler(newErrorLogger())
	if err := telemetry.start(ctx, getenv, wanted, version); err != nil {
		return nil, errors.Join(err, telemetry.Shutdown(ctx))
	}
	return telemetry, nil
}

// Meter returns what makes metrics that are exported; nil when none are.
func (t *Telemetry) Meter() metric.Meter { return t.meter }

// Tracer returns what makes spans that are exported; nil when none are.
func (t *Telemetry) Tracer() trace.Tracer { return t.tracer }

// ServerOptions returns what makes a gRPC server report its calls, except health checks; nil when
// nothing is exported.
func (t *Telemetry) ServerOptions() []grpc.ServerOption { return t.options }

// Shutdown exports what is not exported yet and stops everything that Setup started, within ctx. It
// stops all exporters at once, so that a dead endpoint takes no time from the others.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	failed := make([]error, len(t.stops))
	var stopping sync.WaitGroup
	for i, stop := range t.stops {
		stopping.Go(func() { failed[i] = stop(ctx) })
	}
	stopping.Wait()
	return errors.Join(failed...)
}

func (t *Telemetry) start(
	ctx context.Context, getenv lookup, wanted signals, version string,
) error {
	about, err := describeService(ctx, version)
	if err != nil {
		return err
	}
	if len(wanted.traces) > 0 {
		if err := t.startTraces(ctx, getenv, about, version, wanted); err != nil {
			return err
		}
	}
	if len(wanted.metrics) > 0 {
		return t.startMetrics(ctx, getenv, about, version, wanted)
	}
	return nil
}

func (t *Telemetry) startTraces(
	ctx context.Context, getenv lookup, about *resource.Resource, version string, wanted signals,
) error {
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about)}
	exporters, err := spanExporters(ctx, getenv, wanted.traces)
	for _, exporter := range exporters {
		processor := sdktrace.NewBatchSpanProcessor(exporter)
		t.stops = append(t.stops, processor.Shutdown)
		options = append(options, sdktrace.WithSpanProcessor(processor))
	}
	if err != nil {
		return fmt.Errorf("set up the export of traces "+
			"(see the OTEL_TRACES_EXPORTER and OTEL_EXPORTER_OTLP_* variables): %w", err)
	}
	provider := sdktrace.NewTracerProvider(options...)
	t.tracer = provider.Tracer(serviceName,
		trace.WithInstrumentationVersion(version), trace.WithSchemaURL(semconv.SchemaURL))
	t.options = append(t.options, grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithFilter(filters.Not(filters.HealthCheck())),
		otelgrpc.WithTracerProvider(provider),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithMeterProvider(noop.NewMeterProvider()), // callDurations records
	)))
	return nil
}

func (t *Telemetry) startMetrics(
	ctx context.Context, getenv lookup, about *resource.Resource, version string, wanted signals,
) error {
	options := meterOptions(about)
	readers, err := metricReaders(ctx, getenv, wanted.metrics)
	for _, reader := range readers {
		t.stops = append(t.stops, reader.Shutdown)
		options = append(options, sdkmetric.WithReader(reader))
	}
	if err != nil {
		return fmt.Errorf("set up the export of metrics "+
			"(see the OTEL_METRICS_EXPORTER and OTEL_EXPORTER_* variables): %w", err)
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.meter = provider.Meter(serviceName,
		metric.WithInstrumentationVersion(version), metric.WithSchemaURL(semconv.SchemaURL))
	calls, err := newCallDurations(t.meter)
	if err != nil {
		return err
	}
	// It goes before all interceptors that are chained.
	t.options = append(t.options, grpc.UnaryInterceptor(calls.intercept))
	// Goroutines, memory and garbage collection are read when metrics are exported. Nothing has to
	// stop.
	if err := runtime.Start(runtime.WithMeterProvider(provider)); err != nil {
		return fmt.Errorf("set up the metrics of the Go runtime: %w", err)
	}
	return nil
}

// meterOptions are those of every meter provider. The number of series is not limited. The
// configuration, or what the sidecar can say, already bounds every attribute, and the SDK's own
// limit would swallow connections from the 500th on.
func meterOptions(about *resource.Resource) []sdkmetric.Option {
	return []sdkmetric.Option{sdkmetric.WithResource(about), sdkmetric.WithCardinalityLimit(0)}
}

// describeService says who exports. OpenTelemetry's error handler gets the mistakes in
// OTEL_RESOURCE_ATTRIBUTES, and the rest of the variable counts.
func describeService(ctx context.Context, version string) (*resource.Resource, error) {
	about, err := resource.New(ctx,
		// its service.instance.id tells the series of several sidecars apart
		resource.WithService(),
		resource.WithAttributes(semconv.ServiceName(serviceName), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // last, so that the environment wins
	)
	if errors.Is(err, resource.ErrPartialResource) {
		otel.Handle(err)
		return about, nil
	}
	if err != nil {
		// err may quote the variable.
		return nil, errors.New("describe the service (see the OTEL_RESOURCE_ATTRIBUTES variable)")
	}
	return about, nil
}
