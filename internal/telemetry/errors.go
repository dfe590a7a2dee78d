package telemetry

import (
	"log/slog"
	"time"

	"github.com/go-logr/logr"
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
		slog.Warn("OpenTelemetry reports an error; resolving is not affected", "error", err)
	}
}

// warnings is where the SDK says what it makes of its variables. It quotes their values there, and those of
// OTEL_EXPORTER_OTLP_HEADERS are credentials: so only its messages, which are constants, come to the log.
type warnings struct{}

// warningLevel is the least important level at which the SDK warns; see go.opentelemetry.io/otel/internal/global.
const warningLevel = 1

func newWarningLogger() logr.Logger { return logr.New(warnings{}) }

// Init implements logr.LogSink.
func (warnings) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink.
func (warnings) Enabled(level int) bool { return level <= warningLevel }

// Info implements logr.LogSink.
func (warnings) Info(_ int, message string, _ ...any) { warn(message) }

// Error implements logr.LogSink.
func (warnings) Error(_ error, message string, _ ...any) { warn(message) }

// WithValues implements logr.LogSink.
func (w warnings) WithValues(...any) logr.LogSink { return w }

// WithName implements logr.LogSink.
func (w warnings) WithName(string) logr.LogSink { return w }

func warn(message string) {
	slog.Warn("OpenTelemetry warns of its variables; resolving is not affected", "message", message)
}
