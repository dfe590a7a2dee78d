package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// readsApart is the least time between the reads of Vault that refused values cause, per secret.
const readsApart = time.Second

// drainBytes is how much of a refused answer is read, so that its connection can be used again.
const drainBytes = 64 << 10

// ErrRefused is what a call of Use wraps to say that the service did not take the value.
var ErrRefused = errors.New("the value was refused")

// Use calls with the value of a reference. If the call says that the value was refused, Use asks
// for a fresh one and, if the secret has changed, calls once more. So a secret that is rotated
// while flows run costs no failed call. A call says so with an error that wraps ErrRefused, or by
// returning an *http.Response with status 401.
//
// Many callers whose values are refused at once share one read of Vault for each secret and second.
//
// The error is the last call's own, or an *Error where the value could not be had. A response that
// was refused is closed, unless it is the one returned.
func Use[T any](ctx context.Context, c *Client, reference string,
	call func(ctx context.Context, value string) (T, error), options ...Option) (T, error) {
	var none T
	secret, err := c.GetSecret(ctx, reference, options...)
	if err != nil {
		return none, err
	}
	result, err := call(ctx, secret.Value())
	if !isRefused(result, err) {
		return result, err
	}
	next := c.changed(ctx, secret, reference, options)
	if next == nil {
		return result, err
	}
	discard(result)
	return call(ctx, next.Value())
}

// changed returns the secret after a version of it was refused; nil when it has not changed, or
// cannot be read.
func (c *Client) changed(ctx context.Context, refused *Secret, reference string,
	options []Option) *Secret {
	now := time.Now()
	recent := slices.Concat(options, []Option{func(o *call) {
		o.maxAge = bound{set: true, is: readsApart}
	}})
	for {
		next, err := c.GetSecret(ctx, reference, recent...)
		switch {
		case err != nil || next.Source == Stale:
			return nil
		case next.Version != refused.Version || next.Value() != refused.Value():
			return next
		case next.FetchedAt.After(now):
			return nil
		}
		// Somebody else has just had it read, perhaps before it changed. The next read is due soon.
		if !pause(ctx, max(time.Until(next.FetchedAt.Add(readsApart)), time.Millisecond)) {
			return nil
		}
	}
}

// isRefused reports whether a call says that its value was refused.
func isRefused(result any, err error) bool {
	if err != nil {
		return errors.Is(err, ErrRefused)
	}
	response, ok := result.(*http.Response)
	return ok && response != nil && response.StatusCode == http.StatusUnauthorized
}

// discard gives the connection of a response back.
func discard(result any) {
	response, ok := result.(*http.Response)
	if !ok || response == nil || response.Body == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, response.Body, drainBytes)
	_ = response.Body.Close()
}
