package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

const (
	// renewSpread is over how long the sidecars of a fleet spread the logins that one of them asks
	// for.
	renewSpread = 10 * time.Second
	// fleetRetryAfter is when a Redis that is away may be back.
	fleetRetryAfter = 5 * time.Second
)

// member is the Server as a sidecar of a fleet: it drops what others tell.
type member struct {
	*Server
	fleet *fleet.Fleet

	end     context.CancelFunc // ends run; set by start
	running sync.WaitGroup     // run and the renewals

	mu       sync.Mutex
	renewing map[string]bool // guarded by mu: the connections whose login is about to be renewed
}

// newMember returns nil where there is no fleet.
func newMember(s *Server, f *fleet.Fleet) *member {
	if f == nil {
		return nil
	}
	return &member{Server: s, fleet: f, renewing: map[string]bool{}}
}

// start follows the fleet until leave.
func (m *member) start() {
	if m == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.end = cancel
	m.running.Go(func() { m.fleet.Run(ctx, m) })
}

// leave ends what start began, and waits.
func (m *member) leave() {
	if m == nil {
		return
	}
	m.end()
	m.running.Wait()
}

// Drop implements fleet.Receiver. A connection that is not configured here is another sidecar's.
func (m *member) Drop(ctx context.Context, what fleet.Invalidation) bool {
	target, err := parseTarget(what.Path)
	if err != nil {
		return false
	}
	all := m.acquire(what.Connection)
	defer releaseReaches(all)
	for _, within := range all {
		if what.RenewLogin {
			m.renewLater(ctx, within.connection.Name, target)
		}
		m.drop(target, within)
	}
	return true
}

// DropAll implements fleet.Receiver.
func (m *member) DropAll() {
	all := m.acquire("")
	defer releaseReaches(all)
	for _, within := range all {
		m.drop(dropTarget{}, within)
	}
}

// acquire returns the connection of a name or an alias, or every connection for an empty name: those
// that there are. Another sidecar has judged who asks.
func (m *member) acquire(name string) []reach {
	running := m.current.Load()
	wanted := running.sorted()
	if name != "" {
		wanted = []*connection{running.named(name)}
	}
	var all []reach
	for _, c := range wanted {
		if c != nil && c.acquire() {
			all = append(all, reachOfAll(c))
		}
	}
	return all
}

// renewLater renews the connection's login some time from now: a fleet must not log in at once.
// Calls until then ask for the same one. What is read with the old token until then is dropped too.
func (m *member) renewLater(ctx context.Context, name string, target dropTarget) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.renewing[name] {
		return
	}
	m.renewing[name] = true
	m.running.Go(func() {
		timer := time.NewTimer(rand.N(renewSpread)) // #nosec G404 -- no secret
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		m.mu.Lock()
		delete(m.renewing, name)
		m.mu.Unlock()
		if ctx.Err() == nil {
			m.renew(ctx, name, target)
		}
	})
}

func (m *member) renew(ctx context.Context, name string, target dropTarget) {
	all := m.acquire(name)
	defer releaseReaches(all)
	// The state and the log tell of a login that fails; what is cached is dropped all the same.
	_ = renewLogins(ctx, all)
	m.takeOver()
	for _, within := range all {
		m.drop(target, within)
	}
}

// tell tells the other sidecars what was dropped here, and returns how far that has come, once
// everybody has dropped it or the time to wait for that is over.
func (m *member) tell(
	ctx context.Context, what fleet.Invalidation, patience time.Duration,
) (*secretsidecarv1.FleetProgress, error) {
	id, err := m.fleet.Tell(ctx, what)
	if err != nil {
		return nil, errFleet(err)
	}
	if patience <= 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	progress, err := m.fleet.Wait(ctx, id, func(fleet.Progress) {})
	if err != nil && ctx.Err() == nil {
		return nil, errFleet(err)
	}
	return &secretsidecarv1.FleetProgress{
		Living:       uint32(progress.Living),       // #nosec G115 -- a count
		Acknowledged: uint32(progress.Acknowledged), // #nosec G115 -- a count
	}, nil
}

// checkFleet refuses what only a sidecar of a fleet can do.
func (s *Server) checkFleet(request *secretsidecarv1.InvalidateRequest) error {
	switch {
	case !request.GetFleet() && request.GetWait() != nil:
		return errInvalidRequest(field("wait", "there is nobody to wait for without fleet"))
	case request.GetWait() != nil && (!request.GetWait().IsValid() || request.GetWait().AsDuration() < 0):
		return errInvalidRequest(field("wait", "must not be negative"))
	case request.GetFleet() && s.member == nil:
		return errInvalidRequest(field("fleet",
			"this sidecar is not connected to others: configure invalidation, or call Invalidate on each"))
	}
	return nil
}

// mayTell reports whether the caller may have every sidecar drop the target: no more than it may drop
// here, whatever another sidecar has cached. Of no named connection that is everything, for others
// may have connections that are not here.
func (s *Server) mayTell(
	caller unixsocket.Peer, request *secretsidecarv1.InvalidateRequest, target dropTarget,
	reaches []reach,
) bool {
	if request.GetConnection() == "" {
		return s.current.Load().isUnlimited(caller, methodInvalidate)
	}
	return !slices.ContainsFunc(reaches, func(within reach) bool {
		mayDrop := within.mayDropAll() || target.secret != "" && within.mayDrop(target.secret)
		return !mayDrop
	})
}

func errFleetNotAllowed(caller unixsocket.Peer) *problem {
	return &problem{
		code: codes.PermissionDenied, reason: reasonCallerNotAllowed,
		message: fmt.Sprintf("no rule lets uid %d (gid %d) drop all of this in other sidecars: name a "+
			"connection and one secret, leave fleet out, or call with a rule that has neither projects "+
			"nor paths", caller.UID, caller.GID),
	}
}

func errFleet(err error) *problem {
	if errors.Is(err, fleet.ErrTooMany) {
		return errRateLimited("this sidecar tells the fleet too much at once: drop prefixes or connections instead of single secrets", 0)
	}
	return &problem{
		code: codes.Unavailable, reason: "FLEET_UNREACHABLE", cause: err, retryAfter: fleetRetryAfter,
		message: "dropped here, but the other sidecars do not know: " + err.Error(),
	}
}
