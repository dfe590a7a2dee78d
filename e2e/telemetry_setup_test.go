package e2e_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// telemetrySetup is a sidecar whose telemetry a test reads, and everything that makes telemetry
// happen.
type telemetrySetup struct {
	*sandbox
	vault      *vaulttest.Vault
	proxy      *proxy
	login      *login // of prod
	team       *login
	collector  *collector
	prometheus string // host:port
	sidecar    *sidecar

	calls int
	names map[string]bool // of the metrics that Prometheus has seen
	// what became of what the test has asked for, as the series of the metric
	asked map[string]float64
}

// newTelemetrySetup starts a sidecar that exports by OTLP and to Prometheus. It has two
// connections: prod for everybody and team for the project proj-observed.
func newTelemetrySetup(t *testing.T) *telemetrySetup {
	t.Helper()
	s := newSandbox(t)
	o := &telemetrySetup{sandbox: s, vault: vaulttest.RealPrivate(t), collector: s.newCollector(),
		names: map[string]bool{}, asked: map[string]float64{}}
	o.proxy = s.newProxy(o.vault)
	var err error
	o.prometheus, err = vaulttest.FreeAddress()
	s.must(err)
	for _, name := range []string{"observed-", "proj-"} {
		s.keep(name) // the beginning of every path and project of the test
	}
	o.login = s.newLogin(o.vault, map[string]any{"secret_id_ttl": "24h"}, readSecrets)
	o.team = s.defaultLogin(o.vault)
	o.vault.Policy(t, o.login.role, readSecrets+fmt.Sprintf(`
path "auth/approle/role/%s/secret-id/lookup" { capabilities = ["update"] }`, o.login.role))
	_, port, _ := net.SplitHostPort(o.prometheus)
	o.sidecar = s.startWith([]string{
		"OTEL_METRICS_EXPORTER=otlp,prometheus", "OTEL_TRACES_EXPORTER=otlp",
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + o.collector.address,
		"OTEL_EXPORTER_PROMETHEUS_PORT=" +
			port,
		"OTEL_METRIC_EXPORT_INTERVAL=100", "OTEL_BSP_SCHEDULE_DELAY=100",
	}, "--config", o.config())
	o.sidecar.awaitHealth("")
	return o
}

func (o *telemetrySetup) config() string {
	return o.write("config.yaml", "audit: {file: audit.log}\n"+
		o.configText(o.login.connection("prod", o.proxy.address),
			o.team.connection("team", o.proxy.address, "scope: project",
				"project_ids: [proj-observed]", "required: false")))
}

// workerSpan is the span of a worker that a request belongs to.
type workerSpan struct{ trace, span string }

// traced returns a context for requests that belong to a new span of a worker.
func (o *telemetrySetup) traced() (context.Context, workerSpan) {
	o.calls++
	w := workerSpan{trace: fmt.Sprintf("%032x", 0xabc000+o.calls),
		span: fmt.Sprintf("%016x", 0xdef000+o.calls)}
	return metadata.AppendToOutgoingContext(o.t.Context(), "traceparent",
		"00-"+w.trace+"-"+w.span+"-01"), w
}

// ask resolves a reference of prod in a worker's span.
func (o *telemetrySetup) ask(path string,
	more ...func(*secretsidecarv1.ResolveRequest)) (workerSpan, *secretsidecarv1.ResolveResponse,
	error) {
	ctx, w := o.traced()
	request := &secretsidecarv1.ResolveRequest{Connection: "prod", Path: path}
	for _, change := range more {
		change(request)
	}
	answer, err := o.sidecar.Resolve(ctx, request)
	o.note(request.GetConnection(), answer, err)
	return w, answer, err
}

// note counts an answer as the sidecar should.
func (o *telemetrySetup) note(connection string, answer *secretsidecarv1.ResolveResponse,
	err error) {
	outcome := "outcome=" + map[secretsidecarv1.Source]string{fromVault: "vault",
		fromCache: "cache",
		stale:     "stale"}[answer.GetSource()]
	if err != nil {
		outcome = "error_type=" + failureOf(err).reason + ",outcome=error"
	}
	o.asked["secret_sidecar_resolves_total{connection="+connection+","+outcome+"}"]++
}

func freshOnly(r *secretsidecarv1.ResolveRequest) { r.MaxAge = readVaultNow }

// awaitSeries waits until a scrape shows at least the value.
func (o *telemetrySetup) awaitSeries(name string, least float64) {
	o.t.Helper()
	eventually(o.t, fmt.Sprintf("%s reaches %v", name, least), func() bool {
		return o.scrape()[name] >= least
	})
}

// scrape returns what Prometheus sees now.
func (o *telemetrySetup) scrape() map[string]float64 {
	o.t.Helper()
	values, names := scrape(o.t, o.sandbox, o.prometheus)
	maps.Copy(o.names, names)
	return values
}

// spansOf returns the spans of a worker's trace, the server's first, once as many have come.
func (o *telemetrySetup) spansOf(w workerSpan, many int) (server *tracepb.Span,
	others []*tracepb.Span) {
	o.t.Helper()
	eventually(o.t, fmt.Sprintf("%d spans of %s arrive", many, w.trace), func() bool {
		server, others = nil, nil
		for _, span := range o.collector.allSpans() {
			switch {
			case hex.EncodeToString(span.GetTraceId()) != w.trace:
			case span.GetKind() == tracepb.Span_SPAN_KIND_SERVER:
				server = span
			default:
				others = append(others, span)
			}
		}
		return server != nil && len(others) >= many-1
	})
	if hex.EncodeToString(server.GetParentSpanId()) != w.span {
		o.t.Errorf("the server's span is the child of %x, want the worker's %s",
			server.GetParentSpanId(), w.span)
	}
	for _, span := range others {
		if hex.EncodeToString(span.GetParentSpanId()) != hex.EncodeToString(server.GetSpanId()) {
			o.t.Errorf("%s is no child of the server's span", span.GetName())
		}
	}
	if len(others) != many-1 {
		o.t.Errorf("%d spans below the server's, want %d", len(others), many-1)
	}
	return server, others
}

// requireAttributes compares attributes of a span, as text.
func requireAttributes(t *testing.T, span *tracepb.Span, want map[string]string) {
	t.Helper()
	got := attributeTexts(span.GetAttributes())
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s of the span %s is %q, want %q", key, span.GetName(), got[key], value)
		}
	}
}
