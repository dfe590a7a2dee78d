//go:build !unlinked

package main

import (
	"context"

	"github.com/secret-sidecar/secret-sidecar/internal/telemetry"
	"github.com/secret-sidecar/secret-sidecar/server"
)

// telemetryOptions are what the product gives its server when no variable asks for an export.
func telemetryOptions(ctx context.Context) (server.Options, error) {
	exports, err := telemetry.Setup(ctx, func(string) (string, bool) { return "", false }, "test")
	if err != nil {
		return server.Options{}, err
	}
	return server.Options{ServerOptions: exports.ServerOptions(), Meter: exports.Meter(),
		Tracer: exports.Tracer()}, nil
}
