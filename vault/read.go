package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// maxReadAttempts bounds a Read whose token is replaced under it; one replacement is usual.
const maxReadAttempts = 3

// Read reads one version of the KV v2 secret at a Reference's Path; version 0 is the latest. A token that
// Vault does not know costs one login shared by all who met it, and a denial one fresh login, at most one a
// minute, before it is final.
//
// Errors: ErrNotFound, ErrVersionDeleted, ErrVersionDestroyed, ErrPermissionDenied, ErrNotKVv2,
// ErrInvalidPath, ErrTooLarge; an outage (see Outage); ErrLoginPending or ErrLoginRejected when there is no
// token; ErrClosed; ctx's own error when it ended before Config.Timeout.
func (c *Client) Read(ctx context.Context, path string, version uint32) (*Secret, error) {
	ctx, cancel := c.operation(ctx)
	defer cancel()
	var denial error
	for range maxReadAttempts {
		tok, err := c.currentToken(ctx)
		if err != nil {
			return nil, firstOf(denial, err)
		}
		secret, err := c.readWith(ctx, tok, path, version)
		ask := relogin{serial: tok.serial, reason: tokenInvalid}
		switch {
		case errors.Is(err, ErrPermissionDenied):
			ask.reason, denial = readDenied, err
		case !errors.Is(err, errInvalidToken):
			return secret, err
		}
		switch err := c.keeper.ask(ctx, ask); {
		case Outage(err):
			return nil, err // a denial is final only after a fresh login
		case err != nil:
			return nil, firstOf(denial, err)
		}
		if s := c.session.Load(); denial != nil && s.token != nil && s.token.serial == tok.serial {
			return nil, denial // no fresh login was due
		}
	}
	return nil, firstOf(denial, unreachable(doingRead, "check what stands behind the address, several Vaults perhaps: "+
		"the tokens that it grants are not known to it", errInvalidToken))
}

// readWith reads with one token. Besides Read's errors: errInvalidToken.
func (c *Client) readWith(ctx context.Context, tok *token, path string, version uint32) (*Secret, error) {
	if err := c.awaitTurn(ctx); err != nil {
		return nil, err
	}
	defer c.reads.Release(1)
	secret, err := c.api.readSecret(ctx, tok, path, version)
	if errors.Is(err, errPlainNotFound) {
		return nil, c.engines.explainNotFound(ctx, c.api, tok, path) // ErrNotFound, ErrNotKVv2, or an outage
	}
	return secret, err
}

// awaitTurn waits until fewer than maxConcurrentReads are under way, for half of the timeout at most: a read that
// goes out has the other half, and its time-out says something about Vault.
func (c *Client) awaitTurn(ctx context.Context) error {
	if c.reads.TryAcquire(1) {
		return nil
	}
	end, _ := ctx.Deadline() // an operation's ctx has one
	turn, cancel := context.WithDeadlineCause(ctx, end.Add(-c.timeout/2), errOperationTimeout)
	defer cancel()
	err := c.reads.Acquire(turn, 1)
	if err == nil {
		return nil
	}
	if cause := context.Cause(turn); errors.Is(cause, errOperationTimeout) {
		return unreachable(doingRead, "Vault answers more slowly than secrets are asked for, and this read was still in "+
			"the queue: look at Vault's load and latency, or raise the timeout", cause)
	}
	return transportError(ctx, doingRead, err)
}

// readSecret makes the read. Its errors are decideRead's.
func (a *vaultAPI) readSecret(ctx context.Context, tok *token, path string, version uint32) (*Secret, error) {
	r := request{doing: doingRead, kind: CallRead, method: http.MethodGet, path: path, template: "{mount}/data/{path}",
		token: tok.id, isRead: true}
	if version != 0 {
		r.query = "version=" + strconv.FormatUint(uint64(version), 10)
	}
	ans, err := a.call(ctx, r)
	if err != nil {
		return nil, err
	}
	return decideRead(ans)
}

// currentToken returns the token, waiting for the login under way; why there is none it says at once.
func (c *Client) currentToken(ctx context.Context) (*token, error) {
	for {
		if c.isClosed() {
			return nil, closedError(doingRead)
		}
		s := c.session.Load()
		if s.token.valid(time.Now()) {
			return s.token, nil
		}
		if err := c.gate.outage(doingRead); err != nil {
			return nil, err
		}
		if s.hopeless != nil {
			return nil, s.hopeless
		}
		select {
		case <-s.replaced:
		case <-c.closed:
			return nil, closedError(doingRead)
		case <-ctx.Done():
			return nil, c.pendingError(ctx)
		}
	}
}

// pendingError is what a caller gets that waited for a login until ctx ended. When it is a later login, Vault
// has fallen silent.
func (c *Client) pendingError(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errOperationTimeout) {
		if c.session.Load().everLoggedIn {
			return transportError(ctx, doingLogin, ctx.Err())
		}
		return &CallError{Sentinel: ErrLoginPending, Doing: doingLogin, RetryAfter: firstProbeAfter,
			Remedy: "try again: the login to Vault takes long", Cause: errOperationTimeout}
	}
	return fmt.Errorf("%s: %w", doingLogin, ctx.Err())
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
