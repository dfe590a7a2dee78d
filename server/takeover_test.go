package server_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const aSecret = "secret/data/mysec/k"

// apply makes the connections the running ones.
func (s *sidecar) apply(t testing.TB, settings server.Settings) {
	t.Helper()
	if err := s.server.Apply(settings); err != nil {
		t.Fatal(err)
	}
}

func (s *sidecar) applyConnections(t testing.TB, connections ...server.Connection) {
	t.Helper()
	s.apply(t, server.Settings{Connections: connections})
}

// awaitTakeover waits until the first token of the test has been given back.
func (s *sidecar) awaitTakeover(t testing.TB, v *frontedVault) {
	t.Helper()
	eventually(t, "the changed connection has taken over", func() bool { return revocations(v) > 0 })
}

func revocations(v *frontedVault) int {
	return v.count("PUT /v1/auth/token/revoke-self") + v.count("POST /v1/auth/token/revoke-self")
}

// startLogged serves one connection that has logged in and cached a secret.
func startLogged(t *testing.T, v *frontedVault, first server.Connection) (*sidecar, *logBuffer) {
	t.Helper()
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	logs := &logBuffer{}
	s, err := server.New(server.Options{DrainTimeout: drainTimeout, Logger: slog.New(slog.NewTextHandler(logs, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(server.Settings{Connections: []server.Connection{first}}); err != nil {
		t.Fatal(err)
	}
	running := serve(t, s)
	running.resolve(t, aSecret)
	return running, logs
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// count returns how many lines hold all the texts.
func (b *logBuffer) count(texts ...string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
lines:
	for line := range strings.Lines(b.text.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		n++
	}
	return n
}

// hang keeps every request waiting whose path begins so, until release is called.
func (v *frontedVault) hang(t *testing.T, prefix string) (release func()) {
	released := make(chan struct{})
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, prefix) {
			waitFor(t, released)
		}
		return false
	})
	return sync.OnceFunc(func() { v.answerInstead(nil); close(released) })
}

// cut breaks every connection without an answer.
func (v *frontedVault) cut() {
	v.answerInstead(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
}

func withSecretID(c server.Connection, secretID string) server.Connection {
	c.Vault.SecretID = login.Credential{Value: redact.New(secretID)}
	return c
}

func (s *sidecar) requireSource(t *testing.T, want secretsidecarv1.Source) {
	t.Helper()
	if answer := s.resolve(t, aSecret); answer.GetSource() != want {
		t.Errorf("the answer comes from %v, want %v", answer.GetSource(), want)
	}
}

func (s *sidecar) requireServing(t *testing.T, service string) {
	t.Helper()
	check, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil || check.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health of %q is %v (%v)", service, check.GetStatus(), err)
	}
}

func TestWhatNeedsNoVaultTakesEffectWhileVaultHangs(t *testing.T) {
	v := newVault(t)
	s, _ := startLogged(t, v, v.connection("prod"))
	defer v.hang(t, "/v1/")()
	changed := v.withNewSecretID(t, "prod")
	changed.Timeout = time.Minute
	changed.Policy.TTL = time.Minute

	s.applyConnections(t, changed)
	answer := s.resolve(t, aSecret)
	if answer.GetSource() != secretsidecarv1.Source_SOURCE_CACHE {
		t.Errorf("the answer comes from %v, want the cache of the login that still serves", answer.GetSource())
	}
	if life := answer.GetExpiresAt().AsTime().Sub(answer.GetFetchedAt().AsTime()); life > time.Minute {
		t.Errorf("the new ttl does not count: %v", life)
	}

	s.apply(t, server.Settings{Connections: []server.Connection{changed}, Callers: []server.CallerRule{}})
	_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: aSecret})
	wantProblem(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")

	s.apply(t, server.Settings{Connections: []server.Connection{changed, v.connection("added")}})
	s.requireServing(t, "connection/prod")
	if state := s.status(t, "added").GetState(); state != secretsidecarv1.ConnectionState_CONNECTION_STATE_CONNECTING {
		t.Errorf("the added connection is %v", state)
	}
	s.apply(t, server.Settings{Connections: []server.Connection{changed}})
	_, err = s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: aSecret, Connection: "added"})
	wantProblem(t, err, codes.NotFound, "CONNECTION_NOT_FOUND")
}

