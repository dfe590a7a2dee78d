package login

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	doingRenew = "renew the token"
	// retryPause is how often a login or a renewal is retried after a failure that is not Vault's.
	retryPause = 5 * time.Second
	// minPause is the least time between two renewals or logins, however short the token's life: a
	// role with a tiny ttl must not make a storm.
	minPause = 250 * time.Millisecond
	// The keys of login and renewal at the circuit breaker.
	keyGroup, loginKey, renewKey = "auth", "log in", "renew"
)

// actor owns the token and the credentials of a Source. Its run goroutine alone logs in, renews and
// publishes; everybody else asks it. All its fields belong to run.
type actor struct {
	*Source
	log *slog.Logger

	token    *vault.Token
	loggedIn bool
	failure  error // why the last login that was due failed
	// renewAt and loginAt are when to renew or replace the token; the zero time means never. Both
	// may be due: a failed renewal is retried beside the logins that are to replace the token.
	renewAt, loginAt time.Time
	cannotRenew      []string      // of tokens that may not renew themselves
	onInvalid        *rate.Limiter // logins because of tokens that Vault does not know
	onDenied         *rate.Limiter // logins because of denied reads

	held    holds
	current credentials // of the last login that succeeded; zero before it
	newest  credentials // as last read from the files; current until Vault has accepted them
	// rehearseFrom is when newer credentials may be tried again after an outage.
	rehearseFrom time.Time
	unreadable   error     // why the credential files could not be read last
	rereadAt     time.Time // when to look at unreadable files again
	unprotect    func()    // releases the part of the Budget that is kept for current
}

func newActor(s *Source) *actor {
	a := &actor{Source: s, log: s.cfg.Logger, loginAt: time.Now(), unprotect: func() {}, held: holds{byCredentials: map[credentials]rejection{}},
		onInvalid: rate.NewLimiter(rate.Every(10*time.Second), 3), onDenied: rate.NewLimiter(rate.Every(time.Minute), 1)}
	a.readCredentials()
	return a
}

// run is the login loop. It ends when loop does. calls outlives it, so that a login in progress can
// end and its token be revoked.
func (a *actor) run(loop, calls context.Context) {
	defer func() { a.unprotect() }()
	for loop.Err() == nil {
		a.upkeep(calls)
		timer := time.NewTimer(time.Until(a.nextAt()))
		select {
		case <-loop.Done():
		case r := <-a.requests:
			r.done <- a.serve(calls, r)
		case <-a.files:
			a.takeUpFiles()
		case <-a.woken:
			a.hurry()
		case <-timer.C:
		}
		timer.Stop()
	}
}

// nextAt returns when the next thing is due.
func (a *actor) nextAt() time.Time {
	next := earliest(time.Now().Add(24*time.Hour), a.renewAt, a.loginAt)
	if at := a.rehearsalAt(); a.rehearsing() && at.Before(next) {
		next = at
	}
	if a.unreadable != nil {
		next = earliest(next, a.rereadAt)
	}
	return next
}

// earliest returns the earliest of the times that are not zero.
func earliest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

