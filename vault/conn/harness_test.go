package conn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// world is a Vault inside a bubble, where sockets do not work: devvault behind a RoundTripper, on
// the bubble's clock.
type world struct {
	t    *testing.T
	dev  *devvault.Vault
	logs *lockedBuffer

	mu       sync.Mutex
	requests []string                                     // "POST auth/approle/login"; guarded by mu
	fault    func(*http.Request) (*http.Response, error)  // instead of Vault's answer; guarded by mu
	override map[string]func(http.ResponseWriter, string) // by path: what to answer; guarded by mu
	latency  time.Duration                                // guarded by mu
}

// inBubble runs a test with a world in a synctest bubble.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dev: devvault.New(devvault.Options{RootToken: "root"}), logs: &lockedBuffer{}}
		w.do("POST", "sys/auth/approle", `{"type":"approle"}`)
		w.do("PUT", "sys/policies/acl/app", `{"policy":"path \"secret/*\" {capabilities=[\"read\"]}"}`)
		w.do("POST", "secret/data/app", `{"data":{"key":"the-value"}}`)
		test(t, w)
	})
}

// do asks Vault as root.
func (w *world) do(method, path, body string) map[string]any {
	w.t.Helper()
	req := httptest.NewRequest(method, "http://vault/v1/"+path, strings.NewReader(body))
	req.Header.Set("X-Vault-Token", "root")
	rec := httptest.NewRecorder()
	w.dev.ServeHTTP(rec, req)
	if rec.Code >= 300 {
		w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
	}
	var answer map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &answer)
	return answer
}

func data(answer map[string]any, field string) string {
	return answer["data"].(map[string]any)[field].(string)
}

// role makes an AppRole and returns a Config that logs in with it.
func (w *world) role(params string) Config {
	w.t.Helper()
	w.do("POST", "auth/approle/role/app", params)
	roleID := data(w.do("GET", "auth/approle/role/app/role-id", ""), "role_id")
	return w.config(roleID, w.secretID())
}

func (w *world) secretID() string {
	w.t.Helper()
	return data(w.do("POST", "auth/approle/role/app/secret-id", "{}"), "secret_id")
}

// literal are Settings whose credentials are not in files; an empty secretID is none.
func literal(address, roleID, secretID string) Settings {
	return Settings{Endpoint: vault.Endpoint{Address: address}, Role: login.Role{
		RoleID: login.Credential{Value: redact.New(roleID)}, SecretID: login.Credential{Value: redact.New(secretID)},
	}}
}

func (w *world) config(roleID, secretID string) Config {
	return Config{
		Settings: literal("http://vault:8200", roleID, secretID),
		Name:     "test", Options: vault.Options{Transport: w}, watch: noWatch,
		Logger: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// open opens a client that is closed at the end of the test.
func (w *world) open(cfg Config) *Connection {
	w.t.Helper()
	c, err := Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

func noWatch(ctx context.Context, _ func()) { <-ctx.Done() }

func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	path := strings.TrimPrefix(req.URL.Path, "/v1/")
	w.mu.Lock()
	w.requests = append(w.requests, req.Method+" "+path)
	fault, latency, override := w.fault, w.latency, w.override[path]
	w.mu.Unlock()
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if fault == nil {
		return w.answer(req, override)
	}
	resp, err := fault(req)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// answer is what Vault answers, or an override in its place.
func (w *world) answer(req *http.Request, override func(http.ResponseWriter, string)) (*http.Response, error) {
	received := req.Clone(req.Context())
	if received.Body == nil {
		received.Body = http.NoBody // as a server has it
	}
	rec := httptest.NewRecorder()
	w.dev.ServeHTTP(rec, received)
	if override != nil {
		said := rec.Body.String()
		rec = httptest.NewRecorder()
		override(rec, said)
	}
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

// count returns how many requests with this method and path reached Vault.
func (w *world) count(request string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.requests {
		if r == request {
			n++
		}
	}
	return n
}

func (w *world) total() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = nil
}

// breakWith makes Vault answer as fault does; nil repairs it.
func (w *world) breakWith(fault func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

func (w *world) setLatency(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latency = d
}

func refused(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func status(code int, body string, header http.Header) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: header, ContentLength: int64(len(body)), Request: req,
			Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

const (
	loginCall  = "POST auth/approle/login"
	renewCall  = "POST auth/token/renew-self"
	revokeCall = "POST auth/token/revoke-self"
	readCall   = "GET secret/data/app"
)

func mustRead(t *testing.T, c *Connection) {
	t.Helper()
	secret, err := c.Read(t.Context(), "secret/data/app", 0)
	if err != nil {
		t.Fatalf("read: %v %+v", err, vault.DebugAttrs(err))
	}
	if v, _ := secret.Value("key"); v.Text.Reveal() == "" {
		t.Fatalf("read: no value")
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func remedy(err error) string {
	call, _ := errors.AsType[*vault.CallError](err)
	if call == nil {
		return ""
	}
	return call.Remedy
}

// lockedBuffer is a bytes.Buffer for many goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// wrapped asks Vault to wrap its answer to a POST.
func (w *world) wrapped(path string) (string, error) {
	req := httptest.NewRequest(http.MethodPost, "http://vault/v1/"+path, strings.NewReader(`{"some":"data"}`))
	if strings.HasSuffix(path, "secret-id") {
		req = httptest.NewRequest(http.MethodPost, "http://vault/v1/"+path, strings.NewReader(`{}`))
	}
	req.Header.Set("X-Vault-Token", "root")
	req.Header.Set("X-Vault-Wrap-TTL", "300s")
	rec := httptest.NewRecorder()
	w.dev.ServeHTTP(rec, req)
	var answer struct {
		WrapInfo struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil || answer.WrapInfo.Token == "" {
		return "", errors.New("wrap " + path + ": " + rec.Body.String())
	}
	return answer.WrapInfo.Token, nil
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// usedSecretID and usedRoleID are those of the last login.
func (c *Connection) usedSecretID(t *testing.T) string {
	t.Helper()
	identity, err := c.login.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.SecretID.Reveal()
}

func (c *Connection) usedRoleID(t *testing.T) string {
	t.Helper()
	identity, err := c.login.Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity.RoleID.Reveal()
}
