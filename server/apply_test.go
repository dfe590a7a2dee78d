package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

func codeOf(err error) codes.Code { return status.Code(err) }

func (s *sidecar) status(t *testing.T, name string) *secretsidecarv1.ConnectionStatus {
	t.Helper()
	answer, err := s.ListConnections(t.Context(), &secretsidecarv1.ListConnectionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range answer.GetConnections() {
		if c.GetName() == name {
			return c
		}
	}
	t.Fatalf("no connection %s in %v", name, answer)
	return nil
}

func logins(v *frontedVault) int {
	return v.count("PUT /v1/auth/approle/login") + v.count("POST /v1/auth/approle/login")
}

func TestAReloadKeepsWhatHasNotChanged(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	kept := v.connection("kept")
	s := start(t, server.Settings{Connections: []server.Connection{kept}})
	s.resolve(t, "secret/data/mysec/k")

	kept.Policy.TTL, kept.Scope, kept.ProjectIDs = time.Minute, server.ScopeProject, []string{"p1"}
	if err := s.server.Apply(server.Settings{Connections: []server.Connection{kept, v.connection("added")}}); err != nil {
		t.Fatal(err)
	}
	answer, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "kept", Path: "secret/data/mysec/k", ProjectId: "p1"})
	if err != nil || answer.GetSource() != secretsidecarv1.Source_SOURCE_CACHE {
		t.Errorf("the cached copy is gone: %v %v", answer, err)
	}
	if life := answer.GetExpiresAt().AsTime().Sub(answer.GetFetchedAt().AsTime()); life > time.Minute {
		t.Errorf("the new ttl does not count: %v", life)
	}
	_, err = s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "kept", Path: "secret/data/mysec/k"})
	wantProblem(t, err, codes.PermissionDenied, "PROJECT_REQUIRED")
	added, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "added", Path: "secret/data/mysec/k"})
	if err != nil || added.GetSource() != secretsidecarv1.Source_SOURCE_VAULT {
		t.Errorf("connections share cache entries: %v %v", added, err)
	}
	if n := logins(v); n != 2 {
		t.Errorf("%d logins, want one for each connection", n)
	}
}

func TestAReloadRevokesTheTokenOfAConnectionThatLeft(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("old")}})
	s.resolve(t, "secret/data/mysec/k")
	revoked := make(chan struct{})
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/auth/token/revoke-self" {
			close(revoked)
		}
		return false
	})
	if err := s.server.Apply(server.Settings{}); err != nil {
		t.Fatal(err)
	}
	<-revoked
	_, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Connection: "old", Path: "secret/data/mysec/k"})
	wantProblem(t, err, codes.NotFound, "CONNECTION_NOT_FOUND")
	check, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "connection/old"})
	if check.GetStatus() == healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health of a connection that left: %v %v", check, err)
	}
}

func TestReloadsUnderLoadDropNoRequest(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Resolve(t.Context(), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"}); err != nil {
					t.Errorf("a request failed during a reload: %v", err)
					return
				}
			}
		})
	}
	for round := range 41 { // the last one is a change, which nothing takes back
		changed := v.withNewSecretID(t, "prod")
		if round%2 == 1 {
			changed = v.connection("prod")
		}
		if err := s.server.Apply(server.Settings{Connections: []server.Connection{changed}}); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "a changed connection has logged in", func() bool { return logins(v) >= 2 })
	stop()
	load.Wait()
}

func TestHealthFollowsTheFirstLoginsAndStays(t *testing.T) {
	v := newVault(t)
	release := make(chan struct{})
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/login") {
			waitFor(t, release)
		}
		return false
	})
	optional := v.connection("optional")
	optional.Required = false
	optional.Vault.SecretID = login.Credential{Value: redact.New("wrong")}
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod"), optional}})
	health := healthpb.NewHealthClient(s.conn)
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_NOT_SERVING, "secretsidecar.v1.SecretService": healthpb.HealthCheckResponse_NOT_SERVING,
		"liveness": healthpb.HealthCheckResponse_SERVING, "connection/prod": healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		check, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || check.GetStatus() != want {
			t.Errorf("before the login %q is %v (%v), want %v", service, check.GetStatus(), err, want)
		}
	}
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantNext(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	close(release)
	wantNext(t, watch, healthpb.HealthCheckResponse_SERVING)
	s.stop()
	wantNext(t, watch, healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := watch.Recv(); err == nil {
		t.Error("the watch goes on after the stop")
	}
	began := time.Now()
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	s.served <- nil
	if took := time.Since(began); took > drainTimeout/2 {
		t.Errorf("an open watch held up the stop for %v", took)
	}
}

func wantNext(t *testing.T, watch healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	got, err := watch.Recv()
	if err != nil || got.GetStatus() != want {
		t.Fatalf("got %v (%v), want %v", got.GetStatus(), err, want)
	}
}

func TestStoppingFinishesRequestsInProgress(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/mysec", map[string]any{"k": "v"})
	s := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	reading, release := make(chan struct{}), make(chan struct{})
	v.answerInstead(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v1/secret/") {
			close(reading)
			waitFor(t, release)
		}
		return false
	})
	outcome := make(chan error, 1)
	go func() {
		_, err := s.Resolve(context.WithoutCancel(t.Context()), &secretsidecarv1.ResolveRequest{Path: "secret/data/mysec/k"})
		outcome <- err
	}()
	<-reading
	s.stop()
	close(release)
	if err := <-outcome; err != nil {
		t.Errorf("a request in progress failed: %v", err)
	}
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	s.served <- nil
	if n := v.count("PUT /v1/auth/token/revoke-self") + v.count("POST /v1/auth/token/revoke-self"); n != 1 {
		t.Errorf("%d tokens revoked, want 1", n)
	}
	if err := s.server.Apply(server.Settings{}); !errors.Is(err, server.ErrStopped) {
		t.Errorf("Apply after the stop: %v", err)
	}
}
