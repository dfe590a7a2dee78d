package conn

import (
	"context"
	"errors"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// idleProbePause is how long after the last sign of an outage the connection asks by itself. While
// somebody asks for secrets, their reads are the probes: they come more often and say more.
const idleProbePause = 10 * time.Second

const (
	// hangProbePause is how long after a question the next one may follow while reads time out.
	hangProbePause = 4 * time.Second
	// probeLook is how often the last failure is looked at.
	probeLook = time.Second
)

// probe asks Vault whether it is back: in an outage during which nobody asks for secrets, so that
// the state shows the end; and when a read has timed out, which may be its path's fault alone. It
// runs until ctx ends.
func (c *Connection) probe(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.troubled:
		}
		var probed time.Time
		for at, hangs := c.probeAt(probed); !at.IsZero(); at, hangs = c.probeAt(probed) {
			if left := time.Until(at); left > 0 {
				if !vault.Wait(ctx, min(left, probeLook)) {
					return
				}
				continue
			}
			probed = time.Now()
			c.askHealth(ctx, hangs)
		}
	}
}

// probeAt returns when to probe next, and whether it is because a read has timed out; the zero time
// means never.
func (c *Connection) probeAt(probed time.Time) (at time.Time, hangs bool) {
	at, failure := c.breaker.Failure()
	switch {
	case failure == nil:
		return time.Time{}, false
	case timedOut(failure) && at.After(probed):
		if soonest := probed.Add(hangProbePause); soonest.After(at) {
			at = soonest
		}
		return at, true
	case probed.After(at):
		at = probed
	}
	return at.Add(idleProbePause), false
}

func timedOut(failure error) bool {
	call, ok := errors.AsType[*vault.CallError](failure)
	return ok && call.Reach == vault.ReachTime
}

// askHealth tells the breaker that Vault is well. While reads hang that only means that those which
// have failed are worth their turns: health may be well where storage hangs.
func (c *Connection) askHealth(ctx context.Context, hangs bool) {
	ctx, cancel := c.operation(ctx)
	defer cancel()
	c.vault.Reconnect()
	if err := c.vault.Well(ctx); err != nil {
		c.log.Debug("Vault is not well yet", vault.DebugAttrs(err)...)
		return
	}
	if hangs {
		c.breaker.Alive()
		return
	}
	c.breaker.Recovered()
}
