package server_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// method is an RPC with its messages.
type method struct {
	name     string
	request  func() proto.Message
	response func() proto.Message
}

func methodOf[Request, Response any, Q interface {
	*Request
	proto.Message
}, A interface {
	*Response
	proto.Message
}](name string) method {
	return method{name: name, request: func() proto.Message { return Q(new(Request)) }, response: func() proto.Message { return A(new(Response)) }}
}

// fuzzedMethods are chosen by their index, which stands in the corpus: add new ones at the end.
var fuzzedMethods = []method{
	methodOf[secretsidecarv1.ResolveRequest, secretsidecarv1.ResolveResponse](secretsidecarv1.SecretService_Resolve_FullMethodName),
	methodOf[secretsidecarv1.BatchResolveRequest, secretsidecarv1.BatchResolveResponse](secretsidecarv1.SecretService_BatchResolve_FullMethodName),
	methodOf[secretsidecarv1.TestConnectionRequest, secretsidecarv1.TestConnectionResponse](secretsidecarv1.SecretService_TestConnection_FullMethodName),
	methodOf[secretsidecarv1.InvalidateRequest, secretsidecarv1.InvalidateResponse](secretsidecarv1.SecretService_Invalidate_FullMethodName),
	methodOf[secretsidecarv1.ListConnectionsRequest, secretsidecarv1.ListConnectionsResponse](secretsidecarv1.SecretService_ListConnections_FullMethodName),
	methodOf[healthpb.HealthCheckRequest, healthpb.HealthCheckResponse](healthpb.Health_Check_FullMethodName),
}

// contractReasons is the contract's table of errors.
var contractReasons = map[codes.Code][]string{
	codes.InvalidArgument:    {"INVALID_PATH", "INVALID_REQUEST", "CONNECTION_REQUIRED"},
	codes.NotFound:           {"CONNECTION_NOT_FOUND", "SECRET_NOT_FOUND", "KEY_NOT_FOUND", "VERSION_DELETED", "VERSION_DESTROYED"},
	codes.PermissionDenied:   {"CALLER_NOT_ALLOWED", "PROJECT_REQUIRED", "PROJECT_NOT_ALLOWED", "VAULT_PERMISSION_DENIED"},
	codes.FailedPrecondition: {"LOGIN_REJECTED", "NOT_KV_V2"},
	codes.ResourceExhausted:  {"RATE_LIMITED", "SECRET_TOO_LARGE", "OVERLOADED"},
	codes.Unavailable:        {"VAULT_UNREACHABLE", "VAULT_SEALED", "VAULT_RATE_LIMITED", "LOGIN_PENDING", "SHUTTING_DOWN"},
}

// vaultOfSpecs stands in a fuzzed ConnectionSpec for the address of the fuzzing's own Vault, which
// changes.
const vaultOfSpecs = "http://vault.test:8200"

