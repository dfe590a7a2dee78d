package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// startMeasured serves the settings with metrics, which the reader collects.
func startMeasured(t *testing.T, settings server.Settings) (*sidecar, *sdkmetric.ManualReader) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	s, err := server.New(server.Options{DrainTimeout: drainTimeout, Meter: provider.Meter("test")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(settings); err != nil {
		t.Fatal(err)
	}
	return serve(t, s), reader
}

// collected returns the values of the metrics by name and attributes, for example
// "secret_sidecar.resolves connection=prod,outcome=vault"; of a histogram, how often something was
// recorded.
func collected(t *testing.T, reader *sdkmetric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.WithoutCancel(t.Context()), &all); err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, one := range scope.Metrics {
			add := func(attributes attribute.Set, value float64) {
				values[strings.TrimSpace(one.Name+" "+attributes.Encoded(attribute.DefaultEncoder()))] = value
			}
			switch data := one.Data.(type) {
			case metricdata.Sum[int64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, float64(point.Value))
				}
			case metricdata.Gauge[int64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, float64(point.Value))
				}
			case metricdata.Gauge[float64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, point.Value)
				}
			case metricdata.Histogram[float64]:
				for _, point := range data.DataPoints {
					add(point.Attributes, float64(point.Count))
				}
			default:
				t.Errorf("%s is a %T", one.Name, data)
			}
		}
	}
	return values
}

// wantValues checks the metrics whose names begin with one of the prefixes, all of them; what is
// not wanted may be zero.
func wantValues(t *testing.T, got, want map[string]float64, prefixes ...string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		concerned := slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if value := want[name]; concerned && got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	for name, value := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing, want %v", name, value)
		}
	}
}

