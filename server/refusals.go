package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// refusalReasons are the reasons that have to do with who asks, or how often.
var refusalReasons = []string{"CALLER_NOT_ALLOWED", "PROJECT_REQUIRED", "PROJECT_NOT_ALLOWED", "RATE_LIMITED"}

// refusal is what is counted apart of refused callers.
type refusal struct{ method, reason string }

// refusals counts refused callers. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	count map[refusal]uint64 // guarded by mu; every method and reason from the start
}

func newRefusals() *refusals {
	count := map[refusal]uint64{}
	for _, method := range []string{methodResolve, methodBatchResolve, methodTestConnection, methodInvalidate, methodListConnections} {
		for _, reason := range refusalReasons {
			count[refusal{method, reason}] = 0
		}
	}
	return &refusals{count: count}
}

// note counts err, which so many secrets or calls were answered with, and returns true, if it refuses a caller; it may be
// nil.
func (r *refusals) note(method string, err error, times int) bool {
	if err == nil {
		return false
	}
	reason := problemOf(err).reason
	if !slices.Contains(refusalReasons, reason) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[refusal{method, reason}] += uint64(times) // #nosec G115 -- a length
	return true
}

func (r *refusals) all() map[refusal]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.count)
}

// noteRefusal counts err if it refuses a caller, and logs who that is.
func (s *Server) noteRefusal(ctx context.Context, method string, err error, times int) {
	if s.refusals.note(method, err, times) {
		s.tellOfRefusal(ctx, method, err)
	}
}

// tellOfRefusal logs who was refused what. Connection and project stay out of it: they are the caller's own words. The
// two events are apart so that the limit on repeats lets a flood of one not hide the other.
func (s *Server) tellOfRefusal(ctx context.Context, method string, err error) {
	caller, callerErr := callerOf(ctx)
	if callerErr != nil {
		return
	}
	reason := problemOf(err).reason
	who := []any{"method", method, "reason", reason, "uid", caller.UID, "gid", caller.GID, "pid", caller.PID}
	if reason == reasonRateLimited {
		s.log.WarnContext(ctx, "a caller asks for more than its limit", who...)
		return
	}
	s.log.WarnContext(ctx, "a caller is refused", who...)
}

// reloadCounts counts the reloads of the configuration.
type reloadCounts struct {
	applied, refused atomic.Uint64
	lastRefused      atomic.Bool // a restart would fail
}

// CountReload counts a reload of the configuration for the metrics: err is why it was refused, nil when it was applied.
// Apply cannot do so itself, for it never sees a configuration that cannot be read.
func (s *Server) CountReload(err error) {
	s.reloads.lastRefused.Store(err != nil)
	if err != nil {
		s.reloads.refused.Add(1)
		return
	}
	s.reloads.applied.Add(1)
}
