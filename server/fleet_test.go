package server_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/redistest"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// startInFleet serves the settings in the fleet of the Redis, until the test ends.
func startInFleet(t testing.TB, redis *redistest.Server, settings server.Settings) *sidecar {
	t.Helper()
	f, err := fleet.Open(fleet.Config{URL: redact.New(redis.URL())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := server.New(server.Options{DrainTimeout: drainTimeout, Fleet: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(settings); err != nil {
		t.Fatal(err)
	}
	running := serve(t, s)
	eventually(t, "the sidecar is in the fleet", func() bool { return f.Stats().Connected })
	return running
}

func (s *sidecar) invalidate(t testing.TB, request *secretsidecarv1.InvalidateRequest) *secretsidecarv1.InvalidateResponse {
	t.Helper()
	answer, err := s.Invalidate(context.Background(), request)
	if err != nil {
		t.Fatalf("Invalidate: %v", err)
	}
	return answer
}

func TestAFleetInvalidationReachesEverySidecar(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		v := newVault(t)
		v.write(t, "secret/data/a", map[string]any{"k": "old"})
		settings := server.Settings{Connections: []server.Connection{v.connection("prod"), v.connection("other")}}
		one, two := startInFleet(t, redis, settings), startInFleet(t, redis, settings)
		onProd := &secretsidecarv1.ResolveRequest{Connection: "prod", Path: "secret/data/a/k"}
		onOther := &secretsidecarv1.ResolveRequest{Connection: "other", Path: "secret/data/a/k"}
		for _, s := range []*sidecar{one, two} {
			s.mustResolve(t, onProd)
			s.mustResolve(t, onOther)
		}
		v.write(t, "secret/data/a", map[string]any{"k": "new"})

		answer := one.invalidate(t, &secretsidecarv1.InvalidateRequest{
			Connection: "prod", Path: "secret/data/a/k", Fleet: true, Wait: durationpb.New(time.Minute),
		})
		if answer.GetEntries() != 1 || answer.GetFleet().GetLiving() != 2 || answer.GetFleet().GetAcknowledged() != 2 {
			t.Errorf("got %v", answer)
		}
		// Whoever has acknowledged never answers from what was read before.
		for _, s := range []*sidecar{one, two} {
			if got := s.mustResolve(t, onProd); got.GetValue() != "new" {
				t.Errorf("got %v after the acknowledgement", got)
			}
			if got := s.mustResolve(t, onOther); got.GetSource() != secretsidecarv1.Source_SOURCE_CACHE {
				t.Errorf("got %v: the other connection was dropped too", got)
			}
		}
	})
}

// A caller must not have others drop what it may not drop here.
func TestACallerHasTheFleetDropNoMoreThanItMayDropHere(t *testing.T) {
	redis := redistest.Mini(t)
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	v.write(t, "secret/data/b", map[string]any{"k": "two"})
	prod := v.connection("prod")
	prod.Aliases = []string{"old-name"}
	open := server.Settings{Connections: []server.Connection{prod}}
	limited := open
	limited.Callers = us(func(r *server.CallerRule) { r.Paths = pathPatterns(t, "secret/data/a/k") })
	one, two := startInFleet(t, redis, limited), startInFleet(t, redis, open)
	for _, path := range []string{"secret/data/a/k", "secret/data/b/k"} {
		two.mustResolve(t, &secretsidecarv1.ResolveRequest{Path: path})
	}
	for _, refused := range []*secretsidecarv1.InvalidateRequest{
		{}, {Path: "secret/data/a/k"}, {Path: "secret/data/a/"}, {Connection: "prod"},
		{Connection: "prod", Path: "secret/data/b/k"}, {Connection: "prod", Path: "secret/data/"},
		{Connection: "prod", Path: "secret/data/a/k", RenewLogin: true},
	} {
		refused.Fleet = true
		_, err := one.Invalidate(t.Context(), refused)
		wantProblem(t, err, codes.PermissionDenied, "CALLER_NOT_ALLOWED")
	}

	// Others need not know a name that is an alias here.
	one.invalidate(t, &secretsidecarv1.InvalidateRequest{
		Connection: "old-name", Path: "secret/data/a/k", Fleet: true, Wait: durationpb.New(time.Minute),
	})
	for path, want := range map[string]secretsidecarv1.Source{
		"secret/data/a/k": secretsidecarv1.Source_SOURCE_VAULT,
		"secret/data/b/k": secretsidecarv1.Source_SOURCE_CACHE,
	} {
		got := two.mustResolve(t, &secretsidecarv1.ResolveRequest{Path: path})
		if got.GetSource() != want {
			t.Errorf("the other sidecar answers %s from %v, want %v", path, got.GetSource(), want)
		}
	}
}

func TestAnotherSidecarsInvalidationByAnAliasReachesTheConnection(t *testing.T) {
	redis := redistest.Mini(t)
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "one"})
	renamed := v.connection("new-name")
	renamed.Aliases = []string{"prod"}
	one := startInFleet(t, redis, oneConnection(v))
	two := startInFleet(t, redis, server.Settings{Connections: []server.Connection{renamed}})
	request := &secretsidecarv1.ResolveRequest{Path: "secret/data/a/k"}
	two.mustResolve(t, request)
	one.invalidate(t, &secretsidecarv1.InvalidateRequest{
		Connection: "prod", Fleet: true, Wait: durationpb.New(time.Minute),
	})
	if got := two.mustResolve(t, request).GetSource(); got != secretsidecarv1.Source_SOURCE_VAULT {
		t.Errorf("answered from %v", got)
	}
}

