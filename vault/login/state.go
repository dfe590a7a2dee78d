package login

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// State is the outcome of a Source's work so far. It is immutable.
type State struct {
	// Token is nil when there is none; it may have expired.
	Token *vault.Token
	// LoggedIn means that a login has succeeded, whatever happened to its token since.
	LoggedIn bool
	// Problem is vault.ErrLoginRejected or vault.ErrLoginPending when the newest credentials do not
	// work or cannot be read, else nil. There may be a good Token all the same.
	Problem error
	// Failure is why the last due login failed. It is nil after a success, and before the first.
	Failure error

	retryAt     time.Time     // when the next login is due after Failure
	credentials credentials   // of the last login that succeeded
	replaced    chan struct{} // closed after the next State is published
}

// Replaced is closed once there is a newer State.
func (s *State) Replaced() <-chan struct{} { return s.replaced }

// Refusal returns why there is no token now. It is nil while there is one, or while a login in
// progress may bring one.
func (s *State) Refusal(now time.Time) error {
	if s.Failure == nil || s.Token.Valid(now) {
		return nil
	}
	call, ok := errors.AsType[*vault.CallError](s.Failure)
	if !ok || errors.Is(call, vault.ErrLoginRejected) {
		return s.Failure
	}
	told := *call
	told.RetryAfter = max(s.retryAt.Sub(now), minRetryAfter)
	return &told
}

// minRetryAfter is what callers are told when a login is due or under way.
const minRetryAfter = 200 * time.Millisecond

// credentials are what a login needs. They are compared by value. A wrapped secret_id appears here
// as its wrapping token.
type credentials struct{ roleID, secretID redact.String }

// State returns the current one.
func (s *Source) State() *State { return s.state.Load() }

// Token returns a valid token. It waits for a login in progress; when there is no token to wait
// for, it says why at once. Errors: those of vault.Client.Login, vault.ErrLoginPending when the
// credentials cannot be read or the timeout of ctx (see vault.ErrTimeout) passes before the first
// login is done, vault.ErrClosed, or ctx's own.
func (s *Source) Token(ctx context.Context) (*vault.Token, error) {
	for {
		state := s.State()
		now := time.Now()
		if state.Token.Valid(now) {
			return state.Token, nil
		}
		if err := state.Refusal(now); err != nil {
			return nil, err
		}
		select {
		case <-state.replaced:
		case <-s.closed:
			return nil, closedError()
		case <-ctx.Done():
			return nil, s.endedWaiting(ctx)
		}
	}
}

// WaitReady returns nil after the first login. Errors: vault.ErrLoginRejected as soon as Vault
// rejects the credentials, vault.ErrClosed, or ctx's own.
func (s *Source) WaitReady(ctx context.Context) error {
	for {
		state := s.State()
		switch {
		case state.LoggedIn:
			return nil
		case errors.Is(state.Problem, vault.ErrLoginRejected):
			return state.Problem
		}
		select {
		case <-state.replaced:
		case <-s.closed:
			return closedError()
		case <-ctx.Done():
			return fmt.Errorf("wait for the first login: %w", ctx.Err())
		}
	}
}

// endedWaiting is the error of a caller that waited for a login until ctx ended. When it was not
// the first login, Vault has fallen silent.
func (s *Source) endedWaiting(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), vault.ErrTimeout) && !s.State().LoggedIn {
		return &vault.CallError{Sentinel: vault.ErrLoginPending, Doing: doingLogin, RetryAfter: minRetryAfter,
			Remedy: "try again: the login to Vault takes long", Cause: vault.ErrTimeout}
	}
	return ended(ctx)
}

// ended is the error of a wait that ended with ctx.
func ended(ctx context.Context) error {
	if !errors.Is(context.Cause(ctx), vault.ErrTimeout) {
		return fmt.Errorf("%s: %w", doingLogin, ctx.Err())
	}
	return &vault.CallError{Sentinel: vault.ErrUnreachable, Doing: doingLogin, Cause: vault.ErrTimeout, Reach: vault.ReachUnasked,
		Remedy: "check that Vault is up and that a firewall lets the connection through, or raise the timeout"}
}

func closedError() error { return &vault.CallError{Sentinel: vault.ErrClosed, Doing: doingLogin} }
