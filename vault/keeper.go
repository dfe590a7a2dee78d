package vault

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

const (
	// rejectedPause is how long rejected credentials are left alone, unless an operator asks.
	rejectedPause = 5 * time.Minute
	// retryPause is how often a login is tried again that failed for no fault of Vault's or the credentials'.
	retryPause = 5 * time.Second
	// revokeTimeout bounds giving a replaced token back.
	revokeTimeout = 2 * time.Second
)

// keeper owns the token of a client. Its run goroutine is the only one that logs in, renews and publishes
// sessions; everybody else asks it.
type keeper struct {
	c        *Client
	log      *slog.Logger
	requests chan reloginRequest
	files    chan struct{} // capacity 1: the credential files may have changed
	woken    chan struct{} // capacity 1: the gate opened or closed

	// Owned by run.
	token        *token
	serial       uint64      // of the last token
	active       credentials // of the last successful login; zero before it
	newest       credentials // as last read from the files; active until Vault has accepted them
	probed       time.Time   // when the loop last asked Vault whether it is well again
	everLoggedIn bool
	unprotect    func()                    // gives up the part of the login budget that is kept for active
	rejected     error                     // the last rejection, until Vault accepts a login
	unreadable   error                     // why the credential files could not be read the last time
	rereadAt     time.Time                 // when to look at unreadable files again
	holds        map[credentials]rejection // credentials to leave alone: active and newest at most
	plan         plan                      // what is due next for the token
	rehearseFrom time.Time                 // when newer credentials may be tried again after an outage
	cannotRenew  []string                  // policies whose tokens may not renew themselves
	onInvalid    *rate.Limiter             // logins because of "invalid token" answers
	onDenied     *rate.Limiter             // logins because of denied reads
}

// plan is what is due next for the token, and when.
type plan struct {
	what step
	at   time.Time
}

type step int

const (
	doNothing step = iota
	doRenew
	doLogIn
)

// rejection says until when rejected credentials are left alone, and why.
type rejection struct {
	until time.Time
	err   error
}

// relogin asks for a new token.
type relogin struct {
	reason reason
	serial uint64 // of the token that did not do: another one in place is as good as a new login
}

type reason int

const (
	operatorAsks reason = iota
	tokenInvalid
	readDenied
)

type reloginRequest struct {
	relogin
	done chan error // capacity 1
}

func newKeeper(c *Client) *keeper {
	return &keeper{
		c: c, log: c.log,
		unprotect: func() {},
		requests:  make(chan reloginRequest),
		files:     make(chan struct{}, 1),
		woken:     make(chan struct{}, 1),
		holds:     map[credentials]rejection{},
		plan:      plan{what: doLogIn},
		onInvalid: rate.NewLimiter(rate.Every(10*time.Second), 3),
		onDenied:  rate.NewLimiter(rate.Every(time.Minute), 1),
	}
}

// wake and filesChanged may be called by anybody; they do not block.
func (k *keeper) wake()         { notify(k.woken) }
func (k *keeper) filesChanged() { notify(k.files) }

func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// ask hands a request to run and waits for its outcome.
func (k *keeper) ask(ctx context.Context, r relogin) error {
	request := reloginRequest{relogin: r, done: make(chan error, 1)}
	select {
	case k.requests <- request:
	case <-k.c.closed:
		return closedError(doingLogin)
	case <-ctx.Done():
		return k.c.pendingError(ctx)
	}
	select {
	case err := <-request.done:
		return err
	case <-k.c.closed:
		return closedError(doingLogin)
	case <-ctx.Done():
		return k.c.pendingError(ctx)
	}
}

// run is the login loop. It ends when loop does; calls outlives it, so that a login under way can end and its
// token be revoked.
func (k *keeper) run(loop, calls context.Context) {
	defer func() { k.unprotect() }()
	for {
		timer := time.NewTimer(time.Until(k.nextAt()))
		select {
		case <-loop.Done():
			timer.Stop()
			return
		case r := <-k.requests:
			r.done <- k.serve(calls, r.relogin)
		case <-k.files:
			k.readCredentials()
			k.rehearseFrom = time.Time{}
			if !k.everLoggedIn {
				k.plan.at = time.Now()
			}
			k.publish()
		case <-k.woken:
		case <-timer.C:
		}
		timer.Stop()
		if loop.Err() == nil {
			k.upkeep(calls)
		}
	}
}

