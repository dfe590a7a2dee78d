package e2e_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// TestTelemetryShowsWhatHappened lets everything happen that metrics and spans are about, and
// compares them with it.
func TestTelemetryShowsWhatHappened(t *testing.T) {
	t.Parallel()
	o := newTelemetrySetup(t)
	for _, name := range []string{"app", "slow"} {
		o.writeSecret(o.vault, "secret/data/observed-"+name, "observed-key", o.newSecret())
	}
	const app = "secret/data/observed-app/observed-key"

	missed, answer, err := o.ask(app)
	if err != nil || answer.GetSource() != fromVault {
		t.Fatalf("first: %v, %v", answer, err)
	}
	var hit workerSpan
	for range 3 {
		hit, _, _ = o.ask(app)
	}
	absent, _, _ := o.ask("secret/data/observed-none/observed-key")
	ctx, _ := o.traced()
	_, _ = o.sidecar.Resolve(ctx, &secretsidecarv1.ResolveRequest{Connection: "prod",
		Path: "secret/data/observed-none/observed-key"})
	for _, project := range []string{"", "proj-other"} {
		_, _, _ = o.ask(app, func(r *secretsidecarv1.ResolveRequest) {
			r.Connection,
				r.ProjectId = "team", project
		})
	}
	first, joined := o.readTogether("secret/data/observed-slow/observed-key")
	o.outage(app)
	o.rotate()
	o.refusedReload()
	o.invalidate(2)

	want := map[string]float64{
		"secret_sidecar_resolves_total{connection=prod,outcome=negative}":                     1,
		"secret_sidecar_callers_refused_total{error_type=PROJECT_REQUIRED,method=Resolve}":    1,
		"secret_sidecar_callers_refused_total{error_type=PROJECT_NOT_ALLOWED,method=Resolve}": 1,
		"secret_sidecar_cache_coalesced_total{connection=prod}":                               2,
		"secret_sidecar_config_reloads_total{outcome=refused}":                                1,
		"secret_sidecar_invalidations_total{connection=prod}":                                 1,
		"secret_sidecar_invalidated_total{connection=prod}":                                   2,
		"secret_sidecar_login_rejections_total{connection=prod}":                              1,
		"secret_sidecar_connection_state{connection=prod,state=ready}":                        1,
		"secret_sidecar_connection_state{connection=prod,state=degraded}":                     0,
		"secret_sidecar_cache_entries{connection=prod}":                                       0,
	}
	maps.Copy(want, o.asked)
	for _, source := range []string{"vault", "cache", "stale"} {
		want["secret_sidecar_value_age_seconds{connection=prod,source="+source+
			"}"] = o.asked["secret_sidecar_resolves_total{connection=prod,outcome="+source+"}"]
	}
	o.requireLoopbackOnly()
	scraped := o.scrape()
	requireValues(t, "Prometheus", scraped, want)
	o.requireCalls(scraped)
	for _, gauge := range []string{"secret_sidecar_token_ttl_seconds",
		"secret_sidecar_secret_id_ttl_seconds"} {
		if left := scraped[gauge+"{connection=prod}"]; left <= 3000 || left > 32*24*3600 {
			t.Errorf("%s is %v", gauge, left)
		}
	}
	o.requireSpans(missed, hit, absent, first, joined)
	o.sidecar.stop()
	requireValues(t, "OTLP", o.collector.values(), inOTLP(want))
	if name := o.collector.service["service.name"]; name != "secret-sidecar" {
		t.Errorf("the service is called %q", name)
	}
	if o.collector.service["service.instance.id"] == "" {
		t.Error("the series of two sidecars would be one")
	}
	requireMetricsInDocs(t, o.collector.metrics(), o.names)
}

// readTogether lets three callers wait for one read, and returns the first and the others.
func (o *telemetrySetup) readTogether(path string) (first workerSpan, joined []workerSpan) {
	t := o.t
	t.Helper()
	const held = "secret/data/observed-slow"
	release := o.proxy.holdPaths(held)
	defer release()
	type ended struct {
		answer *secretsidecarv1.ResolveResponse
		err    error
	}
	done := make(chan ended, 3)
	resolve := func() workerSpan {
		ctx, w := o.traced()
		go func() {
			answer, err := o.sidecar.Resolve(ctx,
				&secretsidecarv1.ResolveRequest{Connection: "prod", Path: path})
			done <- ended{answer, err}
		}()
		return w
	}
	first = resolve()
	eventually(t, "the first read has gone out", func() bool { return o.proxy.count(held) == 1 })
	joined = []workerSpan{resolve(), resolve()}
	o.awaitSeries("secret_sidecar_cache_coalesced_total{connection=prod}", 2)
	release()
	for range 3 {
		one := <-done
		o.note("prod", one.answer, one.err)
	}
	o.proxy.open()
	return first, joined
}

