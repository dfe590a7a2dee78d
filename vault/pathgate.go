package vault

import (
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxGatedPaths bounds the memory; paths come from callers.
const maxGatedPaths = 1024

// pathGates keep one path at which Vault fails from making the whole connection look out of order: Vault has
// answered, so it is there. Such a path is tried once per back-off interval. Only when different paths fail in a
// row does the connection's own gate close.
type pathGates struct {
	mu    sync.Mutex
	gates map[string]*pathGate // guarded by mu
	last  *CallError           // of the last read, when it failed; guarded by mu
	where string               // its path; guarded by mu
	since time.Time            // when it was; guarded by mu
}

type pathGate struct {
	backoff *backoff.ExponentialBackOff
	down    *CallError
	next    time.Time
}

func newPathGates() *pathGates { return &pathGates{gates: map[string]*pathGate{}} }

// enter returns the path's outage while it is not to be tried. Otherwise the call may go out, and is the only
// one for the next interval when the path has failed before.
func (g *pathGates) enter(path, doing string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.gates[path]
	if one == nil {
		return nil
	}
	now := time.Now()
	if now.Before(one.next) {
		err := *one.down
		err.Doing, err.RetryAfter = doing, one.next.Sub(now)
		return &err
	}
	one.next = now.Add(one.backoff.NextBackOff())
	return nil
}

// answered notes how a call that Vault answered has ended, and reports whether its failure says something about
// Vault as a whole, and whether reads have turned bad by it, or good.
func (g *pathGates) answered(path string, err error) (general, turned bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	failure, failed := errors.AsType[*CallError](err)
	if !failed || !failure.answered {
		delete(g.gates, path)
		turned = g.last != nil
		g.last = nil
		return false, turned
	}
	g.close(path, failure)
	general, turned = g.last != nil && g.where != path, g.last == nil
	g.last, g.where, g.since = failure, path, time.Now()
	return general, turned
}

// failure returns how the last read failed, if it did.
func (g *pathGates) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		return nil
	}
	return g.last
}

// failedAt returns when the last read failed; the zero time when it did not.
func (g *pathGates) failedAt() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		return time.Time{}
	}
	return g.since
}

// wellAgain notes that Vault has answered another call since. The paths keep their own back-off.
func (g *pathGates) wellAgain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = nil
}

// close must be called with mu held.
func (g *pathGates) close(path string, failure *CallError) {
	one := g.gates[path]
	if one == nil {
		if len(g.gates) >= maxGatedPaths {
			clear(g.gates)
		}
		one = &pathGate{backoff: newBackOff()}
		g.gates[path] = one
	}
	one.down = failure
	if now := time.Now(); !now.Before(one.next) {
		one.next = now.Add(one.backoff.NextBackOff())
	}
}
