package breaker

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	firstPause = 200 * time.Millisecond
	// maxPause and retryAfterLimit keep us from avoiding a recovered service for longer than 10 s:
	// a name that moved may be known only 5 s later, and the pause comes on top.
	maxPause        = 4 * time.Second
	retryAfterLimit = 8 * time.Second
	// healthyFirst is how much longer keys that failed wait: while others ask, those get the turns.
	healthyFirst = time.Second
	// eldestFirst is how much longer a key waits that had a turn more recently than another one.
	eldestFirst = time.Second
	// eagerTurns is how many turns come only eagerPause apart when many keys failed but the service
	// answers. Keys that fail anyway must not use up the turns of those that would succeed.
	eagerTurns = 4
	eagerPause = 20 * time.Millisecond
	// aliveTurns are how many turns those who have failed get when the service is known to answer.
	aliveTurns = 32
)

// circuit is the circuit of a key, of a group, or of all. The zero value and nil are closed. Its
// Breaker owns it, and guards it with mu.
type circuit struct {
	// failure is why it is open; nil while it is closed.
	failure error
	// silent means that no answer came, so any answer disproves the failure.
	silent bool
	// general means that the failure was not the key's own.
	general bool
	// answers means that the service does answer, at least those who failed.
	answers bool
	// failing are the circuits below that failed since the last good answer; at most as many as it
	// takes to open this one.
	failing map[string]bool
	// healthy lets calls through one by one that have not failed, and troubled those that have: a
	// key that keeps failing must not take the turn of one that might succeed.
	healthy, troubled pace
	// trial is a healthy call in progress that others may wait for; nil means none. tried means
	// that there was one.
	trial *trial
	tried bool
	// turnAt is when this circuit last took a turn of the troubled above it. eldest is the circuit
	// below, among those refused since the last turn, whose own turn is longest ago. It gets the
	// next turn; otherwise whoever asks most often would take them all.
	turnAt time.Time
	eldest *circuit
}

// trial is a call whose end may close a circuit.
type trial struct {
	of   *circuit
	done chan struct{} // closed at its end
}

func (c *circuit) isOpen() bool { return c != nil && c.failure != nil }

// fails records that a circuit below has failed, and reports whether enough of them have to open
// this one.
func (c *circuit) fails(name string, many int) bool {
	if c.failing == nil {
		c.failing = map[string]bool{}
	}
	if len(c.failing) < many {
		c.failing[name] = true
	}
	return len(c.failing) >= many
}

// open opens the circuit, or keeps it open, and reports whether it was closed.
func (c *circuit) open(r Result, now time.Time) (opened bool) {
	opened = !c.isOpen()
	c.failure, c.silent = r.Err, r.Outcome == Silent || r.Outcome == TimedOut
	c.general = c.silent || r.Outcome == FailedAll
	if opened {
		c.troubled.take(now)
		if r.Outcome == Silent || r.Outcome == FailedAll {
			c.healthy.take(now) // else the next healthy call may show at once that everything works
		}
	}
	c.healthy.notBefore(now, r.RetryAfter)
	c.troubled.notBefore(now, r.RetryAfter)
	return opened
}

// openForMany opens the circuit because many keys failed while the service answers.
func (c *circuit) openForMany(r Result, now time.Time) (opened bool) {
	if !c.open(r, now) {
		return false
	}
	if c.answers = !c.silent; c.answers {
		c.healthy.eager = eagerTurns
	}
	return true
}

// hurry lets the next turns of those who have failed come soon.
func (c *circuit) hurry(now time.Time) {
	c.troubled.eager, c.troubled.next = aliveTurns, now
	c.healthy.next = now.Add(-healthyFirst)
}

// refusal returns why a call may not go out now. below is the open circuit below this one that the
// call belongs to; nil means that it has not failed before.
func (c *circuit) refusal(now time.Time, below *circuit) *OpenError {
	if !c.isOpen() {
		return nil
	}
	at := c.healthy.next
	if below != nil {
		at = c.turnOf(below)
	}
	if !now.Before(at) {
		return nil
	}
	refused := &OpenError{Err: c.failure, RetryAfter: at.Sub(now)}
	if below != nil {
		return refused
	}
	if c.trial != nil {
		refused.Trial = c.trial.done
	}
	refused.Soon = c.answers && refused.RetryAfter <= eagerPause
	return refused
}

// turnOf returns when a call that failed before may go out: after those that have not, and in turn.
func (c *circuit) turnOf(below *circuit) time.Time {
	at := later(c.troubled.next, c.healthy.next.Add(healthyFirst))
	if c.eldest == nil || below.turnAt.Before(c.eldest.turnAt) {
		c.eldest = below
	}
	if c.eldest != below {
		return at.Add(eldestFirst)
	}
	return at
}

// take uses the turn of a call that goes out. It returns the trial that the call is, or nil when
// others need not wait for it. below is as for refusal.
func (c *circuit) take(now time.Time, below *circuit) *trial {
	switch {
	case !c.isOpen():
		return nil
	case below != nil:
		c.troubled.take(now)
		c.eldest, below.turnAt = nil, now
		return nil
	}
	c.healthy.take(now)
	if c.silent && c.tried {
		return nil // its answer may never come
	}
	c.tried = true
	c.trial = &trial{of: c, done: make(chan struct{})}
	return c.trial
}

// end releases those who wait for the trial, which may be nil.
func (t *trial) end() {
	if t == nil {
		return
	}
	close(t.done)
	if t.of.trial == t {
		t.of.trial = nil
	}
}

// pace lets one call through per pause, and each pause is longer than the last. The zero value is
// at the beginning.
type pace struct {
	next   time.Time
	eager  int // short pauses that are left
	pauses *backoff.ExponentialBackOff
}

// take begins a pause.
func (p *pace) take(now time.Time) {
	if p.eager > 0 {
		p.eager--
		p.next = now.Add(eagerPause)
		return
	}
	if p.pauses == nil {
		p.pauses = backoff.NewExponentialBackOff()
		p.pauses.InitialInterval, p.pauses.MaxInterval = firstPause, maxPause
		p.pauses.Multiplier, p.pauses.RandomizationFactor = 2, 0.15
	}
	p.next = now.Add(p.pauses.NextBackOff())
}

// notBefore delays the next call for as long as the service asks.
func (p *pace) notBefore(now time.Time, retryAfter time.Duration) {
	if retryAfter > 0 {
		p.next = later(p.next, now.Add(min(retryAfter, retryAfterLimit)))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
