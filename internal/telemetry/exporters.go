package telemetry

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// spanExporters starts the exporters of traces. When one fails it returns those before it.
func spanExporters(
	ctx context.Context, getenv lookup, names []string,
) ([]sdktrace.SpanExporter, error) {
	return eachExporter(names, map[string]func() (sdktrace.SpanExporter, error){
		"otlp": func() (sdktrace.SpanExporter, error) {
			grpc, err := overGRPC(getenv, "TRACES")
			if err != nil {
				return nil, err
			}
			if grpc {
				return otlptracegrpc.New(ctx)
			}
			return otlptracehttp.New(ctx)
		},
		"console": func() (sdktrace.SpanExporter, error) { return stdouttrace.New() },
	})
}

// metricReaders starts a reader for each exporter of metrics. When one fails it returns those
// before it.
func metricReaders(ctx context.Context, getenv lookup, names []string) ([]sdkmetric.Reader, error) {
	return eachExporter(names, map[string]func() (sdkmetric.Reader, error){
		"otlp": func() (sdkmetric.Reader, error) { return periodic(otlpMetrics(ctx, getenv)) },
		"console": func() (sdkmetric.Reader, error) {
			return periodic(stdoutmetric.New())
		},
		"prometheus": func() (sdkmetric.Reader, error) { return servePrometheus(ctx, getenv) },
	})
}

func otlpMetrics(ctx context.Context, getenv lookup) (sdkmetric.Exporter, error) {
	grpc, err := overGRPC(getenv, "METRICS")
	if err != nil {
		return nil, err
	}
	if grpc {
		return otlpmetricgrpc.New(ctx)
	}
	return otlpmetrichttp.New(ctx)
}

// periodic reads for an exporter that pushes. The SDK takes the interval from the environment.
func periodic(exporter sdkmetric.Exporter, err error) (sdkmetric.Reader, error) {
	if err != nil {
		return nil, err
	}
	return sdkmetric.NewPeriodicReader(exporter), nil
}

// eachExporter starts the named exporters. When one fails it returns what the earlier ones have
// started.
func eachExporter[T any](names []string, known map[string]func() (T, error)) ([]T, error) {
	var started []T
	for _, name := range names {
		start, ok := known[name]
		if !ok {
			return started, fmt.Errorf("exporter %q is unknown", name)
		}
		exporter, err := start()
		if err != nil {
			return started, fmt.Errorf("exporter %q: %w", name, err)
		}
		started = append(started, exporter)
	}
	return started, nil
}

// overGRPC says whether OTLP travels by gRPC rather than by HTTP.
func overGRPC(getenv lookup, signal string) (bool, error) {
	protocol := trimmed(getenv, "OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL")
	if protocol == "" {
		protocol = trimmed(getenv, "OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "grpc":
		return true, nil
	case "", "http/protobuf":
		return false, nil
	}
	return false, errors.New("the OTLP protocol must be grpc or http/protobuf")
}
