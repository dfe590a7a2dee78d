package telemetry

import (
	"log/slog"
	"time"

	"golang.org/x/time/rate"
)

// errorLogInterval is how often a failing exporter may say so: it fails with every batch while the collector
// is away.
const errorLogInterval = time.Minute

// errorLogger writes the SDK's errors to the default slog logger, at most one in errorLogInterval. It is safe
// for concurrent use.
type errorLogger struct {
	limit *rate.Limiter
}

func newErrorLogger() *errorLogger {
	return &errorLogger{limit: rate.NewLimiter(rate.Every(errorLogInterval), 1)}
}

// Handle implements otel.ErrorHandler.
func (l *errorLogger) Handle(err error) {
	if l.limit.Allow() {
		slog.Warn("OpenTelemetry export failed; resolving is not affected", "error", err)
	}
}
