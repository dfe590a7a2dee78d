package vault

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// callKey is the attribute for a span's CallKind. The others are those of the semantic conventions
// for HTTP clients: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
const callKey = attribute.Key("vault.call")

// tracer starts a span for each request. A nil tracer starts none. It is immutable and safe for
// concurrent use.
type tracer struct {
	trace.Tracer
	paths bool                 // spans hold the path
	base  []attribute.KeyValue // of every span
}

// newTracer returns nil when cfg wants no spans.
func newTracer(cfg Config) *tracer {
	if cfg.Tracer == nil {
		return nil
	}
	return &tracer{Tracer: cfg.Tracer, paths: cfg.TracePaths, base: cfg.SpanAttributes}
}

// begin starts the span of a request; nil without a tracer. Call its end with the outcome.
func (t *tracer) begin(ctx context.Context, c *Client, r request) (context.Context, *callSpan) {
	if t == nil {
		return ctx, nil
	}
	attributes := append(slices.Clip(t.base), callKey.String(string(c.kindOf(r))),
		semconv.HTTPRequestMethodKey.String(r.method), semconv.URLTemplate(r.route()))
	if t.paths {
		attributes = append(attributes, semconv.URLFull(c.url(r)))
	}
	ctx, span := t.Start(ctx, r.method+" "+r.route(),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return ctx, &callSpan{span}
}

// propagate sends the trace along, so that Vault's audit log can show it if configured to: see
// https://developer.hashicorp.com/vault/api-docs/system/config-auditing. Baggage stays here,
// because it is the worker's own.
func (t *tracer) propagate(ctx context.Context, header http.Header) {
	if t != nil {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	}
}

// callSpan is the span of one request; nil when there is none.
type callSpan struct{ trace.Span }

// end ends the span, and links the callers who waited for the request.
func (s *callSpan) end(ctx context.Context, call Call) {
	if s == nil {
		return
	}
	if call.Status != 0 {
		s.SetAttributes(semconv.HTTPResponseStatusCode(call.Status))
	}
	if call.ErrorType != "" {
		s.SetAttributes(semconv.ErrorTypeKey.String(call.ErrorType))
		s.SetStatus(codes.Error, "") // Vault's own words stay out of traces
	}
	for _, link := range linksOf(ctx) {
		s.AddLink(link)
	}
	s.End()
}

// route is the path with placeholders for what must not be shown and what has too many values.
func (r request) route() string {
	if r.template != "" {
		return "/v1/" + r.template
	}
	return "/v1/" + r.path
}

// maxLinks is how many links of a span OpenTelemetry's SDK keeps by default.
const maxLinks = 128

type linksKey struct{}

// links collects the callers who wait for a read that another caller caused.
type links struct {
	mu  sync.Mutex
	all []trace.Link // guarded by mu
}

// WithCallers returns a context for a read that other callers may join: see JoinCaller. Without a
// recorded span it returns ctx.
func WithCallers(ctx context.Context) context.Context {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx
	}
	return context.WithValue(ctx, linksKey{}, &links{})
}

// JoinCaller links the span of a caller who waits for a read with the spans of the calls that the
// read makes from now on. The read's context must come from WithCallers; else nothing happens. It
// links the first 128 callers.
func JoinCaller(caller, read context.Context) {
	waiting, ok := read.Value(linksKey{}).(*links)
	span := trace.SpanFromContext(caller)
	if !ok || !span.SpanContext().IsValid() {
		return
	}
	span.AddLink(trace.Link{SpanContext: trace.SpanContextFromContext(read)})
	waiting.mu.Lock()
	defer waiting.mu.Unlock()
	if len(waiting.all) < maxLinks {
		waiting.all = append(waiting.all, trace.Link{SpanContext: span.SpanContext()})
	}
}

func linksOf(ctx context.Context) []trace.Link {
	waiting, ok := ctx.Value(linksKey{}).(*links)
	if !ok {
		return nil
	}
	waiting.mu.Lock()
	defer waiting.mu.Unlock()
	return waiting.all[:len(waiting.all):len(waiting.all)]
}