// nextAt returns when something is due next.
func (k *keeper) nextAt() time.Time {
	next := time.Now().Add(24 * time.Hour)
	if k.plan.what != doNothing {
		next = minTime(next, k.plan.at)
	}
	if k.rehearsing() {
		next = minTime(next, k.rehearsalAt())
	}
	if k.unreadable != nil {
		next = minTime(next, k.rereadAt)
	}
	if slot := k.c.gate.nextSlot(); next.Before(slot) {
		next = slot
	}
	if at := k.idleProbeAt(); !at.IsZero() {
		next = minTime(next, at)
	}
	return next
}

// rehearsing reports whether there are newer credentials that Vault has not accepted yet.
func (k *keeper) rehearsing() bool { return k.everLoggedIn && k.newest != k.active }

// rehearsalAt returns when to try the newer credentials.
func (k *keeper) rehearsalAt() time.Time {
	if until := k.holds[k.newest].until; until.After(k.rehearseFrom) {
		return until
	}
	return k.rehearseFrom
}

// upkeep does what is due.
func (k *keeper) upkeep(ctx context.Context) {
	k.reread()
	k.probeIdle(ctx)
	if k.c.gate.admit(doingLogin) != nil {
		return
	}
	now := time.Now()
	if k.rehearsing() && !k.rehearsalAt().After(now) {
		k.rehearseFrom = now.Add(retryPause)
		_ = k.attempt(ctx, k.newest, false) // its outcome is in holds and in the state
		k.publish()
	}
	if k.plan.what == doNothing || k.plan.at.After(now) {
		return
	}
	if k.plan.what == doRenew && k.token.valid(now) {
		k.renew(ctx)
		return
	}
	k.plan.what = doLogIn
	_ = k.logIn(ctx, false) // likewise
}

// serve answers a request for a new token. It returns nil when there is a new one, or when the asker must do
// with what there is.
func (k *keeper) serve(ctx context.Context, r relogin) error {
	if r.reason == operatorAsks {
		k.cannotRenew = nil
		return k.logIn(ctx, true)
	}
	if k.token == nil || k.token.serial != r.serial {
		return nil
	}
	if r.reason == tokenInvalid {
		return k.replaceInvalid(ctx)
	}
	if !k.onDenied.Allow() {
		return nil
	}
	return k.logIn(ctx, false)
}

// replaceInvalid drops a token that Vault does not know, and logs in anew: at once, unless that was so often
// the case lately that something else is wrong.
func (k *keeper) replaceInvalid(ctx context.Context) error {
	k.token = nil
	k.plan = plan{what: doLogIn, at: time.Now().Add(k.onInvalid.Reserve().Delay())}
	k.publish()
	if k.plan.at.After(time.Now()) {
		return nil
	}
	return k.logIn(ctx, false)
}

// logIn logs in with the newest credentials, or with the active ones where Vault rejects the newest. When
// there is no new token the old one stays, and the next try is planned. An operator also learns that the
// newest were rejected, and does not wait for the end of a hold.
func (k *keeper) logIn(ctx context.Context, operator bool) error {
	defer k.publish()
	k.readCredentials()
	if k.unreadable != nil && !k.everLoggedIn {
		k.retryAt(time.Now().Add(retryPause))
		return k.unreadable
	}
	err := k.attempt(ctx, k.newest, operator)
	if k.rehearsing() && errors.Is(err, ErrLoginRejected) {
		activeErr := k.attempt(ctx, k.active, operator)
		if activeErr == nil && operator {
			return err
		}
		err = activeErr
	}
	switch {
	case errors.Is(err, ErrLoginRejected):
		k.retryAt(k.holds[k.active].until)
		if !k.everLoggedIn {
			k.retryAt(k.holds[k.newest].until)
		}
	case Outage(err):
		k.retryAt(time.Now().Add(minPause)) // and not before the gate lets it out
	case err != nil:
		k.retryAt(time.Now().Add(retryPause))
	}
	return err
}

