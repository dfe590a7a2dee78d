package telemetry

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// spanExporters starts the exporters of traces. When one fails it returns those before it.
func spanExporters(
	ctx context.Context, getenv lookup, names []string,
) ([]sdktrace.SpanExporter, error) {
	start := func() (sdktrace.SpanExporter, error) { return autoexport.NewSpanExporter(ctx) }
	return eachExporter(getenv, "OTEL_TRACES_EXPORTER", names, start)
}

// metricReaders starts a reader for each exporter of metrics. When one fails it returns those
// before it.
func metricReaders(ctx context.Context, getenv lookup, names []string) ([]sdkmetric.Reader, error) {
	start := func() (sdkmetric.Reader, error) { return autoexport.NewMetricReader(ctx) }
	return eachExporter(getenv, "OTEL_METRICS_EXPORTER", names, start)
}

// eachExporter calls start once for each name, with the variable set to it: autoexport takes a
// single name, and from the environment alone. Afterwards the variable is what it was. When a start
// fails it returns what the earlier ones have started.
func eachExporter[T any](
	getenv lookup, variable string, names []string, start func() (T, error),
) ([]T, error) {
	listed, found := getenv(variable)
	defer func() {
		if !found {
			_ = os.Unsetenv(variable)
			return
		}
		_ = os.Setenv(variable, listed) // it was there before
	}()
	var started []T
	for _, name := range names {
		if err := os.Setenv(variable, name); err != nil {
			return started, err
		}
		exporter, err := start()
		if err != nil {
			return started, fmt.Errorf("exporter %q: %w", name, err)
		}
		started = append(started, exporter)
	}
	return started, nil
}