func TestAChangeOfTimeoutCostsNoLoginAndCountsForTheNextRead(t *testing.T) {
	v := newVault(t)
	changed := v.connection("prod")
	s, _ := startLogged(t, v, changed)
	for i := range 100 {
		changed.Timeout = time.Duration(i+1) * time.Minute
		s.applyConnections(t, changed)
	}
	changed.Timeout = 100 * time.Millisecond
	s.applyConnections(t, changed)
	s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
	if n := logins(v); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}

	defer v.hang(t, "/v1/secret/")()
	_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/other/k"}) // would wait for more than an hour
	wantProblem(t, err, codes.Unavailable, "VAULT_UNREACHABLE")

	changed.Timeout = -time.Second
	if err := s.server.Apply(server.Settings{Connections: []server.Connection{changed}}); err == nil {
		t.Error("a negative timeout is applied")
	}
}

func TestAChangedConnectionTakesOverByItselfOnceItHasLoggedIn(t *testing.T) {
	for _, outage := range []struct {
		name  string
		begin func(v *frontedVault, t *testing.T) (end func())
	}{
		{"Vault hangs", func(v *frontedVault, t *testing.T) func() { return v.hang(t, "/v1/") }},
		{"Vault is cut off", func(v *frontedVault, _ *testing.T) func() { v.cut(); return func() { v.answerInstead(nil) } }},
		{"Vault is sealed", func(v *frontedVault, _ *testing.T) func() { v.SetSealed(true); return func() { v.SetSealed(false) } }},
		{"logins alone hang", func(v *frontedVault, t *testing.T) func() { return v.hang(t, "/v1/auth/approle/login") }},
	} {
		t.Run(outage.name, func(t *testing.T) {
			v := newVault(t)
			s, logs := startLogged(t, v, v.connection("prod"))
			end := outage.begin(v, t)
			defer end()
			changed := v.withNewSecretID(t, "prod")
			s.applyConnections(t, changed)
			eventually(t, "the successor has tried to log in", func() bool { return logins(v) >= 2 })
			s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
			s.requireServing(t, "connection/prod")
			if n := logs.count("a changed connection is logging in", "connection=prod"); n != 1 {
				t.Errorf("%d lines say that the change waits, want 1", n)
			}

			end()
			s.awaitTakeover(t, v)
			s.requireSource(t, secretsidecarv1.Source_SOURCE_VAULT)
			s.requireServing(t, "connection/prod")
			s.requireServing(t, "")
			if n := logs.count("a changed connection has taken over", "connection=prod"); n != 1 {
				t.Errorf("%d lines say that the change is in use, want 1", n)
			}
			before := logins(v)
			s.applyConnections(t, changed)
			s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
			if n := logins(v); n != before {
				t.Errorf("%d more logins for what is in use already", n-before)
			}
		})
	}
}

func TestTheSameSettingsAgainGoOnWaiting(t *testing.T) {
	v := newVault(t)
	s, _ := startLogged(t, v, v.connection("prod"))
	release := v.hang(t, "/v1/auth/approle/login")
	defer release()
	changed := v.withNewSecretID(t, "prod")
	for i := range 20 {
		changed.Timeout = time.Duration(i+1) * time.Minute
		s.applyConnections(t, changed)
	}
	eventually(t, "the successor logs in", func() bool { return logins(v) >= 2 })
	release()
	s.awaitTakeover(t, v)
	if n := logins(v); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestGoingBackToTheOldSettingsEndsTheWait(t *testing.T) {
	v := newVault(t)
	first := v.connection("prod")
	s, _ := startLogged(t, v, first)
	release := v.hang(t, "/v1/auth/approle/login")
	defer release()
	s.applyConnections(t, v.withNewSecretID(t, "prod"))
	eventually(t, "the successor logs in", func() bool { return logins(v) == 2 })
	s.applyConnections(t, first)
	release()
	s.awaitTakeover(t, v) // it is the successor's token that is given back
	s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
	if n := logins(v); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestRejectedSettingsLeaveThoseBeforeInUse(t *testing.T) {
	v := newVault(t)
	good := v.connection("prod")
	s, logs := startLogged(t, v, good)
	bad := withSecretID(good, "wrong-secret-id")
	s.applyConnections(t, bad)
	eventually(t, "the rejection is logged", func() bool { return logs.count("level=ERROR", "the old ones stay in use", "connection=prod") == 1 })

	s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
	s.requireServing(t, "connection/prod")
	s.requireServing(t, "")
	shown := s.status(t, "prod")
	failure := shown.GetLastError()
	if shown.GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED || failure.GetReason() != "LOGIN_REJECTED" ||
		!strings.Contains(failure.GetMessage(), "not in use yet") || shown.GetTokenExpiresAt() == nil {
		t.Errorf("the connection is shown as %v", shown)
	}
	report, err := s.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "prod"}})
	if err != nil || !report.GetOk() || report.GetChecks()[1].GetStatus() != secretsidecarv1.CheckStatus_CHECK_STATUS_WARNING {
		t.Errorf("the test says %v, %v", report, err)
	}

	before := logins(v)
	for range 10 {
		s.applyConnections(t, bad)
	}
	s.applyConnections(t, good)
	s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
	if shown := s.status(t, "prod"); shown.GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_READY || shown.GetLastError() != nil {
		t.Errorf("after going back the connection is shown as %v", shown)
	}
	if n := logins(v); n != before {
		t.Errorf("%d logins for what was tried already", n-before)
	}
	if n := logs.count("the old ones stay in use"); n != 1 {
		t.Errorf("%d lines about one rejection", n)
	}
}

