package vault

import (
	"errors"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
)

// Settle tells the breaker how a call has ended, and leaves the connections behind that may be to
// blame: the next attempt uses a new one. Alone says that a failure of the call's path says nothing
// about others.
func (c *Client) Settle(call breaker.Call, err error, alone bool) {
	result := breaker.Result{Outcome: outcomeOf(err), Err: err, Alone: alone}
	if failure, ok := errors.AsType[*CallError](err); ok {
		result.RetryAfter = failure.RetryAfter
		c.reconnectAfter(failure, call.Began())
	}
	call.Done(result)
}

func outcomeOf(err error) breaker.Outcome {
	call, ok := errors.AsType[*CallError](err)
	switch {
	case err == nil:
		return breaker.Succeeded
	case !ok:
		return breaker.Abandoned
	}
	switch call.Reach {
	case ReachPath:
		return breaker.Failed
	case ReachNode:
		return breaker.FailedAll
	case ReachNetwork:
		return breaker.Silent
	case ReachTime:
		return breaker.TimedOut
	case ReachUnasked:
		return breaker.Abandoned
	default:
		return breaker.Succeeded
	}
}

// reconnectAfter leaves the connections behind after the failure of a call that began at began,
// when a new connection may heal it: not while others bring what is asked for. A quota is the same
// on every node.
func (c *Client) reconnectAfter(failure *CallError, began time.Time) {
	if c.pool == nil || failure.Reach == ReachNothing || failure.Reach == ReachUnasked ||
		errors.Is(failure, ErrRateLimited) {
		return
	}
	last := &c.pool.servedAt
	if failure.Reach == ReachNetwork || failure.Reach == ReachTime {
		last = &c.pool.answeredAt
	}
	if last.Load() < began.UnixNano() {
		c.Reconnect()
	}
}

// Refused is the error of a call that the breaker refuses: the failure because of which it does,
// with when to try again.
func Refused(err error, doing string) error {
	open, ok := errors.AsType[*breaker.OpenError](err)
	if !ok {
		return err
	}
	return again(open.Err, doing, open.RetryAfter)
}

// again is an earlier failure as the reason why a call is not made now. An empty doing leaves what
// was being done.
func again(err error, doing string, retryAfter time.Duration) error {
	call, ok := errors.AsType[*CallError](err)
	if !ok {
		return err
	}
	told := *call
	if doing != "" {
		told.Doing = doing
	}
	told.RetryAfter = retryAfter
	return &told
}