func TestEveryOutcomeIsCountedByConnection(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	running, reader := startMeasured(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	ask := func(request *secretsidecarv1.ResolveRequest) { _, _ = running.Resolve(t.Context(), request) }
	good := &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/key"}
	ask(good)
	ask(good)
	ask(&secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/none"})
	ask(&secretsidecarv1.ResolveRequest{Path: "secret/data/missing/key"})
	ask(&secretsidecarv1.ResolveRequest{Path: "secret/data/missing/key"})
	ask(&secretsidecarv1.ResolveRequest{Path: "nonsense"})
	ask(&secretsidecarv1.ResolveRequest{Connection: "other", Path: good.Path})
	batch := &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{good, good, {Path: "nonsense"}}}
	if _, err := running.BatchResolve(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	v.answerInstead(func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
		return true
	})
	ask(&secretsidecarv1.ResolveRequest{Path: good.Path, MaxAge: durationpb.New(0)})
	ask(&secretsidecarv1.ResolveRequest{Path: "secret/data/another/key"})
	v.answerInstead(nil)

	got := collected(t, reader)
	wantValues(t, got, map[string]float64{
		"secret_sidecar.resolves connection=prod,outcome=vault":                             1,
		"secret_sidecar.resolves connection=prod,outcome=cache":                             3,
		"secret_sidecar.resolves connection=prod,outcome=stale":                             1,
		"secret_sidecar.resolves connection=prod,outcome=negative":                          1,
		"secret_sidecar.resolves connection=prod,error.type=KEY_NOT_FOUND,outcome=error":    1,
		"secret_sidecar.resolves connection=prod,error.type=SECRET_NOT_FOUND,outcome=error": 1,
		"secret_sidecar.resolves connection=prod,error.type=VAULT_SEALED,outcome=error":     1,
		"secret_sidecar.resolves connection=,error.type=INVALID_PATH,outcome=error":         2,
		"secret_sidecar.resolves connection=,error.type=CONNECTION_NOT_FOUND,outcome=error": 1,
		"secret_sidecar.value.age connection=prod,source=vault":                             1,
		"secret_sidecar.value.age connection=prod,source=cache":                             3,
		"secret_sidecar.value.age connection=prod,source=stale":                             1,
		"secret_sidecar.cache.entries connection=prod":                                      1,
		"secret_sidecar.connection.state connection=prod,state=degraded":                    1,
		"secret_sidecar.connection.state connection=prod,state=ready":                       0,
		"secret_sidecar.connection.state connection=prod,state=rejected":                    0,
		"secret_sidecar.connection.state connection=prod,state=connecting":                  0,
		"secret_sidecar.connection.error connection=prod,error.type=VAULT_SEALED":           1,
		"secret_sidecar.cache.limit":                                                        64 << 20,
		"secret_sidecar.login.rejections connection=prod":                                   0,
	}, "secret_sidecar.resolves", "secret_sidecar.value.age", "secret_sidecar.connection.state connection", "secret_sidecar.connection.error")
	if size := got["secret_sidecar.cache.size"]; size <= 0 || size > 10_000 {
		t.Errorf("two cached entries take %v bytes", size)
	}
	if age := got["secret_sidecar.vault.last_answer.age connection=prod"]; age < 0 || age > 60 {
		t.Errorf("Vault answered %v s ago", age)
	}
	answer, err := running.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	status := answer.GetConnections()[0]
	if text, _ := json.Marshal(status.GetResolves()); string(text) != `{"vault":1,"cache":3,"stale":1,"negative":1,"errors":3}` {
		t.Errorf("ListConnections counts %s", text)
	}
	if status.GetStateSince() == nil || status.GetLastAnswerAt() == nil {
		t.Errorf("status is %v", status)
	}
}

func TestVaultCallsAreMeasuredByKindAndStatus(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	running, reader := startMeasured(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	running.resolve(t, "secret/data/mysec/key")
	_, _ = running.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/missing/key"})
	host, port, _ := strings.Cut(strings.TrimPrefix(v.address, "http://"), ":")
	call := func(kind, method, status string) string {
		return fmt.Sprintf("http.client.request.duration connection=prod,%shttp.request.method=%s,http.response.status_code=%s,server.address=%s,server.port=%s,vault.call=%s",
			map[string]string{"404": "error.type=404,"}[status], method, status, host, port, kind)
	}
	got := collected(t, reader)
	for name := range got {
		if strings.Contains(name, "vault.call=lookup") {
			delete(got, name) // it goes on beside the test
		}
	}
	wantValues(t, got, map[string]float64{
		call("login", "POST", "200"): 1, call("read", "GET", "200"): 1, call("read", "GET", "404"): 1, call("mount", "GET", "200"): 1,
	}, "http.client.request.duration")
}

func TestCoalescedCallersInvalidationsRefusalsAndReloadsAreCounted(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	prod := v.connection("prod")
	prod.Scope, prod.ProjectIDs = server.ScopeProject, []string{"p1"}
	settings := server.Settings{Connections: []server.Connection{prod}}
	running, reader := startMeasured(t, settings)
	reached, release := make(chan struct{}, 10), make(chan struct{})
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/") {
			reached <- struct{}{}
			waitFor(t, release)
		}
		return false
	})
	request := &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/key", ProjectId: "p1"}
	done := make(chan error, 3)
	for range 3 {
		go func() { _, err := running.Resolve(t.Context(), request); done <- err }()
	}
	<-reached
	for collected(t, reader)["secret_sidecar.cache.coalesced connection=prod"] < 2 {
		if t.Context().Err() != nil {
			t.Fatal("nobody joins the read")
		}
	}
	close(release)
	for range 3 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for _, project := range []string{"", "p2", "p2"} {
		_, _ = running.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: request.Path, ProjectId: project})
	}
	_, _ = running.BatchResolve(t.Context(), &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{{Path: request.Path}}})
	_, _ = running.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{})
	_, _ = running.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: "prod"})
	running.server.CountReload(nil)
	running.server.CountReload(running.server.Apply(server.Settings{Connections: []server.Connection{{Name: "bad"}}}))

	wantValues(t, collected(t, reader), map[string]float64{
		"secret_sidecar.cache.coalesced connection=prod":                                       2,
		"secret_sidecar.cache.refreshes connection=prod":                                       0,
		"secret_sidecar.invalidations connection=prod":                                         2,
		"secret_sidecar.invalidated connection=prod":                                           1,
		"secret_sidecar.callers.refused error.type=PROJECT_REQUIRED,method=Resolve":            1,
		"secret_sidecar.callers.refused error.type=PROJECT_REQUIRED,method=BatchResolve":       1,
		"secret_sidecar.callers.refused error.type=PROJECT_NOT_ALLOWED,method=Resolve":         2,
		"secret_sidecar.config.reloads outcome=applied":                                        1,
		"secret_sidecar.config.reloads outcome=refused":                                        1,
		"secret_sidecar.config.refused":                                                        1,
		"secret_sidecar.resolves connection=prod,error.type=PROJECT_REQUIRED,outcome=error":    2,
		"secret_sidecar.resolves connection=prod,error.type=PROJECT_NOT_ALLOWED,outcome=error": 2,
		"secret_sidecar.resolves connection=prod,outcome=vault":                                3,
	}, "secret_sidecar.callers.refused", "secret_sidecar.config", "secret_sidecar.invalid", "secret_sidecar.cache.coalesced", "secret_sidecar.resolves")
}

