package server_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// BenchmarkCachedResolve shows what the doors cost on the hot path, client and socket included:
// compare its parts of one run, with each other and with BenchmarkEcho.
func BenchmarkCachedResolve(b *testing.B) {
	log, err := audit.Open(filepath.Join(b.TempDir(), "audit.log"), audit.Options{Required: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	for _, one := range []struct {
		name   string
		limits server.CallerLimits
		audit  *audit.Log
	}{
		{name: "plain"},
		{name: "limited", limits: server.CallerLimits{InFlight: 1000, PerSecond: 1 << 30}},
		{name: "audited", audit: log},
	} {
		b.Run(one.name, func(b *testing.B) {
			running := serveCached(b, server.Options{Audit: one.audit}, one.limits)
			request := cachedRequest(0)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := running.Resolve(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCachedBatchResolve(b *testing.B) {
	for _, size := range []int{1, 10, cachedSecrets} {
		b.Run(fmt.Sprintf("items=%d", size), func(b *testing.B) {
			running := serveCached(b, server.Options{}, server.CallerLimits{})
			request := &secretsidecarv1.BatchResolveRequest{}
			for i := range size {
				request.Requests = append(request.Requests, cachedRequest(i))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := running.BatchResolve(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// cachedSecrets is how many there are in the Vault of a benchmark.
const cachedSecrets = 100

func cachedRequest(i int) *secretsidecarv1.ResolveRequest {
	return &secretsidecarv1.ResolveRequest{Connection: "prod", Path: fmt.Sprintf("secret/data/app-%d/key", i)}
}

func serveCached(b testing.TB, options server.Options, limits server.CallerLimits) *sidecar {
	b.Helper()
	v := newVault(b)
	for i := range cachedSecrets {
		v.write(b, fmt.Sprintf("secret/data/app-%d", i), map[string]any{"key": "value"})
	}
	s, err := server.New(options)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Apply(server.Settings{Connections: []server.Connection{v.connection("prod")}, CallerLimits: limits}); err != nil {
		b.Fatal(err)
	}
	return serve(b, s)
}

// TestACachedResolveAllocatesNoMoreThanAnEcho holds the hot path against gRPC alone: an allocation
// that creeps in, for telemetry that nobody has asked for or anything else, fails it.
func TestACachedResolveAllocatesNoMoreThanAnEcho(t *testing.T) {
	const runs = 2000
	request := cachedRequest(0)
	allocations := func(client secretsidecarv1.SecretServiceClient) float64 {
		least := math.Inf(1)
		for range 3 { // what goes on beside it only adds
			least = min(least, testing.AllocsPerRun(runs, func() {
				if _, err := client.Resolve(t.Context(), request); err != nil {
					t.Fatal(err)
				}
			}))
		}
		return least
	}
	echoed := allocations(serveEcho(t))
	cached := allocations(serveCached(t, server.Options{}, server.CallerLimits{}))
	t.Logf("a cached Resolve allocates %v times, an echo %v times, client included", cached, echoed)
	if cached > echoed {
		t.Errorf("a cached Resolve allocates %v times, an echo %v times", cached, echoed)
	}
}

// BenchmarkEcho is the least that a call costs: gRPC alone, with the same messages.
func BenchmarkEcho(b *testing.B) {
	client, request := serveEcho(b), cachedRequest(0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Resolve(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

func serveEcho(t testing.TB) secretsidecarv1.SecretServiceClient {
	t.Helper()
	socket := filepath.Join(shortTempDir(t), "s.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	secretsidecarv1.RegisterSecretServiceServer(g, echo{})
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(listener) }()
	t.Cleanup(func() { g.Stop(); <-served })
	return secretsidecarv1.NewSecretServiceClient(dial(t, socket))
}

type echo struct {
	secretsidecarv1.UnimplementedSecretServiceServer
}

func (echo) Resolve(context.Context, *secretsidecarv1.ResolveRequest) (*secretsidecarv1.ResolveResponse, error) {
	now := time.Now()
	return &secretsidecarv1.ResolveResponse{
		Value: "value", ValueType: secretsidecarv1.ValueType_VALUE_TYPE_STRING, Version: 1,
		VersionCreatedAt: timestamppb.New(now), FetchedAt: timestamppb.New(now), ExpiresAt: timestamppb.New(now),
		Source: secretsidecarv1.Source_SOURCE_CACHE,
	}, nil
}