// FuzzRPC sends arbitrary bytes as the request of any RPC. The server never crashes, answers with
// what is in Vault or with an error of the contract's table, and goes on answering others.
func FuzzRPC(f *testing.F) {
	w := newFuzzWorld(f)
	for i, m := range fuzzedMethods {
		for _, seed := range fuzzSeeds(m.request()) {
			f.Add(uint8(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, chosen uint8, request []byte) {
		m := fuzzedMethods[int(chosen)%len(fuzzedMethods)]
		message := m.request()
		isValid := proto.Unmarshal(request, message) == nil
		if isValid && !w.staysHere(message) {
			t.Skip("it would leave this machine")
		}
		if isValid {
			request, _ = proto.Marshal(message) // with the address that it stands for
		}
		var answer []byte
		err := w.sidecar.conn.Invoke(t.Context(), m.name, &request, &answer, grpc.ForceCodec(rawCodec{}))
		switch {
		case err == nil:
			w.checkAnswer(t, m, message, answer)
		case !isValid:
			if code := status.Code(err); code != codes.Internal {
				t.Errorf("%s with a message that is not protobuf: %v", m.name, err)
			}
		default:
			w.checkError(t, m, err)
		}
		w.checkAlive(t)
	})
}

// rawCodec sends and receives bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	text, ok := v.(*[]byte)
	if !ok {
		return nil, errors.New("want bytes")
	}
	return *text, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	text, ok := v.(*[]byte)
	if !ok {
		return errors.New("want bytes")
	}
	*text = slices.Clone(data)
	return nil
}

// fuzzWorld is the server that all inputs of a process meet.
type fuzzWorld struct {
	vault   *frontedVault
	sidecar *sidecar
	values  []string // that an answer may hold
	hidden  []string // that no error may show
}

func newFuzzWorld(f *testing.F) *fuzzWorld {
	f.Helper()
	v := newVault(f)
	w := &fuzzWorld{vault: v, values: []string{"fuzz-secret-a", "fuzz-secret-b", "", "1.50", "null", `{"a":"fuzz-secret-c"}`}}
	v.write(f, "secret/data/app", map[string]any{"key": w.values[0], "empty": "", "object": map[string]any{"a": "fuzz-secret-c"}, "null": nil})
	v.write(f, "secret/data/team/deep app", map[string]any{"key": w.values[1]})
	w.hidden = []string{"fuzz-secret-", v.secretID}
	project := v.connection("project")
	project.Scope, project.ProjectIDs = server.ScopeProject, []string{"p1"}
	w.sidecar = start(f, server.Settings{Connections: []server.Connection{v.connection("platform"), project}})
	if err := w.ask(f.Context()); err != nil {
		f.Fatal(err)
	}
	return w
}

// ask resolves a secret that is there.
func (w *fuzzWorld) ask(ctx context.Context) error {
	answer, err := w.sidecar.Resolve(ctx, &secretsidecarv1.ResolveRequest{Connection: "platform", Path: "secret/data/app/key"})
	if err == nil && answer.GetValue() != w.values[0] {
		return errors.New("a wrong value: " + answer.GetValue())
	}
	return err
}

// staysHere puts the Vault's address into a request that means it, and reports whether the request
// leads nowhere else: TestConnection connects to whatever its spec says.
func (w *fuzzWorld) staysHere(message proto.Message) bool {
	test, ok := message.(*secretsidecarv1.TestConnectionRequest)
	if !ok || test.GetSpec() == nil {
		return true
	}
	if test.GetSpec().GetAddress() == vaultOfSpecs {
		test.GetSpec().Address = w.vault.address
		return true
	}
	address, err := url.Parse(test.GetSpec().GetAddress())
	return err != nil || address.Hostname() == "" || address.Scheme != "http" && address.Scheme != "https"
}

func (w *fuzzWorld) checkAlive(t *testing.T) {
	t.Helper()
	if err := w.ask(t.Context()); err != nil {
		t.Errorf("afterwards a good request fails: %v", err)
	}
}

func (w *fuzzWorld) checkAnswer(t *testing.T, m method, request proto.Message, text []byte) {
	t.Helper()
	answer := m.response()
	if err := proto.Unmarshal(text, answer); err != nil {
		t.Fatalf("%s answers what is not protobuf: %v", m.name, err)
	}
	switch answer := answer.(type) {
	case *secretsidecarv1.ResolveResponse:
		w.checkSecret(t, answer)
	case *secretsidecarv1.BatchResolveResponse:
		w.checkBatch(t, request.(*secretsidecarv1.BatchResolveRequest), answer)
	default:
		w.checkHidden(t, string(text))
	}
}

func (w *fuzzWorld) checkSecret(t *testing.T, secret *secretsidecarv1.ResolveResponse) {
	t.Helper()
	if !slices.Contains(w.values, secret.GetValue()) {
		t.Errorf("the value %q is nobody's", secret.GetValue())
	}
	if secret.GetSource() == secretsidecarv1.Source_SOURCE_UNSPECIFIED || secret.GetVersion() == 0 {
		t.Errorf("the answer is not complete: %v", secret)
	}
}

func (w *fuzzWorld) checkBatch(t *testing.T, request *secretsidecarv1.BatchResolveRequest, answer *secretsidecarv1.BatchResolveResponse) {
	t.Helper()
	if len(answer.GetResults()) != len(request.GetRequests()) {
		t.Errorf("%d results for %d requests", len(answer.GetResults()), len(request.GetRequests()))
	}
	for _, result := range answer.GetResults() {
		failed := result.GetError()
		if failed == nil {
			w.checkSecret(t, result.GetSecret())
			continue
		}
		code := codes.Code(failed.GetCode()) // #nosec G115 -- a code of gRPC
		if !slices.Contains(contractReasons[code], failed.GetReason()) || failed.GetMessage() == "" {
			t.Errorf("an item's error is not of the contract: %v", failed)
		}
		if (failed.GetRetryDelay() != nil) != isRetryable(code, failed.GetReason()) {
			t.Errorf("retry_delay %v with %s", failed.GetRetryDelay(), failed.GetReason())
		}
		w.checkHidden(t, failed.GetMessage())
	}
}

// checkError checks code, reason and details against the contract.
func (w *fuzzWorld) checkError(t *testing.T, m method, err error) {
	t.Helper()
	got := status.Convert(err)
	if m.name == healthpb.Health_Check_FullMethodName && got.Code() == codes.NotFound {
		return // gRPC's own service has no reasons
	}
	reason := reasonOf(got)
	if !slices.Contains(contractReasons[got.Code()], reason) || got.Message() == "" {
		t.Errorf("%s: not an error of the contract: %v, reason %s", m.name, err, reason)
	}
	if hasRetry := detail[*errdetails.RetryInfo](got) != nil; hasRetry != isRetryable(got.Code(), reason) {
		t.Errorf("%s: RetryInfo %v with %v %s", m.name, hasRetry, got.Code(), reason)
	}
	if reason == "INVALID_REQUEST" && len(detail[*errdetails.BadRequest](got).GetFieldViolations()) == 0 {
		t.Errorf("%s: INVALID_REQUEST without field violations", m.name)
	}
	w.checkHidden(t, got.Proto().String())
}

func (w *fuzzWorld) checkHidden(t *testing.T, text string) {
	t.Helper()
	for _, secret := range w.hidden {
		if strings.Contains(text, secret) {
			t.Errorf("%q shows %q", text, secret)
		}
	}
}

// fuzzSeeds are requests of one kind, good and bad ones.
func fuzzSeeds(kind proto.Message) [][]byte {
	spec := func(change func(*secretsidecarv1.ConnectionSpec)) *secretsidecarv1.TestConnectionRequest {
		s := &secretsidecarv1.ConnectionSpec{Name: "n", Address: vaultOfSpecs, RoleId: "r", SecretId: "s"}
		change(s)
		return &secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: s}, Path: "secret/data/app/key"}
	}
	resolves := []*secretsidecarv1.ResolveRequest{
		{Connection: "platform", Path: "secret/data/app/key"},
		{Connection: "platform", Path: "secret/data/app/empty", MaxAge: durationpb.New(0)},
		{Connection: "platform", Path: "secret/data/app", Key: "object"},
		{Connection: "project", Path: "secret/data/team/deep app/key", ProjectId: "p1", Version: 1},
		{Connection: "project", Path: "secret/data/app/key"},
		{Connection: "project", Path: "secret/data/app/key", ProjectId: "p2"},
		{Path: "secret/data/app/key"},
		{Connection: "nobody", Path: "secret/data/app/key"},
		{Connection: "platform", Path: "secret/data/absent/key", Version: 4294967295},
		{Connection: "platform", Path: "secret/data/../sys/key"},
		{Connection: "platform", Path: "sys/data/mounts/key"},
		{Connection: "platform", Path: strings.Repeat("a/data/", 200)},
		{Connection: "platform", Path: "secret/data/app/key", MaxAge: durationpb.New(-1)},
		{Connection: "platform", Path: "secret/data/app/key", MaxStale: &durationpb.Duration{Seconds: 1 << 62, Nanos: -1}},
	}
	seeds := [][]byte{nil, []byte("\xff\xff"), []byte("\x0a\x02\xff\xfe")}
	add := func(messages ...proto.Message) {
		for _, message := range messages {
			text, err := proto.Marshal(message)
			if err == nil {
				seeds = append(seeds, text)
			}
		}
	}
	switch kind.(type) {
	case *secretsidecarv1.ResolveRequest:
		for _, one := range resolves {
			add(one)
		}
	case *secretsidecarv1.BatchResolveRequest:
		add(&secretsidecarv1.BatchResolveRequest{Requests: resolves},
			&secretsidecarv1.BatchResolveRequest{Requests: slices.Repeat(resolves[6:7], 257)})
	case *secretsidecarv1.TestConnectionRequest:
		add(&secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "platform"}},
			&secretsidecarv1.TestConnectionRequest{Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "nobody"}},
			spec(func(*secretsidecarv1.ConnectionSpec) {}),
			spec(func(s *secretsidecarv1.ConnectionSpec) { s.Address = "ftp://x" }),
			spec(func(s *secretsidecarv1.ConnectionSpec) {
				s.CaCertPem, s.AuthMount, s.Namespace = "no pem", "a/../b", "team"
			}))
	case *secretsidecarv1.InvalidateRequest:
		add(&secretsidecarv1.InvalidateRequest{Connection: "platform", Path: "secret/data/"},
			&secretsidecarv1.InvalidateRequest{Path: "secret/data/app/key"},
			&secretsidecarv1.InvalidateRequest{Connection: "project", RenewLogin: true},
			&secretsidecarv1.InvalidateRequest{Fleet: true, Path: "//"})
	case *healthpb.HealthCheckRequest:
		add(&healthpb.HealthCheckRequest{Service: "connection/platform"}, &healthpb.HealthCheckRequest{Service: "nobody"})
	}
	return seeds
}