func TestEachItemOfABatchThatIsTooLargeIsCounted(t *testing.T) {
	v := newVault(t)
	running, reader := startMeasured(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	_, err := running.BatchResolve(t.Context(), batchOf(257, "secret/data/mysec/key"))
	wantProblem(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	wantValues(t, collected(t, reader), map[string]float64{
		"secret_sidecar.resolves connection=,error.type=INVALID_REQUEST,outcome=error": 257,
	}, "secret_sidecar.resolves")
}

func TestCountersGoOnWhenAConnectionChangesItsCredentials(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	settings := server.Settings{Connections: []server.Connection{v.connection("prod")}}
	running, reader := startMeasured(t, settings)
	running.resolve(t, "secret/data/mysec/key")
	running.apply(t, server.Settings{Connections: []server.Connection{v.withNewSecretID(t, "prod")}})
	running.awaitTakeover(t, v)
	running.resolve(t, "secret/data/mysec/key")
	if got := collected(t, reader)["secret_sidecar.resolves connection=prod,outcome=vault"]; got != 2 {
		t.Errorf("%v reads counted, want 2: before the change and after it", got)
	}
	running.stop()
	if err := <-running.served; err != nil {
		t.Fatal(err)
	}
	running.served <- nil
	if got := collected(t, reader)["secret_sidecar.resolves connection=prod,outcome=vault"]; got != 2 {
		t.Errorf("%v reads counted after the end, when the last metrics are exported", got)
	}
}

func TestWhatIsRefusedBeforeItIsHandledIsCountedByItsSecrets(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	running, reader := startMeasured(t, server.Settings{
		Connections: []server.Connection{v.connection("prod")}, CallerLimits: server.CallerLimits{PerSecond: 1},
	})
	batch := batchOf(256, "secret/data/mysec/key") // as many as may come at once
	if _, err := running.BatchResolve(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	_, err := running.BatchResolve(t.Context(), batch)
	wantProblem(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	wantValues(t, collected(t, reader), map[string]float64{
		"secret_sidecar.resolves connection=,error.type=RATE_LIMITED,outcome=error":  256,
		"secret_sidecar.callers.refused error.type=RATE_LIMITED,method=BatchResolve": 256,
		"secret_sidecar.resolves connection=prod,outcome=vault":                      256,
	}, "secret_sidecar.resolves", "secret_sidecar.callers.refused")
}

func TestCountersGoOnWhenAConnectionLeavesAndComesBack(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	both := server.Settings{Connections: []server.Connection{v.connection("prod"), v.connection("other")}}
	running, reader := startMeasured(t, both)
	ask := func() {
		t.Helper()
		if _, err := running.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "other", Path: "secret/data/mysec/key"}); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	for _, settings := range []server.Settings{{Connections: both.Connections[:1]}, both} {
		if err := running.server.Apply(settings); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if got := collected(t, reader)["secret_sidecar.resolves connection=other,outcome=vault"]; got != 2 {
		t.Errorf("%v reads counted, want 2", got)
	}
}

func TestATestOfAnotherVaultIsMeasuredWithoutWhatTheCallerChose(t *testing.T) {
	v := newVault(t)
	running, reader := startMeasured(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	spec := &secretsidecarv1.ConnectionSpec{Name: "chosen", Address: v.address, RoleId: v.roleID, SecretId: v.secretID}
	_, err := running.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: spec}})
	if err != nil {
		t.Fatal(err)
	}
	if got := collected(t, reader)["http.client.request.duration connection=,http.request.method=POST,http.response.status_code=200,vault.call=test"]; got != 1 {
		t.Errorf("%v logins of the test are measured, want 1", got)
	}
}

func TestVaultCallsAreTracedWithoutTheirPaths(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"key": "value"})
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	s, err := server.New(server.Options{Tracer: provider.Tracer("test")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(server.Settings{Connections: []server.Connection{v.connection("prod")}}); err != nil {
		t.Fatal(err)
	}
	running := serve(t, s)
	running.resolve(t, "secret/data/mysec/key")
	for _, span := range spans.Ended() {
		if strings.Contains(fmt.Sprint(span.Attributes()), "mysec") {
			t.Errorf("the path is in %v", span.Attributes())
		}
	}
	if len(spans.Ended()) == 0 {
		t.Error("no span")
	}
}

func TestTheReasonsOfTheAlertsAreShownFromTheStart(t *testing.T) {
	v := newVault(t)
	_, reader := startMeasured(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	rules, err := os.ReadFile("../deploy/prometheus/secret-sidecar.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := collected(t, reader)
	alerts := regexp.MustCompile(`resolves_total\{error_type=~?"([A-Z_|0-9]+)"`).FindAllStringSubmatch(string(rules), -1)
	if len(alerts) == 0 {
		t.Fatal("no alert is about a reason")
	}
	for _, alert := range alerts {
		for reason := range strings.SplitSeq(alert[1], "|") {
			name := "secret_sidecar.resolves connection=%s,error.type=" + reason + ",outcome=error"
			_, ofConnection := got[fmt.Sprintf(name, "prod")]
			_, ofNone := got[fmt.Sprintf(name, "")]
			if !ofConnection && !ofNone {
				t.Errorf("%s is not there before its first time", reason)
			}
		}
	}
}

func TestEveryValidNameIsAMetricsLabelAsItIs(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	names := []string{"Prod_1-X", "V1StGXR8_Z5jdHi6B-myT"}
	s, reader := startMeasured(t, server.Settings{Connections: []server.Connection{v.connection(names[0]), v.connection(names[1])}})
	for _, name := range names {
		if _, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: name, Path: aSecret}); err != nil {
			t.Fatal(err)
		}
		want := "secret_sidecar.resolves connection=" + name + ",outcome=vault"
		if collected(t, reader)[want] != 1 {
			t.Errorf("no metric %s: %v", want, slices.Sorted(maps.Keys(collected(t, reader))))
		}
	}
}
