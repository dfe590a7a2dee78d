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

// auditOK is the outcome of a secret that was answered, in the audit log.
const auditOK = "ok"

var auditSources = map[secretsidecarv1.Source]string{
	secretsidecarv1.Source_SOURCE_VAULT: "vault",
	secretsidecarv1.Source_SOURCE_CACHE: "cache",
	secretsidecarv1.Source_SOURCE_STALE: "stale",
}

// audit writes a line for each outcome. It returns a problem when the audit log is required and
// cannot be written.
func (s *Server) audit(
	ctx context.Context, caller unixsocket.Peer, method string, outcomes []outcome,
) *problem {
	if s.auditLog == nil {
		return nil
	}
	now, id := time.Now(), traceID(ctx)
	lines := make([]audit.Entry, len(outcomes))
	for i := range outcomes {
		lines[i] = outcomes[i].auditLine()
		lines[i].Time, lines[i].Method, lines[i].TraceID = now, method, id
		lines[i].PID, lines[i].UID, lines[i].GID = caller.PID, caller.UID, caller.GID
	}
	err := s.auditLog.Write(lines...)
	s.logAuditFailure(ctx, err)
	if err != nil && s.auditRequired {
		return errAuditFailed(err)
	}
	return nil
}

// auditLine is what the audit log says of the secret; audit adds who asked for it.
func (o *outcome) auditLine() audit.Entry {
	asked := o.request
	line := audit.Entry{
		Connection: asked.GetConnection(), Project: asked.GetProjectId(), Path: asked.GetPath(),
		Key: asked.GetKey(), Version: asked.GetVersion(), Outcome: auditOK,
	}
	if o.connection != nil {
		line.Connection = o.connection.Name
	}
	switch {
	case o.problem != nil:
		line.Outcome = o.problem.reason
	case o.secret != nil:
		line.Version, line.Source = o.secret.GetVersion(), auditSources[o.secret.GetSource()]
	}
	return line
}

// logAuditFailure logs the beginning and the end of a failure, not each of its requests.
func (s *Server) logAuditFailure(ctx context.Context, err error) {
	if failing := err != nil; s.auditFailing.Swap(failing) == failing {
		return
	}
	if err == nil {
		s.log.InfoContext(ctx, "the audit log can be written again")
		return
	}
	s.log.ErrorContext(ctx,
		"the audit log cannot be written: make room or fix its permissions, then send SIGHUP",
		"requests_are_refused", s.auditRequired, "error", err)
}

// traceID returns the id of the caller's trace: that of telemetry's span, or else the one that the
// caller has sent.
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
