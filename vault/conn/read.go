package conn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	doingRead = "read the secret"
	// lagAge is the age from which every node of Vault should know a token.
	lagAge = 10 * time.Second
	// maxReplacements bounds how often the token of one Read may be replaced under it; once is
	// usual.
	maxReplacements = 3
	// lagPatience is how long a read waits for a node to learn of a new token. firstLagPause is the
	// first pause; each one doubles.
	lagPatience   = time.Second
	firstLagPause = 50 * time.Millisecond
	// mountPatience bounds the lookup of a mount, which a read can do without.
	mountPatience = 2 * time.Second
	// trialPatience is how long a read waits for another one that may end an outage.
	trialPatience = time.Second
)

// Admit returns nil when a Read of the path may go out now. While it would fail fast, Admit returns
// its error, with RetryAfter.
func (c *Connection) Admit(path string) error {
	state := c.login.State()
	now := time.Now()
	if state.Token.Valid(now) {
		if err := c.breaker.Check(keyOf(path)); err != nil {
			return vault.Refused(err, doingRead)
		}
		return nil
	}
	if err := state.Refusal(now); vault.Outage(err) {
		return err
	}
	return nil // a login to wait for, or a reason that Read gives
}

// Read reads one version of the KV v2 secret at a Reference's Path; version 0 is the latest. A
// token that Vault does not know costs one login shared by all who met it, and a denial one fresh
// login, at most one a minute, before it is final.
//
// Errors: those of vault.Client.Read but vault.ErrInvalidToken; those of login.Source.Token when
// there is no token; ctx's own when it ended before Config.Timeout.
func (c *Connection) Read(ctx context.Context, path string, version uint32) (*vault.Secret, error) {
	ctx, cancel := c.operation(ctx)
	defer cancel()
	token, err := c.login.Token(ctx)
	if err != nil {
		return nil, err
	}
	secret, err := c.readWith(ctx, token, path, version)
	switch {
	case errors.Is(err, vault.ErrInvalidToken):
		return c.readAgain(ctx, token, path, version)
	case errors.Is(err, vault.ErrPermissionDenied):
		return c.readAfterDenial(ctx, token, path, version, err)
	}
	return secret, err
}

// readAgain reads with a token that Vault did not know a moment ago, because the node may only lag,
// and then with newer tokens.
func (c *Connection) readAgain(ctx context.Context, token *vault.Token, path string, version uint32) (*vault.Secret, error) {
	for range maxReplacements {
		secret, err := c.readPatiently(ctx, token, path, version)
		if !errors.Is(err, vault.ErrInvalidToken) {
			return secret, err
		}
		if err := c.login.Reject(ctx, token, false); err != nil {
			return nil, err
		}
		if token, err = c.login.Token(ctx); err != nil {
			return nil, err
		}
		if secret, err = c.readWith(ctx, token, path, version); !errors.Is(err, vault.ErrInvalidToken) {
			return secret, err
		}
	}
	return nil, &vault.CallError{Sentinel: vault.ErrUnreachable, Doing: doingRead, Remedy: "check what stands behind the address, " +
		"several Vaults or a standby that lags perhaps: the tokens that it grants are not known to it"}
}

// readPatiently retries with a token that Vault did not know a moment ago, after a pause. A token
// that Vault has known before was more likely revoked, and is not retried.
func (c *Connection) readPatiently(ctx context.Context, token *vault.Token, path string, version uint32) (*vault.Secret, error) {
	err := error(&vault.CallError{Sentinel: vault.ErrInvalidToken, Doing: doingRead})
	patience := lagPatience
	if c.vault.Honours(token.ID) {
		patience = firstLagPause
	}
	for waited, pause := time.Duration(0), firstLagPause; waited < patience; waited, pause = waited+pause, pause*2 {
		if time.Since(token.Since) > lagAge || !vault.Wait(ctx, pause) {
			return nil, err
		}
		var secret *vault.Secret
		if secret, err = c.readWith(ctx, token, path, version); !errors.Is(err, vault.ErrInvalidToken) {
			return secret, err
		}
	}
	return nil, err
}