func (s *sidecar) mustResolve(t testing.TB, request *secretsidecarv1.ResolveRequest) *secretsidecarv1.ResolveResponse {
	t.Helper()
	answer, err := s.Resolve(context.Background(), request)
	if err != nil {
		t.Fatalf("Resolve: %v", err)
	}
	return answer
}

func TestAFleetThatCannotBeToldIsAnErrorAfterTheLocalDrop(t *testing.T) {
	redis := redistest.Real(t)
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "old"})
	s := startInFleet(t, redis, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	s.resolve(t, "secret/data/a/k")
	v.write(t, "secret/data/a", map[string]any{"k": "new"})
	redis.Stop()

	_, err := s.Invalidate(t.Context(), &secretsidecarv1.InvalidateRequest{Path: "secret/data/a/k", Fleet: true})
	wantProblem(t, err, codes.Unavailable, "FLEET_UNREACHABLE")
	if got := s.resolve(t, "secret/data/a/k"); got.GetValue() != "new" {
		t.Errorf("got %v after the local drop", got)
	}
	if got := s.resolve(t, "secret/data/a/k"); got.GetSource() != secretsidecarv1.Source_SOURCE_CACHE {
		t.Errorf("got %v: without Redis everything local goes on", got)
	}
}

// A Redis that comes back may have lost what was told: nobody goes on with what was read before.
func TestARedisThatComesBackEmptyCostsReadsAndNoOldValue(t *testing.T) {
	redis := redistest.Real(t)
	v := newVault(t)
	v.write(t, "secret/data/a", map[string]any{"k": "old"})
	s := startInFleet(t, redis, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	s.resolve(t, "secret/data/a/k")
	redis.Stop()
	v.write(t, "secret/data/a", map[string]any{"k": "new"})
	redis.Start(t)
	eventually(t, "it is read anew", func() bool { return s.resolve(t, "secret/data/a/k").GetValue() == "new" })
}

func TestARenewedLoginOfTheFleetIsSpreadAndShared(t *testing.T) {
	redis := redistest.Mini(t)
	v := newVault(t)
	settings := server.Settings{Connections: []server.Connection{v.connection("prod")}}
	one, _ := startInFleet(t, redis, settings), startInFleet(t, redis, settings)
	logins := func() int { return v.count("POST /v1/auth/approle/login") + v.count("PUT /v1/auth/approle/login") }
	eventually(t, "both have logged in", func() bool { return logins() == 2 })
	for range 5 { // the first sidecar logs in once, the other one will
		one.invalidate(t, &secretsidecarv1.InvalidateRequest{Connection: "prod", RenewLogin: true, Fleet: true})
	}
	if got := logins(); got != 3 {
		t.Errorf("%d logins at once, want 3", got)
	}
	eventually(t, "the other one logs in", func() bool { return logins() == 4 })
}

func TestInvalidateRefusesWaitsThatMeanNothing(t *testing.T) {
	redis := redistest.Mini(t)
	v := newVault(t)
	s := startInFleet(t, redis, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	for _, request := range []*secretsidecarv1.InvalidateRequest{
		{Wait: durationpb.New(time.Second)},
		{Fleet: true, Wait: durationpb.New(-time.Second)},
	} {
		_, err := s.Invalidate(t.Context(), request)
		wantProblem(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	}
}
