package login

import (
	"errors"
	"maps"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

// rejectedPause is how long rejected credentials are left alone, unless an operator asks.
const rejectedPause = 5 * time.Minute

// rejection says until when rejected credentials are left alone, and why.
type rejection struct {
	until time.Time
	err   error
}

// holds records the rejected credentials: at most the current and the newest.
type holds struct {
	byCredentials map[credentials]rejection
	// lastErr is the last rejection, until Vault accepts the newest credentials.
	lastErr error
}

// of returns the hold on the credentials; the zero rejection means none.
func (h *holds) of(creds credentials) rejection { return h.byCredentials[creds] }

// takeUpFiles reads credential files that may have changed, and makes a login with what they hold
// due.
func (a *actor) takeUpFiles() {
	before := a.newest
	a.readCredentials()
	a.rehearseFrom = time.Time{}
	if a.newest != before {
		a.failure = nil // it was that of other credentials
	}
	if now := time.Now(); !a.loggedIn || a.newest != before && !a.token.Valid(now) {
		a.loginAt = now
	}
	a.publish()
}

// readCredentials reads the files again. While they cannot be read, perhaps in mid-rotation, the
// last content stays.
func (a *actor) readCredentials() {
	newest, err := loadCredentials(a.cfg.RoleID, a.cfg.SecretID)
	news := err != nil && (a.unreadable == nil || remedyOf(err) != remedyOf(a.unreadable)) // a file that is written in two steps may be empty first
	switch {
	case news && a.loggedIn:
		a.log.Warn("cannot read the Vault credentials, the last good ones stay in use", vault.Attrs(err)...)
	case news:
		a.log.Warn("cannot read the Vault credentials, there is no login until they can be read", vault.Attrs(err)...)
	case err == nil && a.unreadable != nil:
		a.log.Info("the Vault credentials can be read again")
	}
	a.unreadable = err
	if err != nil {
		a.rereadAt = time.Now().Add(retryPause)
		return
	}
	a.newest = newest
}

func remedyOf(err error) string {
	if call, ok := errors.AsType[*vault.CallError](err); ok {
		return call.Remedy
	}
	return ""
}

// rehearsing reports whether there are newer credentials that Vault has not accepted yet.
func (a *actor) rehearsing() bool { return a.loggedIn && a.newest != a.current }

// rehearsalAt returns when to try the newer credentials; the zero time means at once.
func (a *actor) rehearsalAt() time.Time {
	if until := a.held.of(a.newest).until; until.After(a.rehearseFrom) {
		return until
	}
	return a.rehearseFrom
}

// nextTry returns when the hold on the credentials of the next login ends.
func (a *actor) nextTry() time.Time {
	if a.loggedIn {
		return a.held.of(a.current).until
	}
	return a.held.of(a.newest).until
}

// hold leaves rejected credentials alone for a while, and forgets those that are no longer used.
func (a *actor) hold(creds credentials, err error) {
	pause := rejectedPause
	if call, ok := errors.AsType[*vault.CallError](err); ok && call.RetryAfter > 0 {
		pause = call.RetryAfter
	}
	until := time.Now().Add(pause)
	maps.DeleteFunc(a.held.byCredentials, func(held credentials, _ rejection) bool { return held != a.current && held != a.newest })
	a.held.lastErr = a.untilNextTry(err, until)
	a.held.byCredentials[creds] = rejection{until: until, err: a.held.lastErr}
	a.cfg.OnRejected()
	a.log.Error("Vault rejects the login", append(vault.Attrs(err), "next_try_in", pause.Round(time.Second))...)
}

// untilNextTry is a rejection as callers see it while the credentials are left alone.
func (a *actor) untilNextTry(err error, until time.Time) error {
	call, ok := errors.AsType[*vault.CallError](err)
	if !ok || call.RetryAfter > 0 {
		return err // the Budget is spent: the error says until when, and nobody can change that
	}
	told := *call
	told.Remedy += "; the next try is at " + until.UTC().Format("15:04:05 MST") + ", or at once: secret-sidecar invalidate --connection " +
		a.cfg.Connection + " --renew-login, which drops what the connection has cached"
	return &told
}

// problem returns what is wrong with the newest credentials. A rejection by Vault matters more than
// a file that became unreadable since.
func (a *actor) problem() error {
	if hold, ok := a.held.byCredentials[a.newest]; ok {
		return hold.err
	}
	if a.unreadable != nil && !a.loggedIn {
		return a.unreadable
	}
	if a.held.lastErr != nil && a.newest != a.current {
		return a.held.lastErr // newer ones are about to be tried; until Vault accepts them the problem stays
	}
	return a.unreadable
}
