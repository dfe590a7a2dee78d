package server

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// The outcomes in the audit log that are no reasons: of a secret that was answered, or a call that
// succeeded, and of a test that found something wrong.
const (
	auditOK     = "ok"
	auditFailed = "failed"
)

var auditSources = map[secretsidecarv1.Source]string{
	secretsidecarv1.Source_SOURCE_VAULT: "vault",
	secretsidecarv1.Source_SOURCE_CACHE: "cache",
	secretsidecarv1.Source_SOURCE_STALE: "stale",
}

// countedOutcomes are those that a caller may cause as often as it likes at no cost, so that the
// audit log counts them instead of writing a line for each.
var countedOutcomes = []string{reasonCallerNotAllowed, reasonRateLimited, reasonOverloaded}

// audit writes a line for each outcome. It returns a problem when the audit log is required and
// cannot be written.
func (s *Server) audit(
	ctx context.Context, caller unixsocket.Peer, method string, outcomes []outcome,
) *problem {
	if s.auditLog == nil {
		return nil
	}
	who := auditWho(ctx, caller, method)
	lines := make([]audit.Entry, 0, len(outcomes))
	for i := range outcomes {
		line := outcomes[i].auditLine(who)
		if slices.Contains(countedOutcomes, line.Outcome) {
			s.auditLog.Refuse(line, 1)
			continue
		}
		lines = append(lines, line)
	}
	return s.writeAudit(ctx, lines...)
}

// auditCall writes a line for a call that answers no secret. err is why it failed, nil when it did
// not.
func (s *Server) auditCall(
	ctx context.Context, caller unixsocket.Peer, method string, line audit.Entry, err error,
) *problem {
	if s.auditLog == nil {
		return nil
	}
	who := auditWho(ctx, caller, method)
	line.Time, line.Method, line.TraceID = who.Time, who.Method, who.TraceID
	line.PID, line.UID, line.GID = who.PID, who.UID, who.GID
	if err != nil {
		line.Outcome = problemOf(err).reason
	}
	if slices.Contains(countedOutcomes, line.Outcome) {
		s.auditLog.Refuse(line, 1)
		return nil
	}
	return s.writeAudit(ctx, line)
}

// auditRefusal counts a request that was refused as a whole, before anybody looked into it.
func (s *Server) auditRefusal(ctx context.Context, method string, p *problem, times int) {
	caller, err := callerOf(ctx)
	if s.auditLog == nil || err != nil {
		return
	}
	line := auditWho(ctx, caller, method)
	line.Outcome = p.reason
	s.auditLog.Refuse(line, times)
}

func (s *Server) writeAudit(ctx context.Context, lines ...audit.Entry) *problem {
	err := s.auditLog.Write(ctx, lines...)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return problemOf(err)
	}
	return errAuditFailed(err)
}

// auditWho is who asks, when and how.
func auditWho(ctx context.Context, caller unixsocket.Peer, method string) audit.Entry {
	return audit.Entry{
		Time: time.Now(), Method: method, TraceID: traceID(ctx),
		PID: caller.PID, UID: caller.UID, GID: caller.GID,
	}
}

// auditLine is what the audit log says of the secret, and of who asked for it.
func (o *outcome) auditLine(who audit.Entry) audit.Entry {
	asked, line := o.request, who
	line.Connection, line.Project, line.Path = asked.GetConnection(), asked.GetProjectId(), asked.GetPath()
	line.Key, line.Version, line.Outcome = asked.GetKey(), asked.GetVersion(), auditOK
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
