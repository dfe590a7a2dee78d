package server

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// recordedSpan returns the request's span; nil when there is none that is recorded.
func (s *Server) recordedSpan(ctx context.Context) trace.Span {
	if s.tracer == nil {
		return nil
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return span
	}
	return nil
}

// describe says in the span of a Resolve what became of it: how it ended and, unless err is nil, the reason. c is nil where
// it found no connection. The path is part of it only when asked for.
func (s *Server) describe(ctx context.Context, c *connection, request *secretsidecarv1.ResolveRequest, ended end, err error) {
	span := s.recordedSpan(ctx)
	if span == nil {
		return
	}
	attributes := []attribute.KeyValue{attribute.String(attrOutcome, ended.outcome())}
	if c != nil {
		attributes = append(attributes, named(c.Name))
	}
	if err != nil {
		attributes = append(attributes, attribute.String(attrErrorType, problemOf(err).reason))
	}
	if s.tracePaths {
		attributes = append(attributes, attribute.String("path", tracedPath(request)))
	}
	span.SetAttributes(attributes...)
}

// tracedPath is the path for a span: empty for what is none, which may be long and hold anything.
func tracedPath(request *secretsidecarv1.ResolveRequest) string {
	if _, err := vault.ParseReference(request.GetPath(), request.GetKey()); err != nil {
		return ""
	}
	return request.GetPath()
}

// describeBatch says in the span of a BatchResolve what was asked.
func (s *Server) describeBatch(ctx context.Context, items []*secretsidecarv1.ResolveRequest) {
	span := s.recordedSpan(ctx)
	if span == nil {
		return
	}
	span.SetAttributes(attribute.Int("requests", len(items)))
	if !s.tracePaths {
		return
	}
	paths := make([]string, len(items))
	for i, item := range items {
		paths[i] = tracedPath(item)
	}
	span.SetAttributes(attribute.StringSlice("paths", paths))
}
