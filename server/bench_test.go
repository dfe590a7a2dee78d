package server_test

import (
	"path/filepath"
	"testing"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// BenchmarkCachedResolve shows what the doors cost on the hot path, client and socket included: compare its parts of
// one run.
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
			v := newVault(b)
			v.write(b, "secret/data/app", map[string]any{"key": "value"})
			s, err := server.New(server.Options{Audit: one.audit, AuditRequired: true})
			if err != nil {
				b.Fatal(err)
			}
			settings := server.Settings{Connections: []server.Connection{v.connection("prod")}, CallerLimits: one.limits}
			if err := s.Apply(b.Context(), settings); err != nil {
				b.Fatal(err)
			}
			running := serve(b, s)
			request := &secretsidecarv1.ResolveRequest{Path: "secret/data/app/key"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := running.Resolve(b.Context(), request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
