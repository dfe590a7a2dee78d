package login

import (
	"context"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// SharedFor is how long the outcome of a requested login answers those who ask again, where it
// IsShared.
const SharedFor = 10 * time.Second

// IsShared reports whether the outcome of a login answers those who ask again soon: a success does, and so does a failure
// for which Vault was at work. Rejections are spared by the Budget, and mending the credentials must show at once. What
// never reached Vault costs it nothing.
func IsShared(outcome error) bool {
	if outcome == nil {
		return true
	}
	reach := vault.ReachOf(outcome)
	return vault.Outage(outcome) && reach != vault.ReachNetwork && reach != vault.ReachUnasked
}

// reason is why somebody wants another token.
type reason int

const (
	operatorAsks reason = iota
	tokenInvalid
	readDenied
)

// renewal asks the actor for another token.
type renewal struct {
	reason reason
	old    *vault.Token // that failed: any other token is as good as a new login
	done   chan error   // capacity 1
}

// askedRenewal is a new login that people asked for. All fields but the channel are set before it
// is closed.
type askedRenewal struct {
	done chan struct{}
	err  error
	at   time.Time
}

// Renew logs in again, with the newest credentials, and then revokes the old token. Callers who ask
// meanwhile, or within 10 s after it, get its outcome where it IsShared. It counts against the
// Budget. When it fails the old token goes on serving. Errors: those of vault.Client.Login,
// vault.ErrLoginPending when a credential file cannot be read and there was no login before,
// vault.ErrClosed, or ctx's own; the login continues when ctx ends.
func (s *Source) Renew(ctx context.Context) error {
	one := s.joinAsked()
	select {
	case <-one.done:
		return one.err
	case <-s.closed:
		return closedError()
	case <-ctx.Done():
		return s.endedWaiting(ctx)
	}
}

// joinAsked returns the renewal whose outcome this caller gets.
func (s *Source) joinAsked() *askedRenewal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != nil && s.asked.answers(time.Now()) {
		return s.asked
	}
	one := &askedRenewal{done: make(chan struct{})}
	if s.isClosed() {
		one.err = closedError()
		close(one.done)
		return one
	}
	s.asked = one
	s.loops.Go(func() { // ends when the actor answers, or the Source is closed
		one.err = s.ask(context.Background(), renewal{reason: operatorAsks})
		one.at = time.Now()
		close(one.done)
	})
	return one
}

func (r *askedRenewal) answers(now time.Time) bool {
	select {
	case <-r.done:
		return IsShared(r.err) && now.Sub(r.at) < SharedFor
	default:
		return true
	}
}

// Reject reports that Vault does not know the token, or with denied that it does not allow a read,
// and waits for the outcome. It returns nil when there is another token, or when none is due and
// the caller must do with the old one. One login answers all who reject the same token. Errors:
// those of Token.
func (s *Source) Reject(ctx context.Context, token *vault.Token, denied bool) error {
	why := tokenInvalid
	if denied {
		why = readDenied
	}
	return s.ask(ctx, renewal{reason: why, old: token})
}

// ask hands a renewal to the actor and waits for its outcome.
func (s *Source) ask(ctx context.Context, r renewal) error {
	r.done = make(chan error, 1)
	select {
	case s.requests <- r:
	case <-s.closed:
		return closedError()
	case <-ctx.Done():
		return s.endedWaiting(ctx)
	}
	select {
	case err := <-r.done:
		return err
	case <-s.closed:
		return closedError()
	case <-ctx.Done():
		return s.endedWaiting(ctx)
	}
}
