package client

import (
	"context"
	"errors"
	"fmt"
	"iter"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// Change is one state of a watched reference: a secret, or why there is none now.
type Change struct {
	// Reference is the one that Watch was given; empty when the watch as a whole has failed.
	Reference string
	// Secret is nil where there is an error.
	Secret *Secret
	// Err ends the watch only where Reference is empty.
	Err *Error
}

// Watch yields the present state of each reference, at most 256 of them, and then each change, until
// ctx is done or the loop is left. It goes on when the sidecar restarts, and yields each state again
// then. A slow loop gets the latest state of each reference. Fresh and Timeout mean nothing here. A
// sidecar takes 16 watches from one Client: one more ends with ErrRateLimited.
//
// A change drops the near cache, so that Get answers with what the loop has seen.
func (c *Client) Watch(ctx context.Context, references []string, options ...Option) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		request, failed := watchRequest(references, optionsOf(options))
		if failed != nil {
			yield(Change{Err: failed})
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for hasBegun := false; ; {
			more, failed := c.watchOnce(ctx, references, request, func(change Change) bool {
				hasBegun = true
				return yield(change)
			})
			if !more || ctx.Err() != nil {
				return
			}
			if !hasBegun && isOverLimit(failed) || !pause(ctx, failed.pause()) {
				if ctx.Err() == nil {
					yield(Change{Err: failed})
				}
				return
			}
		}
	}
}

// isOverLimit reports whether the caller has too much under way already. A watch that has not begun
// would wait for its others to end, perhaps for ever.
func isOverLimit(failed *Error) bool {
	return errors.Is(failed, ErrRateLimited) || errors.Is(failed, ErrOverloaded)
}

func watchRequest(references []string, o call) (*secretsidecarv1.WatchRequest, *Error) {
	if len(references) == 0 || len(references) > maxBatch {
		return nil, refused(ErrInvalidRequest, "", fmt.Sprintf("watch 1 to %d references, not %d", maxBatch, len(references)))
	}
	request := &secretsidecarv1.WatchRequest{}
	for _, reference := range references {
		l, failed := o.lookup(reference)
		if failed != nil {
			return nil, failed
		}
		request.Requests = append(request.Requests, l.request())
	}
	return request, nil
}

// watchOnce yields what one stream brings. It reports false when the loop was left, and else why the
// stream has ended.
func (c *Client) watchOnce(
	ctx context.Context, references []string, request *secretsidecarv1.WatchRequest, yield func(Change) bool,
) (more bool, failed *Error) {
	stream, err := c.api.Watch(ctx, request)
	for err == nil {
		var state *secretsidecarv1.WatchResponse
		if state, err = stream.Recv(); err != nil {
			break
		}
		if int(state.GetIndex()) >= len(references) || state.GetOutcome() == nil {
			continue // of a newer sidecar
		}
		c.near.drop()
		if !yield(changeOf(references[state.GetIndex()], state)) {
			return false, nil
		}
	}
	return true, c.errorOf(ctx, err)
}

func changeOf(reference string, state *secretsidecarv1.WatchResponse) Change {
	if said := state.GetError(); said != nil {
		failed := itemError(said)
		failed.Reference = reference
		return Change{Reference: reference, Err: failed}
	}
	return Change{Reference: reference, Secret: secretOf(state.GetSecret())}
}
