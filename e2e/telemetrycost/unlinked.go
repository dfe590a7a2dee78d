//go:build unlinked

package main

import (
	"context"

	"github.com/secret-sidecar/secret-sidecar/server"
)

// telemetryOptions are those of a server that knows no telemetry.
func telemetryOptions(context.Context) (server.Options, error) { return server.Options{}, nil }