// retryAt puts off a login that is due; other plans for the token stay.
func (k *keeper) retryAt(at time.Time) {
	if k.plan.what == doLogIn {
		k.plan.at = at
	}
}

// readCredentials reads the files anew. While they cannot be read, in the middle of a rotation perhaps, what was
// read before stays.
func (k *keeper) readCredentials() {
	newest, err := k.c.source.load()
	news := err != nil && remedyOf(err) != remedyOf(k.unreadable) // a file that is written in two steps may be empty first
	switch {
	case news && k.everLoggedIn:
		k.log.Warn("cannot read the Vault credentials, the last good ones stay in use", errorAttrs(err)...)
	case news:
		k.log.Warn("cannot read the Vault credentials, there is no login until they can be read", errorAttrs(err)...)
	case err == nil && k.unreadable != nil:
		k.log.Info("the Vault credentials can be read again")
	}
	k.unreadable = err
	if err != nil {
		k.rereadAt = time.Now().Add(retryPause)
		return
	}
	k.newest = newest
}

// reread looks at unreadable files again: nobody may tell of a change that the watch cannot see, of permissions
// for example.
func (k *keeper) reread() {
	if k.unreadable == nil || time.Now().Before(k.rereadAt) {
		return
	}
	k.readCredentials()
	k.publish()
}

// attempt logs in with creds and puts the token in place, unless they are to be left alone.
func (k *keeper) attempt(ctx context.Context, creds credentials, operator bool) error {
	if hold, ok := k.holds[creds]; ok && !operator && time.Now().Before(hold.until) {
		return hold.err
	}
	login, cancel := k.c.operation(ctx)
	defer cancel()
	granted, err := k.c.auth.logIn(login, creds, k.everLoggedIn && creds == k.active)
	if err == nil {
		delete(k.holds, creds)
		k.swap(ctx, granted, creds)
		return nil
	}
	k.log.Debug("Vault login failed", debugAttrs(err)...)
	if errors.Is(err, ErrLoginRejected) {
		k.hold(creds, err)
	}
	return err
}

// hold leaves rejected credentials alone for a while, and forgets those that nobody uses any more.
func (k *keeper) hold(creds credentials, err error) {
	pause := rejectedPause
	if call, ok := errors.AsType[*CallError](err); ok && call.RetryAfter > 0 {
		pause = call.RetryAfter
	}
	maps.DeleteFunc(k.holds, func(held credentials, _ rejection) bool { return held != k.active && held != k.newest })
	until := time.Now().Add(pause)
	k.rejected = untilNextTry(err, until)
	k.holds[creds] = rejection{until: until, err: k.rejected}
	k.c.onLoginRejected()
	k.log.Error("Vault rejects the login", append(errorAttrs(err), "next_try_in", pause.Round(time.Second))...)
}

// untilNextTry is a rejection as it is told while the credentials are left alone.
func untilNextTry(err error, until time.Time) error {
	call, ok := errors.AsType[*CallError](err)
	if !ok {
		return err
	}
	if call.RetryAfter > 0 {
		return err // the login budget is spent: it says until when, and nobody can do anything before
	}
	told := *call
	told.Remedy += "; the next try is at " + until.UTC().Format("15:04:05 MST") +
		", or at once: secret-sidecar invalidate --renew-login, which drops what is cached"
	return &told
}

// swap puts a new token in place, then gives the old one back.
func (k *keeper) swap(ctx context.Context, granted *token, creds credentials) {
	if !k.everLoggedIn || creds.roleID != k.active.roleID {
		k.unprotect()
		k.unprotect = k.c.auth.guard.protect(k.c.auth.target(creds.roleID))
	}
	if k.everLoggedIn && creds != k.active {
		k.log.Info("Vault accepts the new credentials, they are in use from now on")
	}
	old := k.token
	k.serial++
	granted.serial = k.serial
	k.token, k.active, k.everLoggedIn = granted, creds, true
	if creds == k.newest {
		k.rejected = nil
	}
	k.plan = plan{what: doLogIn, at: granted.upkeepAt(granted.granted)}
	switch {
	case granted.ttl == 0:
		k.plan.what = doNothing
	case granted.renewable && !slices.Equal(granted.policies, k.cannotRenew):
		k.plan.what = doRenew
	}
	k.publish()
	k.log.Debug("logged in to Vault", "token_ttl", granted.ttl)
	k.lookUpSecretID(ctx, granted, creds)
	k.retire(ctx, old)
}

