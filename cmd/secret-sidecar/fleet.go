package main

import (
	"log/slog"

	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
)

// openFleet returns nil where no fleet is configured. It waits for no Redis.
func openFleet(c fleet.Config, log *slog.Logger) (*fleet.Fleet, error) {
	if c == (fleet.Config{}) {
		return nil, nil
	}
	return fleet.Open(c, log)
}

func closeFleet(f *fleet.Fleet, log *slog.Logger) {
	if f == nil {
		return
	}
	if err := f.Close(); err != nil {
		log.Debug("the connections to the fleet's Redis did not close cleanly", "error", err)
	}
}
