package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// ListConnections implements the API: the connections that the caller may use, by name.
func (s *Server) ListConnections(
	ctx context.Context, _ *secretsidecarv1.ListConnectionsRequest,
) (*secretsidecarv1.ListConnectionsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	running := s.current.Load()
	answer := &secretsidecarv1.ListConnectionsResponse{}
	denied := authorize(running.callers, caller, access{method: methodListConnections, connection: anyConnection})
	for _, c := range running.visible(caller, methodListConnections) {
		denied = nil
		status := s.statusOf(c)
		status.ProjectIds = running.reachOf(caller, methodListConnections, c).projectIDs()
		answer.Connections = append(answer.Connections, status)
	}
	if denied != nil {
		s.auditRefusal(ctx, methodListConnections, problemOf(denied), 1)
		return nil, denied
	}
	answer.Process = s.describeProcess()
	return answer, nil
}

// describeProcess adds to what never changes whether the audit log can be written.
func (s *Server) describeProcess() *secretsidecarv1.ProcessStatus {
	if s.auditLog == nil {
		return s.process
	}
	status := &secretsidecarv1.ProcessStatus{
		Version: s.process.GetVersion(), StartedAt: s.process.GetStartedAt(),
		Protections: slices.Clone(s.process.GetProtections()),
	}
	audited := &secretsidecarv1.Protection{Name: protectionAudit, InForce: true}
	if err := s.auditLog.Err(); err != nil {
		audited.InForce, audited.Reason = false, err.Error()+auditRemedy(s.auditLog.Required())
	}
	status.Protections = append(status.Protections, audited)
	return status
}

// protectionAudit is the audit log among the protections of the process.
const protectionAudit = "audit_log"

func auditRemedy(required bool) string {
	if required {
		return ": make room, or fix its permissions; every request is refused until then"
	}
	return ": make room, or fix its permissions; lines are missing until then"
}

func processStatus(opts Options) *secretsidecarv1.ProcessStatus {
	status := &secretsidecarv1.ProcessStatus{Version: opts.Version, StartedAt: timestamppb.Now()}
	for _, one := range opts.Protections {
		protection := &secretsidecarv1.Protection{Name: one.Name, InForce: one.Err == nil}
		if one.Err != nil {
			protection.Reason = one.Err.Error()
		}
		status.Protections = append(status.Protections, protection)
	}
	return status
}

func (s *Server) statusOf(c *connection) *secretsidecarv1.ConnectionStatus {
	status := c.status()
	result := &secretsidecarv1.ConnectionStatus{
		Name:          c.Name,
		Scope:         secretsidecarv1.Scope(c.Scope), // #nosec G115 -- both are numbered from 1 in the same order
		Aliases:       c.Aliases,
		Address:       c.config.Address,
		Namespace:     c.config.Namespace,
		State:         stateOf(status.State),
		CachedSecrets: uint32(s.cache.Len(c.space)), // #nosec G115 -- bounded by memory
		StateSince:    known(status.Since), LastAnswerAt: known(status.LastAnswerAt), SecretIdExpiresAt: known(status.SecretIDExpiresAt),
		Resolves: c.counters.resolveCounts(),
	}
	if status.TokenValid {
		result.TokenExpiresAt = known(status.TokenExpiresAt)
	}
	if status.LastError != nil {
		result.LastError = problemOf(status.LastError).resolveError()
	}
	return result
}

// known returns nil for the zero time.
func known(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func stateOf(state conn.State) secretsidecarv1.ConnectionState {
	switch state {
	case conn.StateConnecting:
		return secretsidecarv1.ConnectionState_CONNECTION_STATE_CONNECTING
	case conn.StateReady:
		return secretsidecarv1.ConnectionState_CONNECTION_STATE_READY
	case conn.StateDegraded:
		return secretsidecarv1.ConnectionState_CONNECTION_STATE_DEGRADED
	case conn.StateRejected:
		return secretsidecarv1.ConnectionState_CONNECTION_STATE_REJECTED
	default:
		return secretsidecarv1.ConnectionState_CONNECTION_STATE_UNSPECIFIED
	}
}
