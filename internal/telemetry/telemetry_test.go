package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNothingIsSetUpUnlessAskedFor(t *testing.T) {
	tests := map[string]map[string]string{
		"no variables":        {},
		"only a service name": {"OTEL_SERVICE_NAME": "worker-secrets"},
		"exporters none": {
			"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none",
			"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
		},
		"SDK disabled":            {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"},
		"logs only, not our part": {"OTEL_LOGS_EXPORTER": "console"},
	}
	for name, variables := range tests {
		t.Run(name, func(t *testing.T) {
			setEnvironment(t, variables)
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			telemetry, err := Setup(t.Context(), os.LookupEnv, "v1.2.3")
			if err != nil {
				t.Fatal(err)
			}
			if telemetry.Meter() != nil || telemetry.Tracer() != nil {
				t.Error("there is something to record with")
			}
			if len(telemetry.ServerOptions()) != 0 || len(telemetry.stops) != 0 {
				t.Errorf("something was set up: %d server options, %d providers",
					len(telemetry.ServerOptions()), len(telemetry.stops))
			}
			if err := telemetry.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEachSignalIsWantedByItsOwnVariables(t *testing.T) {
	otlp := []string{"otlp"}
	tests := map[string]struct {
		variables map[string]string
		want      signals
	}{
		"one endpoint for all": {
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
			signals{traces: otlp, metrics: otlp},
		},
		"endpoint of metrics": {
			map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"},
			signals{metrics: otlp},
		},
		"endpoint of traces": {
			map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"},
			signals{traces: otlp},
		},
		"endpoint, no traces": {
			map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none",
			},
			signals{metrics: otlp},
		},
		"exporter of metrics": {
			map[string]string{"OTEL_METRICS_EXPORTER": "prometheus"},
			signals{metrics: []string{"prometheus"}},
		},
		"exporter of traces": {
			map[string]string{"OTEL_TRACES_EXPORTER": "otlp"},
			signals{traces: otlp},
		},
		"disabled means true": {
			map[string]string{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"},
			signals{traces: otlp},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := wantedSignals(environment(test.variables)); !reflect.DeepEqual(got,
				test.want) {
				t.Errorf("wanted %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestExportersAreReadAlikeForEachSignal(t *testing.T) {
	tests := map[string]struct {
		value string
		want  []string
	}{
		"one with spaces around it": {" otlp\n", []string{"otlp"}},
		"several":                   {"otlp, console", []string{"otlp", "console"}},
		"one twice":                 {"console,otlp, console", []string{"console", "otlp"}},
		"none among others":         {"none,console,", []string{"console"}},
		"none":                      {" none ", nil},
		"commas alone":              {",,", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			getenv := environment(map[string]string{
				"OTEL_TRACES_EXPORTER": test.value, "OTEL_METRICS_EXPORTER": test.value,
			})
			got, want := wantedSignals(getenv), signals{traces: test.want, metrics: test.want}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("wanted %+v, want %+v", got, want)
			}
		})
	}
}

// environment looks variables up in a map.
func environment(variables map[string]string) lookup {
	return func(name string) (string, bool) { text, ok := variables[name]; return text, ok }
}

// printingEnv makes the test binary the process whose standard output is looked at.
const printingEnv = "TEST_PRINTS_TELEMETRY"

func TestConsoleExportersPrintWhatWasRecorded(t *testing.T) {
	if os.Getenv(printingEnv) != "" {
		recordSomething(t)
		return
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$",
		"-test.count=1")
	again.Env = append(os.Environ(), printingEnv+"=1")
	text, err := again.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	wanted := []string{`"read vault"`, `"secret-sidecar"`, `"v1.2.3"`, `"secret_sidecar.resolves"`}
	for _, want := range wanted {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func recordSomething(t *testing.T) {
	t.Helper()
	setEnvironment(t, map[string]string{
		"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console",
	})
	telemetry, err := Setup(t.Context(), os.LookupEnv, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if len(telemetry.ServerOptions()) == 0 {
		t.Error("no server options although exporters run")
	}
	_, span := telemetry.Tracer().Start(t.Context(), "read vault")
	span.End()
	counter, err := telemetry.Meter().Int64Counter("secret_sidecar.resolves")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 1)
	if err := telemetry.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheEnvironmentDescribesTheService(t *testing.T) {
	tests := map[string]struct {
		variables map[string]string
		want      string
	}{
		"the sidecar's own name": {nil, "service.name=secret-sidecar,"},
		"the sidecar's version":  {nil, "service.version=v1.2.3,"},
		"a name": {
			map[string]string{"OTEL_SERVICE_NAME": "worker-secrets"},
			"service.name=worker-secrets,",
		},
		"a pod": {
			map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=worker-0"},
			"k8s.pod.name=worker-0,",
		},
		"an instance of one's choice": {
			map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=worker-0"},
			"service.instance.id=worker-0,",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			setEnvironment(t, test.variables)
			if about := describe(t).String(); !strings.Contains(about+",", test.want) {
				t.Errorf("%s is missing in %s", test.want, about)
			}
		})
	}
}

func TestEveryStartIsAnInstanceOfItsOwn(t *testing.T) {
	setEnvironment(t, nil)
	first, _ := describe(t).Set().Value(semconv.ServiceInstanceIDKey)
	second, _ := describe(t).Set().Value(semconv.ServiceInstanceIDKey)
	if first.AsString() == "" || first == second {
		t.Errorf("instances %q and %q", first.AsString(), second.AsString())
	}
}

func describe(t *testing.T) *resource.Resource {
	t.Helper()
	about, err := describeService(t.Context(), "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return about
}

func TestAnUnknownExporterIsAnErrorAndLeavesNothingRunning(t *testing.T) {
	tests := map[string]map[string]string{
		"OTEL_METRICS_EXPORTER": {
			"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console,carrier-pigeon",
		},
		"OTEL_TRACES_EXPORTER": {
			"OTEL_TRACES_EXPORTER": "console,carrier-pigeon", "OTEL_METRICS_EXPORTER": "console",
		},
	}
	for variable, variables := range tests {
		t.Run(variable, func(t *testing.T) {
			setEnvironment(t, variables)
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			_, err := Setup(t.Context(), os.LookupEnv, "v1.2.3")
			if err == nil || !strings.Contains(err.Error(), variable) ||
				!strings.Contains(err.Error(), `"carrier-pigeon"`) {
				t.Errorf("error is %v; want one that names %s and the exporter", err, variable)
			}
		})
	}
}

func TestAnAddressThatCannotBeServedIsAnError(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	tests := map[string]struct{ host, port string }{
		"a port that is taken":  {"127.0.0.1", port},
		"IPv6 without brackets": {"::", "0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			setEnvironment(t, map[string]string{
				"OTEL_METRICS_EXPORTER":         "prometheus",
				"OTEL_EXPORTER_PROMETHEUS_HOST": test.host,
				"OTEL_EXPORTER_PROMETHEUS_PORT": test.port,
			})
			_, err := Setup(t.Context(), os.LookupEnv, "v1.2.3")
			if err == nil || !strings.Contains(err.Error(), `"prometheus"`) {
				t.Errorf("error is %v; want one that names the exporter", err)
			}
		})
	}
}

func TestEveryExporterOfAListIsStarted(t *testing.T) {
	tests := map[string]struct {
		variable, value string
		exporters       int
	}{
		"traces":                  {"OTEL_TRACES_EXPORTER", " otlp, console", 2},
		"metrics":                 {"OTEL_METRICS_EXPORTER", "prometheus,console", 2},
		"Prometheus, named twice": {"OTEL_METRICS_EXPORTER", "prometheus,prometheus", 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			setEnvironment(t, map[string]string{
				test.variable: test.value, "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
				"OTEL_EXPORTER_PROMETHEUS_PORT": "0",
			})
			telemetry, err := Setup(t.Context(), os.LookupEnv, "v1.2.3")
			if err != nil {
				t.Fatal(err)
			}
			if len(telemetry.stops) != test.exporters {
				t.Errorf("%d exporters, want %d", len(telemetry.stops), test.exporters)
			}
			if got := os.Getenv(test.variable); got != test.value {
				t.Errorf("the variable is %q now", got)
			}
			if err := telemetry.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOTLPTravelsByTheProtocolThatIsNamed(t *testing.T) {
	const all, metrics = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
	const traces = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	tests := map[string]struct {
		variables map[string]string
		grpc      bool
		refused   bool
	}{
		"none named":            {nil, false, false},
		"HTTP":                  {map[string]string{all: "http/protobuf"}, false, false},
		"gRPC":                  {map[string]string{all: " grpc"}, true, false},
		"gRPC for this signal":  {map[string]string{all: "http/protobuf", traces: "grpc"}, true, false},
		"gRPC for the other":    {map[string]string{metrics: "grpc"}, false, false},
		"one that nobody knows": {map[string]string{all: "http/json"}, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			grpc, err := overGRPC(environment(test.variables), "TRACES")
			if grpc != test.grpc || (err != nil) != test.refused {
				t.Errorf("overGRPC = %v, %v; want %v, an error: %v", grpc, err, test.grpc,
					test.refused)
			}
		})
	}
}

func TestAWarningAboutAVariableDoesNotQuoteIt(t *testing.T) {
	tests := map[string]map[string]string{
		"a header that is not percent-encoded": {
			"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer supersecret%zz",
		},
		"attributes that end with a comma": {"OTEL_RESOURCE_ATTRIBUTES": "team=supersecret,"},
		"attributes with a doubled comma": {
			"OTEL_RESOURCE_ATTRIBUTES": "team=supersecret,,k8s.pod.name=worker-0",
		},
		"an attribute without a value": {
			"OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=worker-0,supersecret",
		},
		"an attribute that is not percent-encoded": {"OTEL_RESOURCE_ATTRIBUTES": "team=supersecret%zz"},
	}
	for name, variables := range tests {
		t.Run(name, func(t *testing.T) {
			log := captureLog(t)
			setEnvironment(t, variables)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv("OTEL_METRICS_EXPORTER", "prometheus")
			t.Setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
			setUpAndStop(t)
			if text := log.String(); strings.Contains(text, "supersecret") ||
				strings.Contains(text, "%zz") {
				t.Errorf("logged %s", text)
			}
			if warnings := strings.Count(log.String(), "warns of its variables"); warnings != 1 {
				t.Errorf("%d warnings, want 1: %s", warnings, log.String())
			}
		})
	}
}

func TestAttributesBesideAMistakeAreKept(t *testing.T) {
	captureLog(t)
	setEnvironment(t,
		map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "mistake,k8s.pod.name=worker-0,"})
	if about := describe(t).String(); !strings.Contains(about, "k8s.pod.name=worker-0") {
		t.Errorf("resource is %s", about)
	}
}

// captureLog returns what the default logger writes from now on.
func captureLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	former := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(former) })
	return &log
}

// setUpAndStop starts what the environment asks for, and stops it.
func setUpAndStop(t *testing.T) {
	t.Helper()
	telemetry, err := Setup(t.Context(), os.LookupEnv, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := telemetry.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADeadEndpointTakesNoTimeFromTheOthers(t *testing.T) {
	errDead, errWell := errors.New("dead"), errors.New("well")
	dead := func(ctx context.Context) error { <-ctx.Done(); return errDead }
	well := func(ctx context.Context) error { return errors.Join(errWell, ctx.Err()) }
	tests := map[string][]func(context.Context) error{
		"the first of two is dead":  {dead, well},
		"the second of two is dead": {well, dead},
	}
	for name, stops := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := (&Telemetry{stops: stops}).Shutdown(ctx)
				if !errors.Is(err, errDead) || !errors.Is(err, errWell) {
					t.Errorf("error is %v; want that of both", err)
				}
				if errors.Is(err, context.DeadlineExceeded) {
					t.Error("the other had no time left")
				}
			})
		})
	}
}

func TestManyConnectionsKeepTheirSeries(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	options := append(meterOptions(resource.Empty()), sdkmetric.WithReader(reader))
	provider := sdkmetric.NewMeterProvider(options...)
	counter, err := provider.Meter("test").Int64Counter("many")
	if err != nil {
		t.Fatal(err)
	}
	const connections = 5000
	for i := range connections {
		counter.Add(t.Context(), 1, metric.WithAttributes(attribute.Int("connection", i)))
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	sum := all.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64])
	if points := len(sum.DataPoints); points != connections {
		t.Errorf("%d series of %d", points, connections)
	}
}

func TestExportErrorsAreLoggedOncePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := captureLog(t)
		logger := newErrorLogger()
		for range 100 {
			logger.Handle(errors.New("collector is away"))
		}
		time.Sleep(errorLogInterval)
		logger.Handle(errors.New("collector is away"))
		if lines := strings.Count(log.String(), "collector is away"); lines != 2 {
			t.Errorf("%d lines, want 2", lines)
		}
	})
}

// setEnvironment leaves no other OTEL_* variable set.
func setEnvironment(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "OTEL_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range variables {
		t.Setenv(name, value)
	}
}
