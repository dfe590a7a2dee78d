package conn

import (
	"context"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// idleProbePause is how long after the last sign of an outage the connection asks by itself. While
// somebody asks for secrets, their reads are the probes: they come more often and say more.
const idleProbePause = 10 * time.Second

// probeIdle asks Vault whether it is back, in an outage during which nobody asks for secrets, so
// that the state shows the end. It runs until ctx ends.
func (c *Connection) probeIdle(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.troubled:
		}
		var probed time.Time
		for at := c.probeAt(probed); !at.IsZero() && vault.Wait(ctx, time.Until(at)); at = c.probeAt(probed) {
			if due := c.probeAt(probed); !due.IsZero() && !due.After(time.Now()) {
				probed = time.Now()
				c.probe(ctx)
			}
		}
	}
}

// probeAt returns when to probe next; the zero time means never.
func (c *Connection) probeAt(probed time.Time) time.Time {
	at, failure := c.breaker.Failure()
	switch {
	case failure == nil:
		return time.Time{}
	case probed.After(at):
		at = probed
	}
	return at.Add(idleProbePause)
}

func (c *Connection) probe(ctx context.Context) {
	ctx, cancel := c.operation(ctx)
	defer cancel()
	c.vault.Reconnect()
	if err := c.vault.Well(ctx); err != nil {
		c.log.Debug("Vault is not well yet", vault.DebugAttrs(err)...)
		return
	}
	c.breaker.Recovered()
}
