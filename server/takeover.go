package server

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// waiting is a session that has been opened for a connection whose login settings changed, and has
// not logged in yet. It reads nothing. The connection's session serves on meanwhile.
type waiting struct {
	*session
	before Connection // what was wanted of the connection until its login settings changed
	told   bool       // guarded by Server.applying: the log says that Vault rejects it
}

// unchanged returns the connection with its new settings and its old sessions, or nil where a
// session has to be opened. Settings that have come back to those of the session end the wait,
// settings that still wait do not begin it again.
func (c *connection) unchanged(wanted Connection) *connection {
	switch {
	case c == nil:
		return nil
	case c.session.config.Settings == wanted.Vault:
		return &connection{Connection: wanted, session: c.session, counters: c.counters}
	case c.waiting != nil && c.waiting.config.Settings == wanted.Vault:
		return &connection{Connection: wanted, session: c.session, counters: c.counters, waiting: c.waiting}
	}
	return nil
}

// succeededBy returns the connection with the new one's settings, whose session waits; without a
// connection it is the new one itself.
func (c *connection) succeededBy(next *connection) *connection {
	if c == nil {
		return next
	}
	before := c.Connection
	if c.waiting != nil {
		before = c.waiting.before
	}
	return &connection{
		Connection: next.Connection, session: c.session, counters: next.counters,
		waiting: &waiting{session: next.session, before: before},
	}
}

// takeOver lets those waiting sessions serve whose time has come. Every change of a session's
// status leads here.
func (s *Server) takeOver() {
	if !s.current.Load().waits() {
		return
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	s.takeOverWhereDue()
}

// takeOverWhereDue is takeOver with applying held. Apply calls it after it has shown a snapshot: a
// session may have logged in before that.
func (s *Server) takeOverWhereDue() {
	running := s.current.Load()
	next := *running
	next.connections = maps.Clone(running.connections)
	changed := false
	for name, c := range running.connections {
		switch {
		case c.waiting == nil:
		case c.successorIsDue():
			changed = true
			next.connections[name] = &connection{Connection: c.Connection, session: c.waiting.session, counters: c.counters}
			s.log.Info("a changed connection has taken over", "connection", name)
		default:
			s.logRejection(name, c.waiting)
		}
	}
	if changed {
		s.replace(&next)
	}
}

// waits reports whether a session waits to take over.
func (s *snapshot) waits() bool {
	for _, c := range s.connections {
		if c.waiting != nil {
			return true
		}
	}
	return false
}

// successorIsDue reports whether the waiting session has logged in, or has nothing to wait for.
func (c *connection) successorIsDue() bool {
	return c.waiting.client.Status().TokenValid || !c.session.serves()
}

// serves reports whether the session can answer anything: with its token, or, when that has ended
// in an outage, with what it has cached.
func (s *session) serves() bool {
	status := s.client.Status()
	return status.TokenValid || s.hasLoggedIn.Load() && status.State != conn.StateRejected
}

// logWaiting logs which of the sessions just opened do not serve yet. applying must be held.
func (s *Server) logWaiting(opened []*session) {
	for name, c := range s.current.Load().connections {
		if c.waiting != nil && slices.Contains(opened, c.waiting.session) {
			s.log.Info("a changed connection is logging in, its old settings serve until then", "connection", name)
		}
	}
}

// logRejection logs once that a change does not take effect. That Vault rejects the login, and when
// it is asked again, has a line of its own.
func (s *Server) logRejection(name string, w *waiting) {
	status := w.client.Status()
	if w.told || status.State != conn.StateRejected {
		return
	}
	w.told = true
	s.log.Error("Vault rejects the changed settings of a connection, the old ones stay in use",
		append([]any{"connection", name}, vault.Attrs(status.LastError)...)...)
}

// status is the session's, and says what keeps a successor waiting: a person has to know, though
// all goes on.
func (c *connection) status() conn.Status {
	status := c.client.Status()
	if c.waiting == nil {
		return status
	}
	next := c.waiting.client.Status()
	if next.State == conn.StateRejected {
		status.State, status.Since = next.State, next.Since
	}
	if next.LastError != nil {
		status.LastError = notInUse(next.LastError)
	}
	return status
}

// notInUse says that a waiting session does not serve yet, and why; nil is that its login is under
// way.
func notInUse(failure error) *problem {
	p := *problemOf(cmp.Or(failure, vault.ErrLoginPending))
	p.message = "the connection's changed settings are not in use yet, the old ones are: " + p.message
	return &p
}

// renewLogin renews the login of the successor, if one waits: it has the newest credentials. Where
// that fails the session's own is renewed, and the failure returned all the same.
func (c *connection) renewLogin(ctx context.Context) error {
	if c.waiting == nil || !c.waiting.acquire() {
		return c.client.RenewLogin(ctx)
	}
	defer c.waiting.release()
	failure := c.waiting.client.RenewLogin(ctx)
	if failure == nil {
		return nil // it takes over
	}
	_ = c.client.RenewLogin(ctx) // the status shows what becomes of it
	return notInUse(failure)
}

// warnOfWaiting adds to the test of the settings in use that newer ones are not.
func (c *connection) warnOfWaiting(report *conn.Report) {
	if c.waiting == nil {
		return
	}
	i := slices.IndexFunc(report.Checks, func(check conn.Check) bool { return check.Name == "login" && check.Status == conn.CheckPassed })
	if i < 0 {
		return
	}
	check := &report.Checks[i]
	check.Status = conn.CheckWarning
	check.Message += "; but " + notInUse(c.waiting.client.Status().LastError).message
	check.Remedy = "see the connection's last error, and mend its settings"
}