// readAfterDenial reads once more when there is a newer token, or comes to be one: its role may
// have got another policy.
func (c *Connection) readAfterDenial(ctx context.Context, token *vault.Token, path string, version uint32, denial error) (*vault.Secret, error) {
	switch err := c.login.Reject(ctx, token, true); {
	case vault.Outage(err):
		return nil, err // a denial is final only after a fresh login
	case err != nil:
		return nil, c.denied(token, path, denial)
	}
	next, err := c.login.Token(ctx)
	if err != nil || next.ID == token.ID {
		return nil, c.denied(token, path, denial) // no fresh login was due
	}
	secret, err := c.readWith(ctx, next, path, version)
	switch {
	case errors.Is(err, vault.ErrInvalidToken):
		return c.readAgain(ctx, next, path, version)
	case errors.Is(err, vault.ErrPermissionDenied):
		return nil, c.denied(next, path, err)
	}
	return secret, err
}

// readWith reads with one token.
func (c *Connection) readWith(ctx context.Context, token *vault.Token, path string, version uint32) (*vault.Secret, error) {
	secret, err := c.readInTurn(ctx, token, path, version)
	switch {
	case err == nil:
		c.denials.allowed(path)
	case errors.Is(err, vault.ErrNotFound):
		return nil, c.explainNotFound(ctx, token, path, err)
	}
	return secret, err
}

// readInTurn reads when a slot is free and the breaker allows it.
func (c *Connection) readInTurn(ctx context.Context, token *vault.Token, path string, version uint32) (*vault.Secret, error) {
	if err := c.awaitTurn(ctx); err != nil {
		return nil, err
	}
	defer c.reads.Release(1)
	call, err := c.allow(ctx, path)
	if err != nil {
		return nil, err
	}
	secret, err := c.vault.Read(ctx, token.ID, path, version)
	c.vault.Settle(call, err, false)
	return secret, err
}

// allow asks the breaker to let a read through. It waits a moment for a read in progress that may
// close the circuit.
func (c *Connection) allow(ctx context.Context, path string) (breaker.Call, error) {
	for end := time.Now().Add(trialPatience); ; {
		call, err := c.breaker.Allow(keyOf(path))
		open, refused := errors.AsType[*breaker.OpenError](err)
		if !refused || !awaitTrial(ctx, open, time.Until(end)) {
			return call, vault.Refused(err, doingRead)
		}
	}
}

// awaitTrial waits for a trial that may close a circuit, and reports whether one ended.
func awaitTrial(ctx context.Context, open *breaker.OpenError, patience time.Duration) bool {
	if patience <= 0 || open.Trial == nil && !open.Soon {
		return false
	}
	if open.Soon {
		return vault.Wait(ctx, open.RetryAfter)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-open.Trial:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// keyOf groups paths by mount, as well as the path tells: a mount may have several segments called
// data.
func keyOf(path string) breaker.Key {
	mount, _, _ := strings.Cut(path, "/data/")
	return breaker.Key{Group: mount, Name: path}
}

// explainNotFound returns vault.ErrNotKVv2 when Vault says that the path is another engine's, and
// else err.
func (c *Connection) explainNotFound(ctx context.Context, token *vault.Token, path string, err error) error {
	if err != vault.ErrNothing || c.mounts.isVersioned(path) { //nolint:errorlint // the very same: what wraps it says more
		return err
	}
	asking, cancel := context.WithTimeoutCause(ctx, mountPatience, vault.ErrTimeout)
	defer cancel()
	mount, asked := c.vault.MountOf(asking, token.ID, path)
	switch {
	case asked != nil: // the read does not depend on this lookup, so its failure is no outage
		c.log.Debug("cannot ask which secrets engine answers", vault.DebugAttrs(asked)...)
		return err
	case mount.KVVersion != 2:
		return vault.NotKVv2()
	}
	c.mounts.remember(mount.Path)
	return err
}

// awaitTurn waits for one of maxConcurrentReads slots, for half of the timeout at most. A read then
// has the other half, so its time-out says something about Vault, not about our queue.
func (c *Connection) awaitTurn(ctx context.Context) error {
	if c.reads.TryAcquire(1) {
		return nil
	}
	end, _ := ctx.Deadline() // an operation's ctx has one
	turn, cancel := context.WithDeadlineCause(ctx, end.Add(-c.Timeout()/2), vault.ErrTimeout)
	defer cancel()
	err := c.reads.Acquire(turn, 1)
	if err == nil {
		return nil
	}
	if cause := context.Cause(turn); errors.Is(cause, vault.ErrTimeout) {
		return &vault.CallError{Sentinel: vault.ErrUnreachable, Doing: doingRead, Cause: cause, Remedy: "Vault answers more slowly than secrets " +
			"are asked for, and this read was still in the queue: look at Vault's load and latency, or raise the timeout"}
	}
	return fmt.Errorf("%s: %w", doingRead, ctx.Err())
}
