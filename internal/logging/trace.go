package logging

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// traced adds trace_id and span_id to the lines that are logged with the context of a span.
type traced struct{ slog.Handler }

// WithTraces returns a handler that adds the attributes trace_id and span_id to records whose
// context carries a span, in the hexadecimal form of W3C Trace Context. Others stay as they are. It
// is as safe for concurrent use as next.
func WithTraces(next slog.Handler) slog.Handler { return traced{next} }

// Handle implements slog.Handler.
func (h traced) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record = record.Clone()
		record.AddAttrs(
			slog.String("trace_id", span.TraceID().String()),
			slog.String("span_id", span.SpanID().String()),
		)
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }
