package server

import (
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// The names of the health service; see "Health names" of docs/contract.md.
const (
	healthOverall    = ""
	healthLiveness   = "liveness"
	healthConnection = "connection/"
	healthAudit      = "audit"
)

var healthAPI = secretsidecarv1.SecretService_ServiceDesc.ServiceName

func (s *Server) initHealth() {
	s.health.SetServingStatus(healthOverall, healthpb.HealthCheckResponse_NOT_SERVING)
	s.health.SetServingStatus(healthAPI, healthpb.HealthCheckResponse_NOT_SERVING)
	s.health.SetServingStatus(healthLiveness, healthpb.HealthCheckResponse_SERVING)
	if s.auditLog != nil {
		s.auditLog.OnChange(s.reportAudit)
		s.reportAudit(s.auditLog.Err())
	}
}

// reportAudit is told why the audit log cannot be written, and nil when it can again.
func (s *Server) reportAudit(err error) {
	s.health.SetServingStatus(healthAudit, servingWhen(err == nil))
}

// sessionChanged is told by each session that its status has changed.
func (s *Server) sessionChanged() {
	s.takeOver()
	s.reportHealth()
}

// reportHealth brings the health service up to date.
func (s *Server) reportHealth() {
	s.healthMu.Lock()
	defer s.healthMu.Unlock()
	if s.draining {
		return
	}
	ready := true
	running := s.current.Load()
	for name, c := range running.connections {
		status := c.client.Status()
		c.noteLogin(status)
		s.health.SetServingStatus(healthConnection+name, servingWhen(status.TokenValid))
		ready = ready && (!c.Required || c.hasLoggedIn.Load())
	}
	// Latched: a later outage does not flip it, the cache still serves.
	s.started = s.started || ready && running.connections != nil
	s.health.SetServingStatus(healthOverall, servingWhen(s.started))
	s.health.SetServingStatus(healthAPI, servingWhen(s.started))
}

func (s *session) noteLogin(status conn.Status) {
	if status.TokenValid {
		s.hasLoggedIn.Store(true)
	}
}

// forgetHealth makes the names of connections that left unknown. next is the running snapshot
// already, so no report brings them back.
func (s *Server) forgetHealth(before, next *snapshot) {
	s.healthMu.Lock()
	defer s.healthMu.Unlock()
	for name := range before.connections {
		if _, ok := next.connections[name]; !ok {
			s.health.SetServingStatus(healthConnection+name, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
		}
	}
}

// reportDraining says NOT_SERVING for good, but for the process itself, which still answers.
func (s *Server) reportDraining() {
	s.healthMu.Lock()
	defer s.healthMu.Unlock()
	s.draining = true
	s.health.SetServingStatus(healthOverall, healthpb.HealthCheckResponse_NOT_SERVING)
	s.health.SetServingStatus(healthAPI, healthpb.HealthCheckResponse_NOT_SERVING)
	for name := range s.current.Load().connections {
		s.health.SetServingStatus(healthConnection+name, healthpb.HealthCheckResponse_NOT_SERVING)
	}
}

func servingWhen(ok bool) healthpb.HealthCheckResponse_ServingStatus {
	if ok {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}
