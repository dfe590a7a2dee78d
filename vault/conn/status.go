package conn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// State is the condition of a connection.
type State int

const (
	// StateConnecting means: no login has succeeded yet, and the last call did not fail.
	StateConnecting State = iota + 1
	// StateReady means: the last call was answered by Vault, and the login is good.
	StateReady
	// StateDegraded means: the last call to Vault failed as an outage.
	StateDegraded
	// StateRejected means: Vault refuses the newest credentials. Older ones may still be in use.
	StateRejected
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case StateConnecting:
		return "connecting"
	case StateReady:
		return "ready"
	case StateDegraded:
		return "degraded"
	case StateRejected:
		return "rejected"
	}
	return fmt.Sprintf("state(%d)", int(s))
}

// Status is a connection's state at one moment.
type Status struct {
	State State
	// Since is when the state began.
	Since time.Time
	// TokenExpiresAt is zero when there is no token, or one that never expires.
	TokenExpiresAt time.Time
	// TokenValid says that there is a token that has not expired.
	TokenValid bool
	// LastError is why the state is not ready. In a ready state it is a problem that needs a person
	// all the same: unreadable credential files (vault.ErrLoginPending), logins that fail while the
	// token lives (an outage), or denied reads (vault.ErrPermissionDenied, for 5 minutes after the
	// last one). Otherwise it is nil.
	LastError error
	// LastAnswerAt is when Vault last did what it was asked, or said that a secret does not exist;
	// the zero time means never. Refusals and the calls of a Test do not count.
	LastAnswerAt time.Time
	// SecretIDExpiresAt is when the secret_id in use expires. The zero time means never or unknown:
	// Config.LookUpSecretID is not set, or the role's policies do not allow the lookup.
	SecretIDExpiresAt time.Time
}

// Status returns the state of the connection now.
func (c *Connection) Status() Status { return c.board.now() }

// board computes the state from the login, the breaker and the denials, and reports each change
// once.
type board struct {
	c        *Connection
	onChange func()
	woken    chan struct{} // capacity 1

	mu    sync.Mutex
	state State     // guarded by mu
	since time.Time // guarded by mu
}

func newBoard(c *Connection, onChange func()) *board {
	if onChange == nil {
		onChange = func() {}
	}
	return &board{c: c, onChange: onChange, woken: make(chan struct{}, 1), state: StateConnecting, since: time.Now()}
}

func (b *board) wake() { notify(b.woken) }

func (b *board) now() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	_, failure := b.c.breaker.Failure()
	status := observe(b.c.login.State(), failure, b.c.denials.shown(now), now)
	if status.State != b.state {
		b.state, b.since = status.State, now
	}
	status.Since = b.since
	status.LastAnswerAt = b.c.vault.LastAnswerAt()
	status.SecretIDExpiresAt = b.c.login.SecretIDExpiresAt()
	return status
}

// observe computes the state. No other code decides it.
func observe(s *login.State, outage, denial error, now time.Time) Status {
	status := Status{State: StateReady, TokenValid: s.Token.Valid(now)}
	if status.TokenValid {
		status.TokenExpiresAt = s.Token.Expires()
	}
	switch {
	case errors.Is(s.Problem, vault.ErrLoginRejected):
		status.State, status.LastError = StateRejected, s.Problem
	case outage != nil:
		status.State, status.LastError = StateDegraded, outage
	case !s.LoggedIn:
		status.State, status.LastError = StateConnecting, s.Problem
	case s.Problem != nil:
		status.LastError = s.Problem
	case s.Failure != nil:
		status.LastError = s.Failure
	default:
		status.LastError = denial
	}
	return status
}

// run reports changes until ctx ends. It is the only caller of onChange.
func (b *board) run(ctx context.Context) {
	told := Status{State: StateConnecting}
	for {
		status := b.now()
		if differs(told, status) {
			if told.State != status.State {
				b.logState(status)
			}
			told = status
			b.onChange()
		}
		if !b.sleep(ctx, status) {
			return
		}
	}
}

// sleep waits for a change or for the token's end. It returns false when ctx ended.
func (b *board) sleep(ctx context.Context, status Status) bool {
	var expired <-chan time.Time
	if !status.TokenExpiresAt.IsZero() {
		timer := time.NewTimer(max(time.Until(status.TokenExpiresAt), time.Millisecond))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-b.woken:
	case <-expired:
	}
	return true
}

func differs(a, b Status) bool {
	return a.State != b.State || a.TokenValid != b.TokenValid || !a.TokenExpiresAt.Equal(b.TokenExpiresAt) ||
		errorText(a.LastError) != errorText(b.LastError)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (b *board) logState(status Status) {
	level := slog.LevelInfo
	if status.State == StateDegraded || status.State == StateRejected {
		level = slog.LevelWarn
	}
	attrs := []any{"state", status.State.String()}
	if status.LastError != nil && status.State != StateRejected { // a rejection has a line of its own
		attrs = append(attrs, vault.Attrs(status.LastError)...)
	}
	if status.LastError != nil {
		b.c.log.Debug("Vault connection is not ready", vault.DebugAttrs(status.LastError)...)
	}
	b.c.log.Log(context.Background(), level, "Vault connection changed state", attrs...)
}