// retire revokes a token that was replaced, besides the loop. A Read that still uses it finds it invalid, and
// the new one in place.
func (k *keeper) retire(ctx context.Context, old *token) {
	if !old.valid(time.Now()) || old.batch {
		return
	}
	k.c.loops.Go(func() {
		ctx, cancel := context.WithTimeoutCause(ctx, revokeTimeout, errOperationTimeout)
		defer cancel()
		if err := k.c.api.revoke(ctx, old); err != nil {
			k.log.Debug("cannot revoke a replaced token, it expires by itself", debugAttrs(err)...)
		}
	})
}

// renew renews the token, or plans the login that replaces it.
func (k *keeper) renew(ctx context.Context) {
	renewal, cancel := k.c.operation(ctx)
	defer cancel()
	renewed, err := k.c.api.renew(renewal, k.token)
	now := time.Now()
	switch {
	case errors.Is(err, errInvalidToken):
		_ = k.replaceInvalid(ctx)
		return
	case errors.Is(err, errPastRenewing):
		k.plan = plan{what: doLogIn, at: now}
		return
	case errors.Is(err, errNotRenewable):
		k.log.Info("Vault does not renew the token, a login replaces it before it expires; "+
			"allow update on auth/token/renew-self to save logins", "policies", k.token.policies)
		k.cannotRenew = k.token.policies
		k.plan = plan{what: doLogIn, at: k.token.upkeepAt(now)}
		return
	case Outage(err):
		k.plan.at = now.Add(minPause) // and not before the gate lets it out
		return
	case err != nil:
		k.plan.at = now.Add(retryPause)
		return
	}
	k.token = renewed
	k.plan = plan{what: doRenew, at: renewed.upkeepAt(now)}
	if renewed.cutShort() {
		k.plan = plan{what: doLogIn, at: now}
	}
	k.publish()
}

// publish makes the keeper's state the client's session.
func (k *keeper) publish() {
	next := newSession()
	next.token, next.active, next.everLoggedIn = k.token, k.active, k.everLoggedIn
	next.problem, next.hopeless = k.problems()
	old := k.c.session.Swap(next)
	close(old.replaced)
	k.c.status.wake()
}

// problems returns what is wrong with the newest credentials, and why there is no hope for a login at all. That
// Vault has rejected them weighs more than that their file cannot be read since.
func (k *keeper) problems() (problem, hopeless error) {
	newest, held := k.holds[k.newest]
	_, activeHeld := k.holds[k.active]
	switch {
	case k.unreadable != nil && !k.everLoggedIn:
		return k.unreadable, k.unreadable
	case held && k.rehearsing() && !activeHeld:
		return newest.err, nil
	case held:
		return newest.err, newest.err
	case k.rejected != nil && k.newest != k.active:
		return k.rejected, nil // newer ones are about to be tried: until Vault accepts them nothing is well
	}
	return k.unreadable, nil
}

func remedyOf(err error) string {
	if call, ok := errors.AsType[*CallError](err); ok {
		return call.Remedy
	}
	return ""
}

// errorAttrs are the log attributes of an error at info level and above.
func errorAttrs(err error) []any {
	attrs := []any{"error", err.Error()}
	if call, ok := errors.AsType[*CallError](err); ok && call.Remedy != "" {
		attrs = append(attrs, "remedy", call.Remedy)
	}
	return attrs
}

// debugAttrs are the log attributes of an error at debug level: with its cause.
func debugAttrs(err error) []any {
	attrs := errorAttrs(err)
	if call, ok := errors.AsType[*CallError](err); ok && call.Cause != nil {
		attrs = append(attrs, "cause", call.Cause.Error())
	}
	return attrs
}