func TestReloadsWithWrongCredentialsSpendNoMoreThanTheLoginBudget(t *testing.T) {
	v := newVault(t)
	good := v.connection("prod")
	s, _ := startLogged(t, v, good)
	for i := range 10 {
		s.applyConnections(t, withSecretID(good, fmt.Sprint("wrong-", i)))
		eventually(t, "the change is rejected", func() bool {
			return s.status(t, "prod").GetLastError().GetReason() == "LOGIN_REJECTED"
		})
	}
	if rejected := logins(v) - 1; rejected > 3 {
		t.Errorf("%d logins were rejected, want at most 3", rejected)
	}
	s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE)
}

func TestRenewingTheLoginTriesAWaitingSuccessor(t *testing.T) {
	v := newVault(t)
	s, _ := startLogged(t, v, v.connection("prod"))
	v.answerInstead(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/login") {
			return false
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"errors":["invalid role or secret ID"]}`)
		return true
	})
	s.applyConnections(t, v.withNewSecretID(t, "prod"))
	eventually(t, "the successor is rejected", func() bool { return s.status(t, "prod").GetLastError().GetReason() == "LOGIN_REJECTED" })

	v.answerInstead(nil) // and five minutes of leaving it alone begin
	answer, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: "prod", RenewLogin: true})
	if err != nil || answer.GetEntries() != 1 {
		t.Errorf("got %v, %v", answer, err)
	}
	if shown := s.status(t, "prod"); shown.GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_READY {
		t.Errorf("the connection is shown as %v", shown)
	}
	s.requireSource(t, secretsidecarv1.Source_SOURCE_VAULT)
	s.awaitTakeover(t, v)
	if n := logins(v); n != 3 {
		t.Errorf("%d logins, want 3: the first, the rejected, the renewed one", n)
	}
}

func TestRenewingTheLoginFallsBackToTheOneInUse(t *testing.T) {
	v := newVault(t)
	good := v.connection("prod")
	s, _ := startLogged(t, v, good)
	s.applyConnections(t, withSecretID(good, "wrong"))
	eventually(t, "the successor is rejected", func() bool { return s.status(t, "prod").GetLastError().GetReason() == "LOGIN_REJECTED" })
	_, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Connection: "prod", RenewLogin: true})
	wantProblem(t, err, codes.FailedPrecondition, "LOGIN_REJECTED")
	if message := err.Error(); !strings.Contains(message, "not in use yet") || strings.Count(message, `"prod"`) != 1 {
		t.Errorf("the message is %s", message)
	}
	s.awaitTakeover(t, v) // of the old token by one of the same credentials
	s.requireSource(t, secretsidecarv1.Source_SOURCE_VAULT)
	s.requireServing(t, "connection/prod")
}

func TestASuccessorOfWhatHasNeverLoggedInTakesOverAtOnce(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{withSecretID(v.connection("prod"), "wrong")}})
	eventually(t, "the first one is rejected", func() bool { return s.status(t, "prod").GetLastError().GetReason() == "LOGIN_REJECTED" })
	release := v.hang(t, "/v1/auth/approle/login")
	defer release()
	s.applyConnections(t, v.connection("prod"))
	if shown := s.status(t, "prod"); shown.GetState() != secretsidecarv1.ConnectionState_CONNECTION_STATE_CONNECTING || shown.GetLastError() != nil {
		t.Errorf("the connection is shown as %v", shown)
	}
	release()
	s.requireSource(t, secretsidecarv1.Source_SOURCE_VAULT)
	s.requireServing(t, "")
}

func TestCopiesAreServedWhenTheTokenEndsWhileASuccessorWaits(t *testing.T) {
	v := newVault(t)
	v.root(t, "auth/approle/role/worker", `{"token_ttl":"2s","token_policies":"worker"}`)
	first := v.connection("prod")
	first.Policy.TTL = time.Millisecond
	s, _ := startLogged(t, v, first)
	v.cut()
	changed := v.withNewSecretID(t, "prod")
	changed.Policy.TTL = time.Millisecond
	s.applyConnections(t, changed)
	eventually(t, "the token has ended", func() bool { return s.status(t, "prod").GetTokenExpiresAt() == nil })
	s.requireSource(t, secretsidecarv1.Source_SOURCE_STALE)
	v.answerInstead(nil)
	eventually(t, "the successor serves", func() bool {
		answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: aSecret})
		return err == nil && answer.GetSource() == secretsidecarv1.Source_SOURCE_VAULT
	})
}

func TestASuccessorTakesOverFromWhatIsRejectedAndHasNoToken(t *testing.T) {
	v := newVault(t)
	changed := v.withNewSecretID(t, "prod")
	v.root(t, "auth/approle/role/worker", `{"token_ttl":"2s","token_max_ttl":"2s","token_policies":"worker"}`)
	s, _ := startLogged(t, v, v.connection("prod"))
	released := make(chan struct{})
	v.answerInstead(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/login") {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if bytes.Contains(body, []byte(v.secretID)) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"errors":["invalid role or secret ID"]}`)
			return true
		}
		waitFor(t, released)
		return false
	})
	s.applyConnections(t, changed)
	eventually(t, "the successor has taken over before its login", func() bool {
		shown := s.status(t, "prod")
		return shown.GetTokenExpiresAt() == nil && shown.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_CONNECTING
	})
	close(released)
	s.requireSource(t, secretsidecarv1.Source_SOURCE_VAULT)
}

