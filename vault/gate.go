package vault

import (
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	firstProbeAfter = 200 * time.Millisecond
	maxProbePause   = 5 * time.Second
	// probeInFlightRetry is what callers are told while a probe is under way, whose end nobody knows.
	probeInFlightRetry = 200 * time.Millisecond
)

// gate keeps an outage cheap: once a call failed as an outage, one call per back-off interval goes out as a
// probe and all others get the remembered error at once. A call that Vault answered opens it.
type gate struct {
	// changed is called, with no lock held, after the gate closed or opened.
	changed func()
	paths   *pathGates // of reads alone

	mu      sync.Mutex
	backoff *backoff.ExponentialBackOff // guarded by mu, like all below
	down    *CallError                  // nil while the gate is open
	since   time.Time                   // of the last call that failed; says nothing while the gate is open
	next    time.Time                   // when the next probe may go out
	probing bool
	epoch   uint64 // counts openings: a call from before the last one cannot close the gate
}

// pass is the right to make one call. Its holder must call leave, once.
type pass struct {
	gate  *gate
	epoch uint64
	probe bool
}

func newGate(changed func()) *gate {
	return &gate{changed: changed, backoff: newBackOff(), paths: newPathGates()}
}

func newBackOff() *backoff.ExponentialBackOff {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = firstProbeAfter
	pauses.MaxInterval = maxProbePause
	pauses.Multiplier = 2
	pauses.RandomizationFactor = 0.2
	return pauses
}

// enter lets a call through, as the probe when the gate is closed, or returns the outage.
func (g *gate) enter(doing string) (pass, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down == nil {
		return pass{gate: g, epoch: g.epoch}, nil
	}
	if err := g.blocked(doing); err != nil {
		return pass{}, err
	}
	g.probing = true
	return pass{gate: g, epoch: g.epoch, probe: true}, nil
}

// admit returns nil when enter would let a call through now, else the outage. It takes no slot.
func (g *gate) admit(doing string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.blocked(doing)
}

// outage returns the remembered outage while the gate is closed, whether a probe is due or not, else nil. An
// empty doing leaves what was being done when it was met.
func (g *gate) outage(doing string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down == nil {
		return nil
	}
	return g.remembered(doing)
}

// nextSlot returns when a call may go out: the zero time while the gate is open.
func (g *gate) nextSlot() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.down == nil:
		return time.Time{}
	case g.probing:
		return time.Now().Add(probeInFlightRetry)
	}
	return g.next
}

// troubled returns when a call last failed, of a gate that is closed: of the connection's, or of a path's whose read was
// the last one. The zero time is that all is well.
func (g *gate) troubled() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down != nil {
		return g.since
	}
	return g.paths.failedAt()
}

// blocked must be called with mu held.
func (g *gate) blocked(doing string) error {
	if g.down == nil || !g.probing && !time.Now().Before(g.next) {
		return nil
	}
	return g.remembered(doing)
}

// remembered must be called with mu held while the gate is closed.
func (g *gate) remembered(doing string) error {
	err := *g.down
	if doing != "" {
		err.Doing = doing
	}
	err.RetryAfter = time.Until(g.next)
	if g.probing || err.RetryAfter <= 0 {
		err.RetryAfter = probeInFlightRetry
	}
	return &err
}

// leave tells the gate how the call ended.
func (p pass) leave(err error) {
	outage, isCall := errors.AsType[*CallError](err)
	switch {
	case err == nil, isCall && !Outage(err):
		p.gate.answered(p)
	case isCall:
		p.gate.failed(p, outage)
	default:
		p.gate.abandoned(p)
	}
}

func (g *gate) answered(pass) {
	g.mu.Lock()
	wasDown := g.down != nil
	if wasDown {
		g.down, g.probing = nil, false
		g.epoch++
		g.backoff.Reset()
	}
	g.mu.Unlock()
	if wasDown {
		g.changed()
	}
}

// failed closes the gate, or keeps it closed for a longer while when the probe failed. Calls that went out
// before it closed say nothing new.
func (g *gate) failed(p pass, outage *CallError) {
	g.mu.Lock()
	wasDown := g.down != nil
	news := p.epoch == g.epoch && (p.probe || !wasDown)
	if news {
		g.down, g.probing, g.since = outage, false, time.Now()
		g.next = time.Now().Add(max(g.backoff.NextBackOff(), outage.RetryAfter))
	}
	g.mu.Unlock()
	if news {
		g.changed()
	}
}

// abandoned gives the probe's slot back: its caller went away before Vault answered. The next probe still
// waits for a pause, so that impatient callers do not turn into a stream of probes.
func (g *gate) abandoned(p pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.probe && p.epoch == g.epoch {
		g.probing = false
		g.next = time.Now().Add(firstProbeAfter)
	}
}
