package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// ErrStopped is returned by Apply after Serve has begun to stop.
var ErrStopped = errors.New("the server is stopping")

// Apply makes settings the running ones, without dropping a request. It never waits for Vault. A
// connection whose login settings are unchanged keeps its token and its cached secrets, and reads
// its credential and TLS files anew. One whose login settings changed serves on as it was until its
// successor has logged in, however long that takes: see takeOver. Everything else counts from here
// on. New connections log in on their own. An error is a mistake in settings, or ErrStopped, and
// means that nothing has changed.
func (s *Server) Apply(settings Settings) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.stopped {
		return ErrStopped
	}
	before := s.current.Load()
	next, opened, err := s.openSnapshot(settings, before)
	if err != nil {
		for _, one := range opened {
			one.release()
		}
		return err
	}
	s.cache.SetMaxBytes(settings.CacheBytes)
	s.replace(next)
	next.refresh(before)
	s.takeOverWhereDue()
	s.logWaiting(opened)
	s.forgetHealth(before, next)
	s.reportHealth()
	s.admission.Reload()
	s.health.wake() // the rules may have changed
	return nil
}

// replace makes next the running snapshot, and lets go of the sessions that are not in it any more.
// applying must be held.
func (s *Server) replace(next *snapshot) {
	before := s.current.Load()
	s.show(next)
	kept := next.sessions()
	for one := range before.sessions() {
		if _, ok := kept[one]; !ok {
			one.release()
		}
	}
}

// openSnapshot builds the next snapshot and returns the sessions that it opened. Their goroutines
// that close them are already waiting, so releasing one is enough to undo it.
func (s *Server) openSnapshot(settings Settings, before *snapshot) (*snapshot, []*session, error) {
	next := &snapshot{
		connections: make(map[string]*connection, len(settings.Connections)), aliases: map[string]string{},
		limits: settings.CallerLimits, testHosts: settings.TestHosts, noReflection: settings.NoReflection,
		leaks: before.leaksFor(settings.Scan),
	}
	var opened []*session
	for _, wanted := range settings.Connections {
		if err := next.check(wanted); err != nil {
			return nil, opened, err
		}
		for _, alias := range wanted.Aliases {
			next.aliases[alias] = wanted.Name
		}
		old := before.connections[wanted.Name]
		if one := old.unchanged(wanted); one != nil {
			next.connections[wanted.Name] = one
			continue
		}
		counts := s.countersFor(wanted.Name)
		one, err := s.openSession(wanted, counts)
		if err != nil {
			return nil, opened, fmt.Errorf("connection %q: %w", wanted.Name, err)
		}
		opened = append(opened, one)
		next.connections[wanted.Name] = old.succeededBy(&connection{Connection: wanted, session: one, counters: counts})
	}
	next.callers = next.byName(settings.Callers)
	return next, opened, nil
}

// byName returns the rules with the names of connections in the place of aliases.
func (s *snapshot) byName(rules []CallerRule) []CallerRule {
	rules = slices.Clone(rules)
	for i := range rules {
		names := slices.Clone(rules[i].Connections)
		for j, name := range names {
			names[j] = cmp.Or(s.aliases[name], name)
		}
		rules[i].Connections = names
	}
	return rules
}

// check finds the mistakes in a connection that opening it does not, for it may be open.
func (s *snapshot) check(wanted Connection) error {
	if wanted.Scope != ScopePlatform && wanted.Scope != ScopeProject {
		return fmt.Errorf("connection %q has no scope", wanted.Name)
	}
	if wanted.Timeout < 0 {
		return fmt.Errorf("connection %q: timeout: it cannot be negative", wanted.Name)
	}
	names := append([]string{wanted.Name}, wanted.Aliases...)
	for i, name := range names {
		if s.named(name) != nil || slices.Contains(names[:i], name) {
			return fmt.Errorf("two connections are called %q, or one is twice", name)
		}
	}
	return nil
}

// refresh gives the sessions that were there before their new timeout, and makes them look at their
// files.
func (s *snapshot) refresh(before *snapshot) {
	kept := before.sessions()
	for one, timeout := range s.sessions() {
		if _, ok := kept[one]; ok {
			one.client.SetTimeout(timeout)
			one.client.Reload()
		}
	}
}

// countersFor returns the connection's counters. They go on when a connection changes, or leaves
// and comes back.
func (s *Server) countersFor(name string) *counters {
	counts := s.counters[name]
	if counts == nil {
		counts = &counters{connection: name}
		s.counters[name] = counts
	}
	return counts
}

func (s *Server) openSession(wanted Connection, counts *counters) (*session, error) {
	config := conn.Config{
		Settings: wanted.Vault, Name: wanted.Name, Timeout: wanted.Timeout, Logger: s.log, Budget: s.budget,
		OnChange: s.sessionChanged, OnLoginRejected: func() { counts.loginRejections.Add(1) },
	}
	recorder := s.instruments.recorder(wanted.Name, wanted.Vault.Address)
	if recorder != nil {
		config.OnCall = recorder.call
	}
	config.Memory = s.readMemory
	config.Tracer, config.TracePaths, config.LookUpSecretID = s.tracer, s.tracePaths, s.instruments != nil
	config.SpanAttributes = append(serverAttributes(wanted.Vault.Address), named(wanted.Name))
	client, err := conn.Open(config)
	if err != nil {
		return nil, err
	}
	s.spaces++
	one := &session{
		client: client,
		config: config,
		space:  fmt.Sprintf("%s#%d", wanted.Name, s.spaces),
		admit:  func(key cache.Key) error { return client.Admit(key.Name) },
		load: func(ctx context.Context, key cache.Key) (*vault.Secret, error) {
			return client.Read(ctx, key.Name, key.Version)
		},
		joined: func(waiter, load context.Context) {
			counts.coalesced.Add(1)
			vault.JoinCaller(waiter, load)
		},
		refreshing: func() { counts.refreshes.Add(1) },
		recorder:   recorder,
		retired:    make(chan struct{}),
	}
	one.users.Store(1)
	s.closing.Go(func() { s.closeWhenRetired(one) })
	return one, nil
}

// closeWhenRetired ends the session after its last request, and drops what it cached.
func (s *Server) closeWhenRetired(one *session) {
	<-one.retired
	if err := one.close(context.Background()); err != nil {
		s.log.Warn("a connection did not close cleanly: its token lives on until it expires",
			"connection", one.config.Name, "error", err)
	}
	s.cache.DropSpace(one.space)
}