func TestOnlyAChangeOfTheLoginCostsOne(t *testing.T) {
	v := newVault(t)
	otherRole, otherSecret, err := v.SetupAppRole("other", readEverything)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(all *server.Settings, c *server.Connection)
		logins int
	}{
		{"callers", func(all *server.Settings, _ *server.Connection) {
			all.Callers = []server.CallerRule{{UID: new(uint32(os.Getuid()))}}
		}, 0},
		{"caller limits", func(all *server.Settings, _ *server.Connection) { all.CallerLimits.PerSecond = 1000 }, 0},
		{"test hosts", func(all *server.Settings, _ *server.Connection) { all.TestHosts = []string{"vault.example"} }, 0},
		{"reflection", func(all *server.Settings, _ *server.Connection) { all.NoReflection = true }, 0},
		{"the cache's size", func(all *server.Settings, _ *server.Connection) { all.CacheBytes = 1 << 20 }, 0},
		{"scope", func(_ *server.Settings, c *server.Connection) {
			c.Scope, c.ProjectIDs = server.ScopeProject, []string{"p1"}
		}, 0},
		{"required", func(_ *server.Settings, c *server.Connection) { c.Required = false }, 0},
		{"ttl", func(_ *server.Settings, c *server.Connection) { c.Policy.TTL = time.Minute }, 0},
		{"max_waiting", func(_ *server.Settings, c *server.Connection) { c.Policy.MaxWaiting = 7 }, 0},
		{"timeout", func(_ *server.Settings, c *server.Connection) { c.Timeout = time.Minute }, 0},
		{"address", func(_ *server.Settings, c *server.Connection) {
			c.Vault.Address = strings.Replace(v.address, "127.0.0.1", "localhost", 1)
		}, 1},
		{"namespace", func(_ *server.Settings, c *server.Connection) { c.Vault.Namespace = "root" }, 1},
		{"role_id", func(_ *server.Settings, c *server.Connection) {
			*c = withSecretID(*c, otherSecret)
			c.Vault.RoleID = login.Credential{Value: redact.New(otherRole)}
		}, 1},
		{"secret_id", func(_ *server.Settings, c *server.Connection) { *c = v.withNewSecretID(t, "prod") }, 1},
		{"TLS", func(_ *server.Settings, c *server.Connection) { c.Vault.TLS.ServerName = "vault.example" }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := v.connection("prod")
			s, _ := startLogged(t, v, first)
			before, revoked := logins(v), revocations(v)
			changed := server.Settings{}
			test.change(&changed, &first)
			changed.Connections = []server.Connection{first}
			s.apply(t, changed)
			want := secretsidecarv1.Source_SOURCE_CACHE
			if test.logins > 0 {
				eventually(t, "the changed connection has taken over", func() bool { return revocations(v) > revoked })
				want = secretsidecarv1.Source_SOURCE_VAULT
			}
			answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: aSecret, ProjectId: "p1"})
			if err != nil || answer.GetSource() != want {
				t.Errorf("got %v, %v, want an answer from %v", answer, err, want)
			}
			if n := logins(v) - before; n != test.logins {
				t.Errorf("%d logins, want %d", n, test.logins)
			}
		})
	}
}

