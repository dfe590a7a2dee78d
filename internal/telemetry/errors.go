package telemetry

import (
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/sdk/resource"
	"golang.org/x/time/rate"
)

// errorLogInterval is how often the log says that an exporter fails. While the collector is away,
// every batch fails.
const errorLogInterval = time.Minute

// errorLogger writes the SDK's errors to the default slog logger, at most one in errorLogInterval.
// Errors about OTEL_RESOURCE_ATTRIBUTES quote the variable, so one warning that does not quote it
// stands for all of them. It is safe for concurrent use.
type errorLogger struct {
	limit      *rate.Limiter
	attributes sync.Once // every provider reads the variable anew
}

func newErrorLogger() *errorLogger {
	return &errorLogger{limit: rate.NewLimiter(rate.Every(errorLogInterval), 1)}
}

// Handle implements otel.ErrorHandler.
func (l *errorLogger) Handle(err error) {
	if isAboutAttributes(err) {
		l.attributes.Do(func() {
			warn("OTEL_RESOURCE_ATTRIBUTES holds a pair that is not key=value, which is left out, " +
				"or one that is not percent-encoded")
		})
		return
	}
	if l.limit.Allow() {
		slog.Warn("OpenTelemetry reports an error; resolving is not affected", "error", err)
	}
}

// isAboutAttributes reports whether an error of the SDK is about OTEL_RESOURCE_ATTRIBUTES.
func isAboutAttributes(err error) bool {
	_, escape := errors.AsType[url.EscapeError](err)
	return escape || errors.Is(err, resource.ErrPartialResource)
}

// warnings receives what the SDK says about its variables. The SDK quotes their values, and those
// of OTEL_EXPORTER_OTLP_HEADERS are credentials. So only its messages, which are constants, reach
// the log.
type warnings struct{}

// warningLevel is the level at which the SDK warns; see go.opentelemetry.io/otel/internal/global.
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
