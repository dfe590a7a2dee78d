package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// The attributes of metrics and spans that no semantic convention has.
const (
	attrConnection = "connection" // the connection's name; empty where a request found none
	attrOutcome    = "outcome"
	attrSource     = "source"
	attrState      = "state"
	attrErrorType  = "error.type" // of the conventions: the reason, as in docs/errors.md
	attrMethod     = "method"     // of the API, for example "Resolve"
)

// metrics are the instruments of a Server. What is counted is counted without them, and read when
// somebody exports.
type metrics struct {
	server *Server
	meter  metric.Meter
	failed error // of making the instruments: a mistake in one of the names below
}

// newMetrics makes the instruments, and those that record at once.
func newMetrics(meter metric.Meter, s *Server) (*instruments, error) {
	m := &metrics{server: s, meter: meter}
	m.countResolves()
	m.countByConnection()
	m.countProcess()
	m.measureConnections()
	m.measureCache()
	m.countFleet()
	m.measureWatches()
	recording := m.newInstruments()
	if m.failed != nil {
		return nil, fmt.Errorf("make the metrics: %w", m.failed)
	}
	return recording, nil
}

func (m *metrics) check(err error) { m.failed = errors.Join(m.failed, err) }

func named(connection string) attribute.KeyValue { return attribute.String(attrConnection, connection) }

// countResolves shows every outcome from the start; of the errors, those that are no alert from
// their first time on.
func (m *metrics) countResolves() {
	m.counter("secret_sidecar.resolves", "{resolve}", "Values asked for, by what became of them", func(observe observeFunc) {
		for _, t := range m.server.shownCounters() {
			found := t.connection != ""
			for e := range kind(numKinds) {
				count := t.resolves(e)
				switch {
				case e < kindError && found:
					observe(count, named(t.connection), attribute.String(attrOutcome, e.outcome()))
				case e >= kindError && (count > 0 || slices.Contains(alerting[found], e.reason())):
					observe(count, named(t.connection), attribute.String(attrOutcome, e.outcome()), attribute.String(attrErrorType, e.reason()))
				}
			}
		}
	})
}

func (m *metrics) countByConnection() {
	for _, one := range []struct {
		name, unit, description string
		count                   func(*counters) uint64
	}{
		{"secret_sidecar.cache.refreshes", "{read}", "Reads begun ahead of a secret's expiry, so that no caller waits",
			func(t *counters) uint64 { return t.refreshes.Load() }},
		{"secret_sidecar.cache.coalesced", "{caller}", "Callers who waited for a read that another caller had caused",
			func(t *counters) uint64 { return t.coalesced.Load() }},
		{"secret_sidecar.login.rejections", "{login}", "Logins that Vault rejected, or that the login budget refused",
			func(t *counters) uint64 { return t.loginRejections.Load() }},
		{"secret_sidecar.invalidations", "{call}", "Invalidate calls that reached the connection",
			func(t *counters) uint64 { return t.invalidations.Load() }},
		{"secret_sidecar.invalidated", "{secret}", "Cached secrets that Invalidate calls dropped",
			func(t *counters) uint64 { return t.invalidated.Load() }},
	} {
		m.counter(one.name, one.unit, one.description, func(observe observeFunc) {
			for _, t := range m.server.shownCounters() {
				if t.connection != "" {
					observe(one.count(t), named(t.connection))
				}
			}
		})
	}
}

func (m *metrics) countProcess() {
	s := m.server
	m.counter("secret_sidecar.callers.refused", "{secret}", "Secrets and calls refused because of who asked, or how often",
		func(observe observeFunc) {
			for refused, count := range s.refusals.all() {
				observe(count, attribute.String(attrMethod, refused.method), attribute.String(attrErrorType, refused.reason))
			}
		})
	m.gauge("secret_sidecar.answers.unread", "By", "Answers that clients have not read yet",
		func(observe observeGaugeFunc) { observe(s.answers.held.Load()) })
	m.counter("secret_sidecar.answers.refused", "{answer}", "Answers that were not sent because too much was unread",
		func(observe observeFunc) { observe(s.answers.refused.Load()) })
	m.counter("secret_sidecar.answers.closed", "{connection}", "Connections closed because the client did not read",
		func(observe observeFunc) { observe(s.answers.closed.Load()) })
	m.counter("secret_sidecar.config.reloads", "{reload}", "Reloads of the configuration", func(observe observeFunc) {
		observe(s.reloads.applied.Load(), attribute.String(attrOutcome, "applied"))
		observe(s.reloads.refused.Load(), attribute.String(attrOutcome, "refused"))
	})
	m.gauge("secret_sidecar.config.refused", "{configuration}", "1 while the newest configuration is refused and an older one runs, else 0",
		func(observe observeGaugeFunc) { observe(oneIf(s.reloads.lastRefused.Load())) })
	if s.auditLog != nil {
		m.gauge("secret_sidecar.audit.failing", "{log}", "1 while the audit log cannot be written, else 0",
			func(observe observeGaugeFunc) { observe(oneIf(s.auditLog.Err() != nil)) })
		m.counter("secret_sidecar.audit.lost", "{line}", "Lines that could not be written to the audit log",
			func(observe observeFunc) { observe(s.auditLog.Lost()) })
	}
	m.counter("secret_sidecar.cache.evictions", "{entry}", "Cached entries that made room for others",
		func(observe observeFunc) { observe(s.cache.Stats().Evictions) })
	m.counter("secret_sidecar.cache.rejections", "{entry}", "Entries that were not cached: too large, or what is there is used more often",
		func(observe observeFunc) { observe(s.cache.Stats().Rejections) })
}