// root asks Vault as root.
func (v *frontedVault) root(t *testing.T, path, body string) {
	t.Helper()
	request := httptest.NewRequest(http.MethodPost, "http://vault/v1/"+path, strings.NewReader(body))
	request.Header.Set("X-Vault-Token", v.RootToken())
	answer := httptest.NewRecorder()
	v.Vault.ServeHTTP(answer, request)
	if answer.Code >= http.StatusMultipleChoices {
		t.Fatalf("%s: %d %s", path, answer.Code, answer.Body)
	}
}

func TestAProjectThatComesInWithAChangeWaitsForIt(t *testing.T) {
	v, other := newVault(t), newVault(t)
	other.write(t, "secret/data/mysec", map[string]any{"k": "of the other Vault"})
	first := v.connection("prod")
	s, _ := startLogged(t, v, first)
	first.Scope, first.ProjectIDs = server.ScopeProject, []string{"p1", "p2"}
	s.applyConnections(t, first)
	changed := other.connection("prod")
	changed.Scope, changed.ProjectIDs = server.ScopeProject, []string{"p2", "p3"}
	release := other.hang(t, "/v1/")
	defer release()
	s.applyConnections(t, changed)

	ask := func(project string) (*secretsidecarv1.ResolveResponse, error) {
		return s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: aSecret, ProjectId: project})
	}
	_, err := ask("p1")
	wantProblem(t, err, codes.PermissionDenied, "PROJECT_NOT_ALLOWED")
	if answer, err := ask("p2"); err != nil || answer.GetValue() != "v" {
		t.Errorf("the project of both gets %v, %v", answer, err)
	}
	_, err = ask("p3")
	wantProblem(t, err, codes.Unavailable, "LOGIN_PENDING")
	if shown := s.status(t, "prod"); shown.GetAddress() != v.address {
		t.Errorf("the address in use is shown as %s", shown.GetAddress())
	}

	release()
	s.awaitTakeover(t, v)
	for _, project := range []string{"p2", "p3"} {
		if answer, err := ask(project); err != nil || answer.GetValue() != "of the other Vault" {
			t.Errorf("%s gets %v, %v", project, answer, err)
		}
	}
}

func TestStoppingEndsAWaitingSuccessor(t *testing.T) {
	v := newVault(t)
	s, _ := startLogged(t, v, v.connection("prod"))
	release := v.hang(t, "/v1/auth/approle/login")
	s.applyConnections(t, v.withNewSecretID(t, "prod"))
	eventually(t, "the successor logs in", func() bool { return logins(v) == 2 })
	s.stop()
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	s.served <- nil
	release()
	if n := revocations(v); n != 1 {
		t.Errorf("%d tokens revoked, want that of the one in use", n)
	}
}

func TestAReloadReadsCredentialFilesAnew(t *testing.T) {
	v := newVault(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "secret_id")
	write := func(secretID string) {
		if err := os.WriteFile(file, []byte(secretID), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(v.secretID)
	first := v.connection("prod")
	first.Vault.SecretID = login.Credential{File: file}
	s, _ := startLogged(t, v, first)
	seen, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	_, next, err := v.SetupAppRole("worker", readEverything)
	if err != nil {
		t.Fatal(err)
	}
	replaceUnseen(t, file, next, seen.ModTime())
	s.applyConnections(t, first)
	eventually(t, "the new secret_id is used", func() bool { return logins(v) == 2 })
	s.awaitTakeover(t, v)
	s.requireSource(t, secretsidecarv1.Source_SOURCE_CACHE) // it is the same connection
}

// replaceUnseen writes through another name of the file, in another folder, and puts its time back:
// no watch can tell.
func replaceUnseen(t *testing.T, file, content string, modTime time.Time) {
	t.Helper()
	link := filepath.Join(t.TempDir(), "link")
	for _, err := range []error{
		os.Link(file, link), os.WriteFile(link, []byte(content), 0o600), os.Chtimes(link, modTime, modTime),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}
