package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// pauseForSidecar is how long a call waits after its connection broke. gRPC then waits for a new
// one.
const pauseForSidecar = 50 * time.Millisecond

// try repeats a call until an answer says that repeating is useless, or ctx leaves no time.
func (c *Client) try(ctx context.Context, call func() error) *Error {
	for {
		err := call()
		if err == nil {
			return nil
		}
		failed := c.errorOf(ctx, err)
		if !pause(ctx, failed.pause()) {
			return failed
		}
	}
}

// pause returns how long to wait before the same call may succeed; 0 when it will not by itself.
func (e *Error) pause() time.Duration {
	if e.Reason == SidecarUnreachable {
		return pauseForSidecar
	}
	return e.RetryAfter
}

// pause waits, and up to a fifth longer, so that many callers do not come back at once. It reports
// false at once when there is nothing to wait for, or ctx would end before.
func pause(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 || ctx.Err() != nil {
		return false
	}
	wait += rand.N(wait/5 + 1) // #nosec G404 -- no secret
	if until, bounded := ctx.Deadline(); bounded && time.Until(until) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
