package vault

import (
	"errors"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
)

// Settle reports the outcome of a call to the breaker. After a failure that the connections may
// have caused, it abandons them, so that the next attempt uses a new one. alone means that a
// failure of this path says nothing about other paths.
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

// reconnectAfter abandons the connections after the failure of a call that started at began, if a
// new connection may help. It keeps them while other calls succeed, and after a quota, which is the
// same on every node.
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

// Refused is the error of a call that the breaker does not let through: the failure that opened the
// circuit, and when to try again.
func Refused(err error, doing string) error {
	open, ok := errors.AsType[*breaker.OpenError](err)
	if !ok {
		return err
	}
	return again(open.Err, doing, open.RetryAfter)
}

// again is an earlier failure, given as the reason why a call is not made now. An empty doing keeps
// the failure's own.
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
