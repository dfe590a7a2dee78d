package server

import (
	"go.opentelemetry.io/otel/attribute"

	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
)

// countFleet shows what goes on between the sidecars; zeros where there is no fleet.
func (m *metrics) countFleet() {
	stats := func() fleet.Stats {
		if m.server.member == nil {
			return fleet.Stats{}
		}
		return m.server.member.fleet.Stats()
	}
	m.gauge("secret_sidecar.fleet.connected", "{sidecar}", "1 while what other sidecars invalidate is heard, else 0",
		func(observe observeGaugeFunc) { observe(oneIf(stats().Connected)) })
	m.counter("secret_sidecar.fleet.heard", "{entry}", "Entries of the fleet's stream, by what became of them",
		func(observe observeFunc) {
			now := stats()
			observe(now.Applied, attribute.String(attrOutcome, "applied"))
			observe(now.Own, attribute.String(attrOutcome, "own"))
			observe(now.Malformed, attribute.String(attrOutcome, "malformed"))
		})
	m.counter("secret_sidecar.fleet.told", "{invalidation}", "Invalidations that the other sidecars were to be told",
		func(observe observeFunc) {
			now := stats()
			observe(now.Published, attribute.String(attrOutcome, "told"))
			observe(now.Failed, attribute.String(attrOutcome, "failed"))
			observe(now.Limited, attribute.String(attrOutcome, "limited"))
		})
	m.counter("secret_sidecar.fleet.resyncs", "{resync}", "Times that everything was dropped because invalidations may have been missed",
		func(observe observeFunc) { observe(stats().Resyncs) })
}