// outage cuts Vault off: a cached secret is answered stale, another one is refused. Then all heals.
func (o *telemetrySetup) outage(cached string) {
	t := o.t
	t.Helper()
	o.proxy.cut()
	if _, answer, err := o.ask(cached, freshOnly); err != nil || answer.GetSource() != stale {
		t.Errorf("in the outage: %v, %v", answer, err)
	}
	_, _, err := o.ask("secret/data/observed-cold/observed-key")
	requireFailure(t, o.sandbox, err, unreachable)
	o.awaitSeries("secret_sidecar_connection_state{connection=prod,state=degraded}", 1)
	eventually(t, "the collector sees the reason", func() bool {
		return o.collector.values()["secret_sidecar_connection_error{connection=prod,error_type=VAULT_UNREACHABLE}"] == 1
	})
	o.proxy.open()
	eventually(t, "Vault is read again", func() bool {
		_, answer, err := o.ask(cached, freshOnly)
		return err == nil && answer.GetSource() == fromVault
	})
}

// rotate gives prod a secret_id that Vault rejects, and then a good one.
func (o *telemetrySetup) rotate() {
	o.t.Helper()
	o.write(o.login.role, o.keep("wrong-secret-id-"+rand.Text()))
	o.awaitSeries("secret_sidecar_login_rejections_total{connection=prod}", 1)
	o.awaitSeries("secret_sidecar_connection_state{connection=prod,state=rejected}", 1)
	o.write(o.login.role, o.login.newSecretID())
	o.awaitSeries("secret_sidecar_connection_state{connection=prod,state=ready}", 1)
	o.awaitSeries("secret_sidecar_secret_id_ttl_seconds{connection=prod}", 3600)
}

func (o *telemetrySetup) refusedReload() {
	o.t.Helper()
	o.sandbox.config("nonsense")
	o.awaitSeries("secret_sidecar_config_reloads_total{outcome=refused}", 1)
}

// invalidate drops all of prod.
func (o *telemetrySetup) invalidate(want uint32) {
	o.t.Helper()
	answer, err := o.sidecar.Invalidate(o.t.Context(),
		&secretsidecarv1.InvalidateRequest{Connection: "prod"})
	if err != nil || answer.GetEntries() != want {
		o.t.Errorf("invalidate: %v, %v, want %d secrets", answer, err, want)
	}
}

// requireLoopbackOnly looks for the metrics at the machine's other addresses, where they must not
// be.
func (o *telemetrySetup) requireLoopbackOnly() {
	o.t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		o.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(o.prometheus)
	for _, one := range addresses {
		address, ok := one.(*net.IPNet)
		if !ok || address.IP.IsLoopback() || address.IP.IsLinkLocalUnicast() {
			continue
		}
		connection, err := (&net.Dialer{Timeout: patience}).DialContext(o.t.Context(), "tcp",
			net.JoinHostPort(address.IP.String(), port))
		if err == nil {
			_ = connection.Close()
			o.t.Errorf("the metrics are served at %v, want loopback alone", address.IP)
		}
	}
}

// requireCalls compares the measured calls of Vault with those that passed the proxy, for the kinds
// that an outage does not blur.
func (o *telemetrySetup) requireCalls(scraped map[string]float64) {
	o.t.Helper()
	for call, passed := range map[string]int{"login": o.proxy.count(loginPath),
		"lookup": o.proxy.lookedUp()} {
		measured := 0.0
		for name, value := range scraped {
			if strings.HasPrefix(name, "http_client_request_duration_seconds{") &&
				strings.Contains(name, "vault_call="+call+"}") {
				measured += value
			}
		}
		if measured != float64(passed) || passed == 0 {
			o.t.Errorf("%v calls of kind %s are measured, %d passed the proxy", measured, call,
				passed)
		}
	}
}

