package server

import (
	"context"
	"maps"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
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

// healthService answers grpc.health.v1.Health. gRPC's own tells everybody the names of all
// connections, and keeps each name that was ever watched. It is safe for concurrent use.
type healthService struct {
	healthpb.UnimplementedHealthServer

	// mayKnow reports whether the caller may learn that the connection exists.
	mayKnow func(caller unixsocket.Peer, connection string) bool

	mu       sync.Mutex
	statuses map[string]healthpb.HealthCheckResponse_ServingStatus // guarded by mu
	changed  chan struct{}                                         // guarded by mu; closed and replaced at each change
}

// newHealthService makes one that serves nothing yet but the process itself.
func newHealthService(mayKnow func(caller unixsocket.Peer, connection string) bool) *healthService {
	return &healthService{
		mayKnow: mayKnow,
		statuses: map[string]healthpb.HealthCheckResponse_ServingStatus{
			healthOverall: healthpb.HealthCheckResponse_NOT_SERVING, healthAPI: healthpb.HealthCheckResponse_NOT_SERVING,
			healthLiveness: healthpb.HealthCheckResponse_SERVING,
		},
		changed: make(chan struct{}),
	}
}

// set makes is the status of the name.
func (h *healthService) set(name string, is healthpb.HealthCheckResponse_ServingStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if before, ok := h.statuses[name]; ok && before == is {
		return
	}
	h.statuses[name] = is
	h.wakeLocked()
}

// forget makes the name unknown.
func (h *healthService) forget(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.statuses, name)
	h.wakeLocked()
}

// wake makes all who watch look again, at the rules too.
func (h *healthService) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeLocked()
}

// wakeLocked must be called with mu held.
func (h *healthService) wakeLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// look returns the status of a name, whether it is known, and what is closed when it may have
// changed.
func (h *healthService) look(
	name string,
) (is healthpb.HealthCheckResponse_ServingStatus, known bool, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	is, known = h.statuses[name]
	return is, known, h.changed
}

// mayAsk returns why the caller may not ask for a name. The answer is the same for a connection that
// is there and for one that is not.
func (h *healthService) mayAsk(ctx context.Context, name string) error {
	caller, err := callerOf(ctx)
	if err != nil {
		return err
	}
	connection, ok := strings.CutPrefix(name, healthConnection)
	if !ok || h.mayKnow(caller, connection) {
		return nil
	}
	return errCallerNotAllowed(caller, access{method: "Health", asked: connection})
}

// Check implements the health service.
func (h *healthService) Check(
	ctx context.Context, request *healthpb.HealthCheckRequest,
) (*healthpb.HealthCheckResponse, error) {
	if err := h.mayAsk(ctx, request.GetService()); err != nil {
		return nil, err
	}
	is, known, _ := h.look(request.GetService())
	if !known {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: is}, nil
}

// List implements the health service: the names that the caller may ask for.
func (h *healthService) List(
	ctx context.Context, _ *healthpb.HealthListRequest,
) (*healthpb.HealthListResponse, error) {
	h.mu.Lock()
	all := maps.Clone(h.statuses)
	h.mu.Unlock()
	answer := &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{}}
	for name, is := range all {
		if h.mayAsk(ctx, name) == nil {
			answer.Statuses[name] = &healthpb.HealthCheckResponse{Status: is}
		}
	}
	return answer, nil
}

// Watch implements the health service. It ends when a reload takes the name from the caller.
func (h *healthService) Watch(
	request *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse],
) error {
	ctx, name := stream.Context(), request.GetService()
	for told := healthpb.HealthCheckResponse_UNKNOWN; ; {
		if err := h.mayAsk(ctx, name); err != nil {
			return err
		}
		is, known, changed := h.look(name)
		if !known {
			is = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		}
		if is != told {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: is}); err != nil {
				return err
			}
			told = is
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// watchAudit makes the audit log's state known by health.
func (s *Server) watchAudit() {
	if s.auditLog == nil {
		return
	}
	s.auditLog.OnChange(s.reportAudit)
	s.reportAudit(s.auditLog.Err())
}

// reportAudit is told why the audit log cannot be written, and nil when it can again.
func (s *Server) reportAudit(err error) {
	s.health.set(healthAudit, servingWhen(err == nil))
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
		now := c.client.Status()
		c.noteLogin(now)
		s.health.set(healthConnection+name, servingWhen(now.TokenValid))
		ready = ready && (!c.Required || c.hasLoggedIn.Load())
	}
	// Latched: a later outage does not flip it, the cache still serves.
	s.started = s.started || ready && running.connections != nil
	s.health.set(healthOverall, servingWhen(s.started))
	s.health.set(healthAPI, servingWhen(s.started))
}

func (s *session) noteLogin(now conn.Status) {
	if now.TokenValid {
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
			s.health.forget(healthConnection + name)
		}
	}
}

// reportDraining says NOT_SERVING for good, but for the process itself, which still answers.
func (s *Server) reportDraining() {
	s.healthMu.Lock()
	defer s.healthMu.Unlock()
	s.draining = true
	s.health.set(healthOverall, healthpb.HealthCheckResponse_NOT_SERVING)
	s.health.set(healthAPI, healthpb.HealthCheckResponse_NOT_SERVING)
	for name := range s.current.Load().connections {
		s.health.set(healthConnection+name, healthpb.HealthCheckResponse_NOT_SERVING)
	}
}

func servingWhen(ok bool) healthpb.HealthCheckResponse_ServingStatus {
	if ok {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}