// measureConnections shows what is known of each connection now.
func (m *metrics) measureConnections() {
	for _, one := range []struct {
		name, description string
		value             func(status conn.Status, now time.Time) (float64, bool)
	}{
		{"secret_sidecar.token.ttl", "Time until Vault's token expires; absent without a token, or with one that never does",
			func(status conn.Status, now time.Time) (float64, bool) {
				return status.TokenExpiresAt.Sub(now).Seconds(), !status.TokenExpiresAt.IsZero()
			}},
		{"secret_sidecar.secret_id.ttl", "Time until the secret_id expires; absent where it never does, or Vault does not tell",
			func(status conn.Status, now time.Time) (float64, bool) {
				return status.SecretIDExpiresAt.Sub(now).Seconds(), !status.SecretIDExpiresAt.IsZero()
			}},
		{"secret_sidecar.vault.last_answer.age", "Time since Vault last did what it was asked; absent before the first time",
			func(status conn.Status, now time.Time) (float64, bool) {
				return now.Sub(status.LastAnswerAt).Seconds(), !status.LastAnswerAt.IsZero()
			}},
		{"secret_sidecar.connection.state.age", "Time since the connection's state began",
			func(status conn.Status, now time.Time) (float64, bool) { return now.Sub(status.Since).Seconds(), true }},
	} {
		_, err := m.meter.Float64ObservableGauge(one.name, metric.WithUnit("s"), metric.WithDescription(one.description),
			metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				now := time.Now()
				for _, c := range m.server.observed.Load().sorted() {
					if value, known := one.value(c.status(), now); known {
						o.Observe(value, metric.WithAttributes(named(c.Name)))
					}
				}
				return nil
			}))
		m.check(err)
	}
	m.gauge("secret_sidecar.connection.state", "{connection}", "1 for the state that the connection is in, 0 for the others",
		func(observe observeGaugeFunc) {
			for _, c := range m.server.observed.Load().sorted() {
				state := c.status().State
				for one := conn.StateConnecting; one <= conn.StateRejected; one++ {
					observe(oneIf(state == one), named(c.Name), attribute.String(attrState, one.String()))
				}
			}
		})
	m.gauge("secret_sidecar.connection.error", "{connection}", "1 with the reason why the connection is not well; absent when it is",
		func(observe observeGaugeFunc) {
			for _, c := range m.server.observed.Load().sorted() {
				if err := c.status().LastError; err != nil {
					observe(1, named(c.Name), attribute.String(attrErrorType, problemOf(err).reason))
				}
			}
		})
}

func oneIf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

func (m *metrics) measureCache() {
	s := m.server
	m.gauge("secret_sidecar.cache.entries", "{secret}", "Cached secrets, kept for an outage included",
		func(observe observeGaugeFunc) {
			for _, c := range s.observed.Load().sorted() {
				observe(int64(s.cache.Len(c.space)), named(c.Name))
			}
		})
	m.gauge("secret_sidecar.cache.size", "By", "Memory of all cached entries, by the cache's own count",
		func(observe observeGaugeFunc) { observe(s.cache.Stats().Bytes) })
	m.gauge("secret_sidecar.cache.limit", "By", "Memory that cached entries may take: cache.max_bytes",
		func(observe observeGaugeFunc) { observe(s.cache.Stats().MaxBytes) })
}

type (
	observeFunc      = func(count uint64, attributes ...attribute.KeyValue)
	observeGaugeFunc = func(value int64, attributes ...attribute.KeyValue)
)

// counter makes a counter that is read when somebody exports.
func (m *metrics) counter(name, unit, description string, read func(observe observeFunc)) {
	_, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			read(func(count uint64, attributes ...attribute.KeyValue) {
				o.Observe(int64(count), metric.WithAttributes(attributes...)) // #nosec G115 -- it takes ages
			})
			return nil
		}))
	m.check(err)
}

// gauge makes a gauge that is read when somebody exports.
func (m *metrics) gauge(name, unit, description string, read func(observe observeGaugeFunc)) {
	_, err := m.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			read(func(value int64, attributes ...attribute.KeyValue) {
				o.Observe(value, metric.WithAttributes(attributes...))
			})
			return nil
		}))
	m.check(err)
}

// shownCounters returns those of the requests that found no connection, then those of the
// connections, by name.
func (s *Server) shownCounters() []*counters {
	all := []*counters{s.unmatched}
	for _, c := range s.observed.Load().sorted() {
		all = append(all, c.counters)
	}
	return all
}
