package server

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// outcomeOK is the outcome of a secret that was answered.
const outcomeOK = "ok"

// auditing writes down what became of the secrets of one request.
type auditing struct {
	server *Server
	caller unixsocket.Peer
	trace  string
	method string
	lines  []audit.Entry
}

// audit returns nil when nothing is written down; its methods may be called all the same.
func (s *Server) audit(ctx context.Context, caller unixsocket.Peer, method string) *auditing {
	if s.auditLog == nil {
		return nil
	}
	return &auditing{server: s, caller: caller, trace: traceID(ctx), method: method}
}

// note adds a line about one secret; secret is nil when err is not.
func (a *auditing) note(asked *secretsidecarv1.ResolveRequest, connection *connection, secret *secretsidecarv1.ResolveResponse, err error) {
	if a == nil {
		return
	}
	line := audit.Entry{
		Time: time.Now(), Method: a.method, PID: a.caller.PID, UID: a.caller.UID, GID: a.caller.GID, TraceID: a.trace,
		Connection: asked.GetConnection(), Project: asked.GetProjectId(), Path: asked.GetPath(), Key: asked.GetKey(),
		Version: asked.GetVersion(), Outcome: outcomeOK,
	}
	if connection != nil {
		line.Connection = connection.Name
	}
	if err != nil {
		line.Outcome = problemOf(err).reason
	} else if secret != nil {
		line.Version, line.Source = secret.GetVersion(), sourceNames[secret.GetSource()]
	}
	a.lines = append(a.lines, line)
}

var sourceNames = map[secretsidecarv1.Source]string{
	secretsidecarv1.Source_SOURCE_VAULT: "vault",
	secretsidecarv1.Source_SOURCE_CACHE: "cache",
	secretsidecarv1.Source_SOURCE_STALE: "stale",
}

// write writes the lines. Its error means that nothing may be answered: the audit log is required and not to be had.
func (a *auditing) write(ctx context.Context) error {
	if a == nil || len(a.lines) == 0 {
		return nil
	}
	err := a.server.auditLog.Write(a.lines...)
	a.server.tellOfAudit(ctx, err)
	if err != nil && a.server.auditRequired {
		return errAuditFailed(err)
	}
	return nil
}

// tellOfAudit logs the beginning and the end of a failure, not each of its requests.
func (s *Server) tellOfAudit(ctx context.Context, err error) {
	if failing := err != nil; s.auditFailing.Swap(failing) == failing {
		return
	}
	if err == nil {
		s.log.InfoContext(ctx, "the audit log can be written again")
		return
	}
	s.log.ErrorContext(ctx, "the audit log cannot be written: make room or fix its permissions, then send SIGHUP",
		"requests_are_refused", s.auditRequired, "error", err)
}

// traceID returns the id of the caller's trace: of the span that telemetry has begun, or as the caller has sent it.
func traceID(ctx context.Context) string {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		return span.TraceID().String()
	}
	// traceparent is version-traceid-parentid-flags; see https://www.w3.org/TR/trace-context/.
	const begin, end = 3, 35
	sent := metadata.ValueFromIncomingContext(ctx, "traceparent")
	if len(sent) != 1 || len(sent[0]) < end {
		return ""
	}
	id, err := trace.TraceIDFromHex(sent[0][begin:end])
	if err != nil {
		return ""
	}
	return id.String()
}
