package server

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// callerKey tells callers apart. The kernel names no pid for a process of another pid namespace, as
// that of another container is: all such processes of one user are one caller.
type callerKey struct {
	uid uint32
	pid int32
}

// callerUse is what one caller is taking.
type callerUse struct {
	inFlight int
	secrets  *rate.Limiter
	last     time.Time
}

func (u *callerUse) isIdle(now time.Time) bool {
	return u.inFlight == 0 && now.Sub(u.last) > idleCaller
}

// callerMeter keeps one caller from taking what all are to share.
type callerMeter struct {
	mu                            sync.Mutex
	recent[callerKey, *callerUse] // guarded by mu
}

func newCallerMeter() *callerMeter { return &callerMeter{} }

// enter counts a request for so many secrets in, or returns RATE_LIMITED. When it returns nil,
// leave must follow.
func (m *callerMeter) enter(caller unixsocket.Peer, limits CallerLimits, secrets int) *problem {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	use := m.use(callerKey{caller.UID, caller.PID}, now)
	if limits.InFlight > 0 && use.inFlight >= limits.InFlight {
		return errRateLimited(fmt.Sprintf("uid %d (pid %d) has %d requests in progress, caller_limits.in_flight allows no more: wait for an answer",
			caller.UID, caller.PID, use.inFlight), 0)
	}
	if wait := use.spend(limits.PerSecond, secrets, now); wait > 0 {
		return errRateLimited(fmt.Sprintf("uid %d (pid %d) asks for more than %d secrets a second, caller_limits.per_second: ask more slowly",
			caller.UID, caller.PID, limits.PerSecond), wait)
	}
	use.inFlight++
	return nil
}

// spend takes secrets out of what the caller may ask for in a second, or returns when there will be
// enough. A whole batch always fits after a pause. A limit of zero is none.
func (u *callerUse) spend(perSecond, secrets int, now time.Time) (wait time.Duration) {
	limit, burst := rate.Limit(perSecond), max(perSecond, maxBatch)
	switch {
	case perSecond <= 0:
		return 0
	case u.secrets == nil:
		u.secrets = rate.NewLimiter(limit, burst)
	case u.secrets.Limit() != limit: // a reload has changed it
		u.secrets.SetLimitAt(now, limit)
		u.secrets.SetBurstAt(now, burst)
	}
	return take(u.secrets, min(secrets, burst), now)
}

// take takes n out of the limiter, whose burst is no smaller, or returns when they will be there.
func take(limiter *rate.Limiter, n int, now time.Time) (wait time.Duration) {
	reserved := limiter.ReserveN(now, n)
	if wait = reserved.DelayFrom(now); wait > 0 {
		reserved.CancelAt(now)
	}
	return wait
}

func (m *callerMeter) leave(caller unixsocket.Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.use(callerKey{caller.UID, caller.PID}, time.Now()).inFlight--
}

// use must be called with mu held.
func (m *callerMeter) use(key callerKey, now time.Time) *callerUse {
	use := m.known[key]
	if use == nil {
		use = &callerUse{}
		m.add(key, use, now)
	}
	use.last = now
	return use
}

// secretsAskedFor is what a request counts as.
func secretsAskedFor(request any) int {
	if several, ok := request.(interface {
		GetRequests() []*secretsidecarv1.ResolveRequest
	}); ok {
		return min(max(len(several.GetRequests()), 1), maxBatch)
	}
	return 1
}
