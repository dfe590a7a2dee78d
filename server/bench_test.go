package server_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// BenchmarkCachedResolve shows what the doors cost on the hot path, client and socket included: compare its parts of
// one run, with each other and with BenchmarkEcho.
func BenchmarkCachedResolve(b *testing.B) {
	log, err := audit.Open(filepath.Join(b.TempDir(), "audit.log"), false)
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
			running := serveCached(b, server.Options{Audit: one.audit, AuditRequired: true}, one.limits)
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

func serveCached(b *testing.B, options server.Options, limits server.CallerLimits) *sidecar {
	b.Helper()
	v := newVault(b)
	for i := range cachedSecrets {
		v.write(b, fmt.Sprintf("secret/data/app-%d", i), map[string]any{"key": "value"})
	}
	s, err := server.New(options)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Apply(b.Context(), server.Settings{Connections: []server.Connection{v.connection("prod")}, CallerLimits: limits}); err != nil {
		b.Fatal(err)
	}
	return serve(b, s)
}

// BenchmarkEcho is the least that a call costs: gRPC alone, with the same messages.
func BenchmarkEcho(b *testing.B) {
	socket := filepath.Join(b.TempDir(), "s.sock")
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer()
	secretsidecarv1.RegisterSecretServiceServer(g, echo{})
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(listener) }()
	b.Cleanup(func() { g.Stop(); <-served })
	channel, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = channel.Close() })
	client, request := secretsidecarv1.NewSecretServiceClient(channel), cachedRequest(0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Resolve(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
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
