package server_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const readEverything = `path "secret/*" { capabilities = ["read"] }
path "sys/mounts" { capabilities = ["read"] }`

// frontedVault is a development Vault behind a front that counts, delays and answers in its place.
type frontedVault struct {
	*devvault.Vault
	address, roleID, secretID string

	mu      sync.Mutex
	calls   []string                                                // guarded by mu: "GET /v1/…"
	instead func(http.ResponseWriter, *http.Request) (handled bool) // guarded by mu
}

func newVault(t testing.TB) *frontedVault {
	t.Helper()
	v := &frontedVault{Vault: devvault.New(devvault.Options{})}
	var err error
	if v.roleID, v.secretID, err = v.SetupAppRole("worker", readEverything); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(v)
	t.Cleanup(front.Close)
	v.address = front.URL
	return v
}

func (v *frontedVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.calls = append(v.calls, r.Method+" "+r.URL.Path)
	instead := v.instead
	v.mu.Unlock()
	if instead != nil && instead(w, r) {
		return
	}
	v.Vault.ServeHTTP(w, r)
}

// answerInstead lets f answer requests in Vault's place; nil ends it.
func (v *frontedVault) answerInstead(f func(http.ResponseWriter, *http.Request) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.instead = f
}

// count returns how many calls so far began with the method and path.
func (v *frontedVault) count(prefix string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, call := range v.calls {
		if strings.HasPrefix(call, prefix) {
			n++
		}
	}
	return n
}

func (v *frontedVault) connection(name string) server.Connection {
	return server.Connection{
		Name:     name,
		Scope:    server.ScopePlatform,
		Required: true,
		Timeout:  30 * time.Second,
		Vault: conn.Settings{
			Endpoint: vault.Endpoint{Address: v.address},
			Role:     login.Role{RoleID: login.Credential{Value: redact.New(v.roleID)}, SecretID: login.Credential{Value: redact.New(v.secretID)}},
		},
		Policy: cache.Policy{TTL: time.Hour, MaxStale: time.Hour, NegativeTTL: 10 * time.Second, MaxWaiting: 10000},
	}
}

// withNewSecretID is the connection with a secret_id that nobody has used yet.
func (v *frontedVault) withNewSecretID(t testing.TB, name string) server.Connection {
	t.Helper()
	_, secretID, err := v.SetupAppRole("worker", readEverything)
	if err != nil {
		t.Fatal(err)
	}
	c := v.connection(name)
	c.Vault.SecretID = login.Credential{Value: redact.New(secretID)}
	return c
}

// sidecar is a running server with a client.
type sidecar struct {
	secretsidecarv1.SecretServiceClient
	conn   *grpc.ClientConn
	server *server.Server
	socket string
	stop   context.CancelFunc
	served chan error
	more   []secretsidecarv1.SecretServiceClient // over connections of their own
}

// batchOf asks for one value so many times.
func batchOf(count int, path string) *secretsidecarv1.BatchResolveRequest {
	return &secretsidecarv1.BatchResolveRequest{Requests: slices.Repeat([]*secretsidecarv1.ResolveRequest{{Path: path}}, count)}
}

// start serves the settings until the test ends.
func start(t testing.TB, settings server.Settings) *sidecar {
	t.Helper()
	s, err := server.New(server.Options{DrainTimeout: drainTimeout})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(settings); err != nil {
		t.Fatal(err)
	}
	return serve(t, s)
}

func serve(t testing.TB, s *server.Server) *sidecar {
	t.Helper()
	socket := filepath.Join(shortTempDir(t), "s.sock")
	listener, err := unixsocket.Listen(unixsocket.Socket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	running := &sidecar{server: s, socket: socket, stop: stop, served: make(chan error, 1)}
	go func() { running.served <- s.Serve(ctx, listener) }()
	running.conn = dial(t, socket)
	running.SecretServiceClient = secretsidecarv1.NewSecretServiceClient(running.conn)
	t.Cleanup(func() {
		_ = running.conn.Close()
		stop()
		if err := <-running.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		running.served <- nil
	})
	return running
}

func dial(t testing.TB, socket string) *grpc.ClientConn {
	t.Helper()
	channel, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = channel.Close() })
	return channel
}

// shortTempDir is a folder whose name leaves room for a socket's.
func shortTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ss")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (s *sidecar) resolve(t *testing.T, path string) *secretsidecarv1.ResolveResponse {
	t.Helper()
	answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: path})
	if err != nil {
		t.Fatalf("Resolve %s: %v", path, err)
	}
	return answer
}

// wantProblem checks the code, the reason and the details that the contract promises for them.
func wantProblem(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	got := status.Convert(err)
	if got.Code() != code || reasonOf(got) != reason {
		t.Fatalf("got %v %s (%q), want %v %s", got.Code(), reasonOf(got), got.Message(), code, reason)
	}
	if isRetryable(code, reason) && detail[*errdetails.RetryInfo](got).GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("%s without RetryInfo", reason)
	}
	if reason == "INVALID_REQUEST" && len(detail[*errdetails.BadRequest](got).GetFieldViolations()) == 0 {
		t.Error("INVALID_REQUEST without field violations")
	}
}

// isRetryable reports whether the contract promises to say when to ask again.
func isRetryable(code codes.Code, reason string) bool {
	return code == codes.Unavailable || reason == "RATE_LIMITED" || reason == "OVERLOADED"
}

func reasonOf(s *status.Status) string {
	info := detail[*errdetails.ErrorInfo](s)
	if info.GetDomain() != "secretsidecar" {
		return "no ErrorInfo of domain secretsidecar"
	}
	return info.GetReason()
}

func detail[T any](s *status.Status) T {
	var none T
	for _, d := range s.Details() {
		if found, ok := d.(T); ok {
			return found
		}
	}
	return none
}

// write writes the next version of a secret, by its API path.
func (v *frontedVault) write(t testing.TB, path string, data map[string]any) {
	t.Helper()
	if err := v.WriteSecret(strings.TrimPrefix(path, "secret/data/"), data); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}

// waitFor holds a handler back until released, or until the test has failed and would wait for the
// handler.
func waitFor(t *testing.T, released <-chan struct{}) {
	select {
	case <-released:
	case <-t.Context().Done():
	}
}

// drainTimeout is many times what any stop takes. One that waits for it is held up.
const drainTimeout = time.Minute

// eventually waits until holds says so, on a busy machine too.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
