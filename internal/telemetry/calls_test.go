package telemetry

import (
	"context"
	"errors"
	"maps"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const resolveMethod = "/secretsidecar.v1.SecretService/Resolve"

func newTestDurations(t testing.TB) (*callDurations, *metric.ManualReader) {
	t.Helper()
	reader := metric.NewManualReader()
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	durations, err := newCallDurations(provider.Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	return durations, reader
}

func (d *callDurations) call(ctx context.Context, method string, err error) (any, error) {
	return d.intercept(ctx, "request", &grpc.UnaryServerInfo{FullMethod: method},
		func(context.Context, any) (any, error) { return "answer", err })
}

// recorded returns how many calls were recorded under each set of attributes.
func recorded(t *testing.T, reader *metric.ManualReader) map[attribute.Distinct]uint64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	counts := map[attribute.Distinct]uint64{}
	for _, scope := range all.ScopeMetrics {
		for _, one := range scope.Metrics {
			if one.Name != "rpc.server.call.duration" || one.Unit != "s" {
				t.Errorf("recorded %s in %s", one.Name, one.Unit)
			}
			for _, point := range one.Data.(metricdata.Histogram[float64]).DataPoints {
				counts[point.Attributes.Equivalent()] = point.Count
				if len(point.Bounds) != len(durationBuckets) {
					t.Errorf("bounds are %v", point.Bounds)
				}
			}
		}
	}
	return counts
}

func TestCallsAreRecordedByMethodAndStatus(t *testing.T) {
	durations, reader := newTestDurations(t)
	notFound, unavailable := status.Error(codes.NotFound, "n"), status.Error(codes.Unavailable, "u")
	for _, err := range []error{nil, nil, notFound, unavailable, errors.New("x")} {
		answer, got := durations.call(t.Context(), resolveMethod, err)
		if answer != "answer" || !errors.Is(got, err) {
			t.Errorf("%v became %v, %v", err, answer, got)
		}
	}
	_, _ = durations.call(t.Context(), healthPrefix+"Check", nil)

	set := func(code, errorType string) attribute.Distinct {
		all := []attribute.KeyValue{
			attribute.String("rpc.system.name", "grpc"),
			attribute.String("rpc.method", resolveMethod[1:]),
			attribute.String("rpc.response.status_code", code),
		}
		if errorType != "" {
			all = append(all, attribute.String("error.type", errorType))
		}
		made := attribute.NewSet(all...)
		return made.Equivalent()
	}
	want := map[attribute.Distinct]uint64{
		set("OK", ""): 2, set("NOT_FOUND", ""): 1,
		set("UNAVAILABLE", "UNAVAILABLE"): 1, set("UNKNOWN", "UNKNOWN"): 1,
	}
	if got := recorded(t, reader); !maps.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
}

func TestEveryStatusHasItsName(t *testing.T) {
	for code := range codes.Code(17) {
		if statusNames[code] == "" {
			t.Errorf("%v has no name", code)
		}
	}
}

func BenchmarkRecordACall(b *testing.B) {
	durations, _ := newTestDurations(b)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = durations.call(b.Context(), resolveMethod, nil)
	}
}
