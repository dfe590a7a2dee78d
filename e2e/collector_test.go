package e2e_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traceservice "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collector is an OTLP receiver: what the sidecar exports ends up here. It is safe for concurrent
// use.
type collector struct {
	traceservice.UnimplementedTraceServiceServer
	metricsservice.UnimplementedMetricsServiceServer

	address string // host:port, of gRPC

	mu sync.Mutex
	// guarded by mu: all that came, as text, for the leak checker
	text    strings.Builder
	spans   []*tracepb.Span            // guarded by mu
	seen    map[string]*exportedMetric // guarded by mu: by name
	latest  map[string]float64         // guarded by mu: by name and attributes
	service map[string]string          // guarded by mu: attributes of the resource
}

// exportedMetric is what every point of a metric has in common.
type exportedMetric struct {
	kind, unit string
	attributes map[string]bool
}

// newCollector starts a receiver. The test's end stops it.
func (s *sandbox) newCollector() *collector {
	s.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(s.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	c := &collector{address: listener.Addr().String(), seen: map[string]*exportedMetric{},
		latest: map[string]float64{}, service: map[string]string{}}
	g := grpc.NewServer()
	traceservice.RegisterTraceServiceServer(g, traces{c})
	metricsservice.RegisterMetricsServiceServer(g, metrics{c})
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(listener) }()
	s.t.Cleanup(func() { g.Stop(); <-served })
	s.recordLive("what the collector received", c.String)
	return c
}

// String is all that came.
func (c *collector) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

type traces struct{ *collector }

// Export implements the trace service of OTLP.
func (c traces) Export(_ context.Context,
	request *traceservice.ExportTraceServiceRequest) (*traceservice.ExportTraceServiceResponse,
	error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(&c.text, request)
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &traceservice.ExportTraceServiceResponse{}, nil
}

type metrics struct{ *collector }

// Export implements the metrics service of OTLP.
func (c metrics) Export(_ context.Context,
	request *metricsservice.ExportMetricsServiceRequest) (
	*metricsservice.ExportMetricsServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(&c.text, request)
	clear(c.latest)
	for _, resource := range request.GetResourceMetrics() {
		for _, one := range resource.GetResource().GetAttributes() {
			c.service[one.GetKey()] = one.GetValue().GetStringValue()
		}
		for _, scope := range resource.GetScopeMetrics() {
			for _, one := range scope.GetMetrics() {
				c.note(one)
			}
		}
	}
	return &metricsservice.ExportMetricsServiceResponse{}, nil
}

// note must be called with mu held.
func (c *collector) note(one *metricspb.Metric) {
	name := one.GetName()
	metric := c.seen[name]
	if metric == nil {
		metric = &exportedMetric{unit: one.GetUnit(), attributes: map[string]bool{}}
		c.seen[name] = metric
	}
	add := func(attributes []*commonpb.KeyValue, value float64) {
		for _, attribute := range attributes {
			metric.attributes[attribute.GetKey()] = true
		}
		c.latest[series(name, attributeTexts(attributes))] = value
	}
	switch data := one.GetData().(type) {
	case *metricspb.Metric_Sum:
		metric.kind = "gauge"
		if data.Sum.GetIsMonotonic() {
			metric.kind = "counter"
		}
		for _, point := range data.Sum.GetDataPoints() {
			add(point.GetAttributes(), float64(point.GetAsInt()))
		}
	case *metricspb.Metric_Gauge:
		metric.kind = "gauge"
		for _, point := range data.Gauge.GetDataPoints() {
			add(point.GetAttributes(), float64(point.GetAsInt())+point.GetAsDouble())
		}
	case *metricspb.Metric_Histogram:
		metric.kind = "histogram"
		for _, point := range data.Histogram.GetDataPoints() {
			add(point.GetAttributes(), float64(point.GetCount()))
		}
	}
}

func attributeTexts(attributes []*commonpb.KeyValue) map[string]string {
	texts := map[string]string{}
	for _, one := range attributes {
		texts[one.GetKey()] = one.GetValue().GetStringValue()
		if number, ok := one.GetValue().GetValue().(*commonpb.AnyValue_IntValue); ok {
			texts[one.GetKey()] = fmt.Sprint(number.IntValue)
		}
	}
	return texts
}

// series names one value of a metric, with underscores in the place of the dots: the same for OTLP
// and Prometheus, but for the ends of the names.
func series(name string, attributes map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if !strings.HasPrefix(key, "otel_scope") {
			parts = append(parts, strings.ReplaceAll(key, ".", "_")+"="+attributes[key])
		}
	}
	return strings.ReplaceAll(name, ".", "_") + "{" + strings.Join(parts, ",") + "}"
}

// values are the latest ones by series; of a histogram, the count.
func (c *collector) values() map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.latest)
}

// metrics are those that ever came.
func (c *collector) metrics() map[string]*exportedMetric {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.seen)
}

// allSpans are those that came so far.
func (c *collector) allSpans() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// scrape reads a Prometheus endpoint with Prometheus's parser, and returns the values by series and
// the names of the metrics.
func scrape(t *testing.T, s *sandbox, address string) (values map[string]float64,
	names map[string]bool) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+address+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var text strings.Builder
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(io.TeeReader(answer.Body, &text))
	if err != nil {
		t.Fatalf("parse what Prometheus is given: %v", err)
	}
	s.record("a scrape", text.String())
	values, names = map[string]float64{}, map[string]bool{}
	for name, family := range families {
		names[name] = true
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue() +
				float64(metric.GetHistogram().GetSampleCount())
			values[series(name, labels)] = value
		}
	}
	return values, names
}
