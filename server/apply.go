package server

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// ErrStopped is returned by Apply after Serve has begun to stop.
var ErrStopped = errors.New("the server is stopping")

// Apply makes settings the running ones, without dropping a request. A connection whose login settings are
// unchanged keeps its token and its cached secrets. One whose login settings changed logs in before it takes
// over: when it cannot while its predecessor can, Apply changes nothing and returns an error that says which
// and why. New connections log in on their own, after Apply has returned.
func (s *Server) Apply(ctx context.Context, settings Settings) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.stopped {
		return ErrStopped
	}
	before := s.current.Load()
	next, opened, err := s.openSnapshot(settings, before)
	if err == nil {
		err = waitForSuccessors(ctx, before, next)
	}
	if err != nil {
		for _, one := range opened {
			one.release()
		}
		return err
	}
	s.cache.SetMaxBytes(settings.CacheBytes)
	s.show(next)
	for _, c := range before.connections {
		if !next.holds(c.session) {
			c.release()
		}
	}
	s.forgetHealth(before, next)
	s.reportHealth()
	return nil
}

// openSnapshot builds the next snapshot and returns the sessions that it opened. Their goroutines that close
// them are already waiting, so releasing one is enough to undo it.
func (s *Server) openSnapshot(settings Settings, before *snapshot) (*snapshot, []*session, error) {
	next := &snapshot{
		connections: make(map[string]*connection, len(settings.Connections)), callers: settings.Callers,
		limits: settings.CallerLimits, testHosts: settings.TestHosts, noReflection: settings.NoReflection,
	}
	var opened []*session
	for _, wanted := range settings.Connections {
		if wanted.Scope != ScopePlatform && wanted.Scope != ScopeProject {
			return nil, opened, fmt.Errorf("connection %q has no scope", wanted.Name)
		}
		if _, twice := next.connections[wanted.Name]; twice {
			return nil, opened, fmt.Errorf("two connections are called %q", wanted.Name)
		}
		if old, ok := before.connections[wanted.Name]; ok && sameVault(old.session.config, wanted.Vault) {
			next.connections[wanted.Name] = &connection{Connection: wanted, session: old.session, tally: old.tally}
			continue
		}
		counts := s.tallyFor(wanted.Name)
		one, err := s.openSession(wanted, counts)
		if err != nil {
			return nil, opened, fmt.Errorf("connection %q: %w", wanted.Name, err)
		}
		opened = append(opened, one)
		next.connections[wanted.Name] = &connection{Connection: wanted, session: one, tally: counts}
	}
	return next, opened, nil
}

// tallyFor returns the connection's tally, which goes on when a connection changes, or leaves and comes back.
func (s *Server) tallyFor(name string) *tally {
	counts := s.tallies[name]
	if counts == nil {
		counts = &tally{connection: name}
		s.tallies[name] = counts
	}
	return counts
}

func (s *Server) openSession(wanted Connection, counts *tally) (*session, error) {
	config := wanted.Vault
	config.Logger = s.log
	config.Budget = s.budget
	config.OnChange = s.reportHealth
	config.OnLoginRejected = func() { counts.loginRejections.Add(1) }
	recorder := s.instruments.recorder(wanted.Name, wanted.Vault.Address)
	if recorder != nil {
		config.OnCall = recorder.call
	}
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

// waitForSuccessors waits, side by side, until every connection that replaces a working one has logged in.
func waitForSuccessors(ctx context.Context, before, next *snapshot) error {
	var group sync.WaitGroup
	var failures = make([]error, len(next.connections))
	i := 0
	for name, successor := range next.connections {
		old, ok := before.connections[name]
		if !ok || old.session == successor.session || !old.client.Status().TokenValid {
			continue
		}
		slot := &failures[i]
		i++
		group.Go(func() { *slot = waitForLogin(ctx, successor) })
	}
	group.Wait()
	return errors.Join(failures...)
}

func waitForLogin(ctx context.Context, c *connection) error {
	ctx, cancel := context.WithTimeout(ctx, c.loginTimeout())
	defer cancel()
	err := c.client.WaitReady(ctx)
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		if last := c.client.Status().LastError; last != nil {
			err = last
		}
	}
	p := problemOf(err)
	return fmt.Errorf("connection %q cannot log in with its new settings, the old ones stay: %s: %s", c.Name, p.reason, p.message)
}