func isDue(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// hurry makes due what an outage has delayed, now that the breaker has changed. What is due still
// asks the breaker.
func (a *actor) hurry() {
	now := time.Now()
	for _, at := range []*time.Time{&a.renewAt, &a.loginAt} {
		if !at.IsZero() && at.Sub(now) <= retryPause && a.held.of(a.newest).err == nil {
			*at = now
		}
	}
}

// upkeep does what is due.
func (a *actor) upkeep(ctx context.Context) {
	now := time.Now()
	if a.unreadable != nil && isDue(a.rereadAt, now) {
		a.readCredentials()
		a.publish()
	}
	if a.rehearsing() && !a.rehearsalAt().After(now) {
		a.rehearseFrom = now.Add(retryPause)
		_ = a.attempt(ctx, a.newest, false) // the outcome is recorded and published
		a.publish()
	}
	if isDue(a.renewAt, now) {
		a.renew(ctx)
	}
	if isDue(a.loginAt, time.Now()) {
		_ = a.logIn(ctx, false) // its outcome is published
	}
}

// serve answers a request for another token. It returns nil when there is one, or when the caller
// must do with the old one.
func (a *actor) serve(ctx context.Context, r renewal) error {
	if r.reason == operatorAsks {
		a.cannotRenew = nil
		return a.logIn(ctx, true)
	}
	if a.token == nil || a.token.ID != r.old.ID {
		return nil
	}
	if r.reason == tokenInvalid {
		return a.replaceInvalid(ctx)
	}
	if !a.onDenied.Allow() {
		return nil
	}
	return a.logIn(ctx, false)
}

// replaceInvalid drops a token that Vault does not know, and logs in: at once, unless that happened
// so often lately that something else must be wrong.
func (a *actor) replaceInvalid(ctx context.Context) error {
	a.token, a.renewAt = nil, time.Time{}
	pause := a.onInvalid.Reserve().Delay()
	if pause == 0 {
		return a.logIn(ctx, false)
	}
	a.loginAt = time.Now().Add(pause)
	a.failure = &vault.CallError{Sentinel: vault.ErrUnreachable, Doing: doingLogin, RetryAfter: pause, Reach: vault.ReachNode,
		Remedy: "check what stands behind the address, several Vaults or a standby that lags perhaps: the tokens that it grants are not known to it"}
	a.publish()
	return a.failure
}

// logIn logs in with the newest credentials, or with the current ones when Vault rejects the
// newest. Without a new token the old one stays, and the next try is planned. An operator also
// learns that the newest were rejected, and does not wait for the end of a hold.
func (a *actor) logIn(ctx context.Context, operator bool) error {
	defer a.publish()
	a.readCredentials()
	if a.unreadable != nil && !a.loggedIn {
		return a.failed(a.unreadable, retryPause)
	}
	err := a.attempt(ctx, a.newest, operator)
	if a.rehearsing() && errors.Is(err, vault.ErrLoginRejected) {
		currentErr := a.attempt(ctx, a.current, operator)
		if currentErr == nil && operator {
			return err
		}
		err = currentErr
	}
	if err == nil {
		return nil
	}
	pause := cmp.Or(vault.RetryAfter(err), retryPause)
	if vault.Outage(err) {
		pause = vault.RetryAfter(err) // the breaker paces what comes sooner
	}
	if errors.Is(err, vault.ErrLoginRejected) {
		pause = time.Until(a.nextTry())
	}
	return a.failed(err, pause)
}

// failed records why there was no login, and plans the next one if there is to be one.
func (a *actor) failed(err error, pause time.Duration) error {
	a.failure = err
	if !a.loginAt.IsZero() || !a.token.Valid(time.Now()) {
		a.loginAt = time.Now().Add(max(pause, minPause))
	}
	return err
}

// attempt logs in with creds and puts the token in place, unless the credentials are to be left
// alone.
func (a *actor) attempt(ctx context.Context, creds credentials, operator bool) error {
	if hold := a.held.of(creds); !operator && time.Now().Before(hold.until) {
		return hold.err
	}
	call, err := a.cfg.Breaker.Allow(breaker.Key{Group: keyGroup, Name: loginKey})
	if err != nil {
		return vault.Refused(err, doingLogin)
	}
	login, cancel := a.operation(ctx)
	defer cancel()
	granted, err := a.cfg.Budget.LogIn(login, a.cfg.Client, a.identity(creds, a.loggedIn && creds == a.current))
	a.cfg.Client.Settle(call, err, true)
	if err == nil {
		delete(a.held.byCredentials, creds)
		a.swap(ctx, granted, creds)
		return nil
	}
	a.log.Debug("Vault login failed", vault.DebugAttrs(err)...)
	switch {
	case errors.Is(err, vault.ErrLoginRejected):
		a.hold(creds, err)
	case vault.Outage(err):
		if refusal := a.cfg.Breaker.Check(breaker.Key{Group: keyGroup, Name: loginKey}); refusal != nil {
			return vault.Refused(refusal, "") // says when the breaker lets the next one through
		}
	}
	return err
}

// swap puts a new token in place, then revokes the old one, so that there is always one to read
// with.
func (a *actor) swap(ctx context.Context, granted *vault.Token, creds credentials) {
	if !a.loggedIn || creds.roleID != a.current.roleID {
		a.unprotect()
		a.unprotect = a.cfg.Budget.protect(a.role(creds))
	}
	if a.loggedIn && creds != a.current {
		a.log.Info("Vault accepts the new credentials, they are in use from now on")
	}
	old := a.token
	a.token, a.current, a.loggedIn, a.failure = granted, creds, true, nil
	if creds == a.newest {
		a.held.lastErr = nil
	}
	a.renewAt, a.loginAt = time.Time{}, time.Time{}
	switch at := upkeepAt(granted, granted.Granted); {
	case granted.TTL == 0:
	case granted.Renewable && !slices.Equal(granted.Policies, a.cannotRenew):
		a.renewAt = at
	default:
		a.loginAt = at
	}
	a.publish()
	a.lookUpSecretID(ctx, granted, creds)
	a.giveBack(ctx, old)
}

// upkeepAt returns when to renew or replace the token: at about two thirds of what is left of its
// life after from, with jitter.
func upkeepAt(t *vault.Token, from time.Time) time.Time {
	share := 0.63 + 0.07*rand.Float64() //nolint:gosec // jitter needs no secrecy
	return from.Add(max(time.Duration(share*float64(t.Expires().Sub(from))), minPause))
}

// giveBack revokes a replaced token beside the loop, on a goroutine that Close waits for.
func (a *actor) giveBack(ctx context.Context, old *vault.Token) {
	a.loops.Go(func() {
		if err := a.cfg.Client.Revoke(ctx, old); err != nil {
			a.log.Debug("cannot revoke a replaced token, it expires by itself", vault.DebugAttrs(err)...)
		}
	})
}

// renew renews the token. While the token lives and is renewable it is retried, whatever the logins
// beside it bring.
func (a *actor) renew(ctx context.Context) {
	now := time.Now()
	if !a.token.Valid(now) {
		a.renewAt, a.loginAt = time.Time{}, now
		return
	}
	call, err := a.cfg.Breaker.Allow(breaker.Key{Group: keyGroup, Name: renewKey})
	if err != nil {
		a.renewAt = earliest(now.Add(max(vault.RetryAfter(vault.Refused(err, doingRenew)), minPause)), a.token.Expires())
		return
	}
	renewal, cancel := a.operation(ctx)
	defer cancel()
	renewed, err := a.cfg.Client.Renew(renewal, a.token)
	a.cfg.Client.Settle(call, err, true)
	now = time.Now()
	switch {
	case err == nil:
		a.renewed(renewed, now)
	case errors.Is(err, vault.ErrInvalidToken):
		_ = a.replaceInvalid(ctx)
	case errors.Is(err, vault.ErrNotRenewable):
		a.log.Info("Vault does not renew the token, a login replaces it before it expires; "+
			"allow update on auth/token/renew-self to save logins", "policies", a.token.Policies)
		a.cannotRenew = a.token.Policies
		a.renewAt, a.loginAt = time.Time{}, upkeepAt(a.token, now)
	default:
		a.log.Debug("cannot renew the token", vault.DebugAttrs(err)...)
		a.renewAt = now.Add(max(a.token.Expires().Sub(now)/3, time.Second))
		if call, ok := errors.AsType[*vault.CallError](err); ok && call.Reach == vault.ReachPath && a.loginAt.IsZero() {
			a.loginAt = now // max_ttl may be over, or the role gone: Vault answers 500 to both
		}
	}
}

func (a *actor) renewed(token *vault.Token, now time.Time) {
	a.token, a.renewAt, a.loginAt, a.failure = token, upkeepAt(token, now), time.Time{}, nil
	if token.TTL*3 < token.FirstTTL*2 {
		a.loginAt = now // the end of the token's life is near
	}
	a.publish()
}

// publish makes the actor's state the Source's.
func (a *actor) publish() {
	next := &State{Token: a.token, LoggedIn: a.loggedIn, Problem: a.problem(), Failure: a.failure, retryAt: a.loginAt,
		credentials: a.current, replaced: make(chan struct{})}
	old := a.state.Swap(next)
	close(old.replaced)
	a.cfg.OnChange()
}
