package server_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/server"
)

func TestMoreHeadersThanAFewKiBAreRefusedWithAnAnswer(t *testing.T) {
	v := newVault(t)
	v.write(t, "secret/data/app", map[string]any{"key": "value"})
	running := start(t, server.Settings{Connections: []server.Connection{v.connection("prod")}})
	many := metadata.MD{}
	for i := range 300 {
		many.Set(fmt.Sprintf("x-%d", i), "v")
	}
	for name, sent := range map[string]metadata.MD{
		"a long value":         metadata.Pairs("x-long", strings.Repeat("x", 9<<10)),
		"a long binary value":  metadata.Pairs("x-long-bin", strings.Repeat("x", 9<<10)),
		"fifteen MiB":          metadata.Pairs("x-long", strings.Repeat("x", 15<<20)),
		"many small headers":   many,
		"one name many values": {"x-many": strings.Split(strings.Repeat("v ", 300), " ")},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(t.Context(), sent)
			if _, err := running.Resolve(ctx, &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}); status.Code(err) != codes.Internal {
				t.Errorf("Resolve: %v, want an answer of gRPC's own", err)
			}
			watch, err := healthpb.NewHealthClient(running.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
			if err == nil {
				_, err = watch.Recv()
			}
			if status.Code(err) != codes.Internal {
				t.Errorf("Watch: %v, want an answer of gRPC's own", err)
			}
		})
	}
	usual := metadata.Pairs("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"tracestate", strings.Repeat("t", 512), "baggage", strings.Repeat("b", 4096))
	if _, err := running.Resolve(metadata.NewOutgoingContext(t.Context(), usual), &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}); err != nil {
		t.Errorf("what tracing sends is refused: %v", err)
	}
}
