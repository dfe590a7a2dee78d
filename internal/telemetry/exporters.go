package telemetry

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// spanExporters makes the exporters of traces, and returns what it has made when one fails.
func spanExporters(ctx context.Context, getenv lookup, names []string) ([]sdktrace.SpanExporter, error) {
	return eachExporter(getenv, "OTEL_TRACES_EXPORTER", names, func() (sdktrace.SpanExporter, error) {
		return autoexport.NewSpanExporter(ctx)
	})
}

// metricReaders makes one reader for each exporter of metrics, and returns what it has made when one fails.
func metricReaders(ctx context.Context, getenv lookup, names []string) ([]sdkmetric.Reader, error) {
	return eachExporter(getenv, "OTEL_METRICS_EXPORTER", names, func() (sdkmetric.Reader, error) {
		return autoexport.NewMetricReader(ctx)
	})
}

// eachExporter calls start with the variable set to one name after the other: autoexport takes one, and from the
// environment alone. Afterwards the variable is what it was. It returns what was started when a start fails.
func eachExporter[T any](getenv lookup, variable string, names []string, start func() (T, error)) ([]T, error) {
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