func (o *telemetrySetup) requireSpans(missed, hit, absent, first workerSpan, joined []workerSpan) {
	t := o.t
	t.Helper()
	server, calls := o.spansOf(missed, 2)
	requireAttributes(t, server, map[string]string{
		"connection": "prod", "outcome": "vault", "rpc.method": "secretsidecar.v1.SecretService/Resolve", "rpc.response.status_code": "OK", "path": "",
	})
	requireAttributes(t, calls[0], map[string]string{
		"connection": "prod", "vault.call": "read", "http.request.method": "GET", "http.response.status_code": "200",
		"url.template": "/v1/{mount}/data/{path}", "url.full": "",
	})
	server, _ = o.spansOf(hit, 1)
	requireAttributes(t, server, map[string]string{"outcome": "cache"})
	server, _ = o.spansOf(absent, 3)
	requireAttributes(t, server, map[string]string{"outcome": "error",
		"error.type": "SECRET_NOT_FOUND", "rpc.response.status_code": "NOT_FOUND"})

	server, calls = o.spansOf(first, 2)
	linked := map[string]bool{}
	for _, link := range calls[0].GetLinks() {
		linked[hex.EncodeToString(link.GetTraceId())] = true
	}
	for _, one := range joined {
		waiting, _ := o.spansOf(one, 1)
		if !linked[one.trace] {
			t.Errorf("the read is not linked with the caller %s, but with %v", one.trace, linked)
		}
		if links := waiting.GetLinks(); len(links) != 1 ||
			!bytes.Equal(links[0].GetSpanId(), server.GetSpanId()) {
			t.Errorf("the waiting caller's links are %v, want the first caller's span", links)
		}
	}
	logins := 0
	for _, span := range o.collector.allSpans() {
		if span.GetName() == "POST /v1/auth/{mount}/login" && len(span.GetParentSpanId()) == 0 {
			logins++
		}
	}
	if passed := o.proxy.count(loginPath); logins != passed {
		t.Errorf("%d spans of logins, %d passed the proxy", logins, passed)
	}
}

func requireValues(t *testing.T, from string, got, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %s is %v, want %v", from, name, got[name], value)
		}
	}
	for name, value := range got {
		if _, ok := want[name]; !ok && value != 0 && strings.HasPrefix(name,
			"secret_sidecar_resolves") {
			t.Errorf("%s: %s is %v, and nobody asked", from, name, value)
		}
	}
}

// inOTLP names series as OTLP does: without the ends that Prometheus's names have.
func inOTLP(want map[string]float64) map[string]float64 {
	renamed := map[string]float64{}
	for name, value := range want {
		renamed[strings.NewReplacer("_total{", "{", "_seconds{", "{").Replace(name)] = value
	}
	return renamed
}

func TestSpansHoldPathsWhenAskedForAndLogLinesNameTheTrace(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	o := &telemetrySetup{sandbox: s, collector: s.newCollector(), asked: map[string]float64{}}
	s.writeSecret(v, "secret/data/shown", "key", s.newSecret())
	config := s.write("config.yaml",
		"traces: {paths: true}\n"+s.configText(s.defaultLogin(v).connection("prod", v.Address)))
	o.sidecar = s.startWith([]string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + o.collector.address,
		"OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRICS_EXPORTER=none",
	}, "--config", config)
	o.sidecar.awaitHealth("")
	w, _, err := o.ask("secret/data/shown/key")
	if err != nil {
		t.Fatal(err)
	}
	server, calls := o.spansOf(w, 2)
	requireAttributes(t, server, map[string]string{"path": "secret/data/shown/key"})
	requireAttributes(t, calls[0],
		map[string]string{"url.full": v.Address + "/v1/secret/data/shown"})
	span := hex.EncodeToString(server.GetSpanId())
	if !o.sidecar.logs(`"msg":"request"`, `"method":"Resolve"`, `"trace_id":"`+w.trace+`"`,
		`"span_id":"`+span+`"`) {
		t.Errorf("no line of the log names the trace %s\n%s", w.trace, o.sidecar.tail())
	}
}

func TestAWorkerThatSamplesNothingIsNotTraced(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	collector := s.newCollector()
	s.writeSecret(v, "secret/data/app", "key", s.newSecret())
	r := s.startWith([]string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.address, "OTEL_METRICS_EXPORTER=none",
	}, "--config", s.config(s.defaultLogin(v).connection("prod", v.Address)))
	r.awaitHealth("")
	const trace = "0af7651916cd43dd8448eb211c80319c"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent",
		"00-"+trace+"-b7ad6b7169203331-00")
	if _, err := r.Resolve(ctx,
		&secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}); err != nil {
		t.Fatal(err)
	}
	r.stop() // exports what there is
	spans := collector.allSpans()
	for _, span := range spans {
		if hex.EncodeToString(span.GetTraceId()) == trace {
			t.Errorf("%s belongs to a trace that is not sampled", span.GetName())
		}
	}
	if len(spans) == 0 {
		t.Error("not even the login is traced")
	}
}
