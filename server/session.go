package server

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
	"github.com/secret-sidecar/secret-sidecar/internal/leak"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
)

// snapshot is the running settings: immutable, taken once by each request.
type snapshot struct {
	connections map[string]*connection
	aliases     map[string]string // the name that each stands for
	callers     []CallerRule      // nil: no rules
	limits      CallerLimits
	// testHosts are where a TestConnection with a spec may connect to; nil is anywhere.
	testHosts    []string
	noReflection bool
	leaks        *leak.Register // of what was given out; nil: nobody may scan for it
}

// authorized returns the connection that the caller wants to use, if it may. One that is not visible
// to the caller is answered like one that does not exist.
func (s *snapshot) authorized(caller unixsocket.Peer, want access) (*connection, error) {
	c, findErr := s.find(caller, want)
	want.connection = want.asked
	switch {
	case findErr == nil:
		want.connection = c.Name
	case want.asked == "" && s.allowsSome(caller, want):
		return nil, findErr
	}
	if err := authorize(s.callers, caller, want); err != nil {
		return nil, err
	}
	return c, findErr
}

// find returns the connection that a request names; an empty name is the only one there is.
func (s *snapshot) find(caller unixsocket.Peer, want access) (*connection, error) {
	if want.asked == "" {
		return s.only(caller, want.method)
	}
	c := s.named(want.asked)
	if c == nil || !s.isVisible(caller, want.method, c) {
		return nil, errConnectionNotFound(want.asked)
	}
	return c, nil
}

// named returns the connection of a name or an alias; nil is none.
func (s *snapshot) named(name string) *connection {
	if canonical, ok := s.aliases[name]; ok {
		name = canonical
	}
	return s.connections[name]
}

func (s *snapshot) only(caller unixsocket.Peer, method string) (*connection, error) {
	if len(s.connections) != 1 {
		return nil, errConnectionRequired(len(s.visible(caller, method)))
	}
	for _, c := range s.connections {
		if s.isVisible(caller, method, c) {
			return c, nil
		}
	}
	return nil, errConnectionRequired(0)
}

// allowsSome reports whether the caller may do what it wants on at least one connection.
func (s *snapshot) allowsSome(caller unixsocket.Peer, want access) bool {
	for name := range s.connections {
		want.connection = name
		if authorize(s.callers, caller, want) == nil {
			return true
		}
	}
	return false
}

// sorted returns the connections by name.
func (s *snapshot) sorted() []*connection {
	all := make([]*connection, 0, len(s.connections))
	for _, c := range s.connections {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *connection) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// sessions returns those in use, the waiting ones included, with the timeout that is wanted of
// them.
func (s *snapshot) sessions() map[*session]time.Duration {
	all := make(map[*session]time.Duration, len(s.connections))
	for _, c := range s.connections {
		all[c.session] = c.Timeout
		if c.waiting != nil {
			all[c.waiting.session] = c.Timeout
		}
	}
	return all
}

// session is one login to one Vault with the cached secrets read through it. It outlives a reload
// that leaves its login settings alone, and ends after the last request that uses it.
type session struct {
	client *conn.Connection
	config conn.Config
	// space is the session's part of the cache. It is never used again: a connection that comes
	// back with other credentials starts with nothing cached.
	space string
	// admit and load are the client's, as the cache calls them. They and the next are made once,
	// and not for each request.
	admit func(key cache.Key) error
	load  func(ctx context.Context, key cache.Key) (*vault.Secret, error)
	// joined and refreshing add to the connection's counters.
	joined     func(waiter, load context.Context)
	refreshing func()
	recorder   *recorder // nil: no metrics
	// users counts the requests in progress, plus one while a snapshot holds the session.
	users atomic.Int64
	// retired is closed by retire: when users reaches zero, or when the server stops. The client is
	// closed then.
	retired chan struct{}
	once    sync.Once // guards the closing of retired
	// hasLoggedIn is set at the first sight of a valid token and never unset.
	hasLoggedIn atomic.Bool
}

// acquire keeps the session open until release. It reports false when the session has already
// ended.
func (s *session) acquire() bool {
	for {
		users := s.users.Load()
		if users == 0 {
			return false
		}
		if s.users.CompareAndSwap(users, users+1) {
			return true
		}
	}
}

func (s *session) release() {
	if s.users.Add(-1) == 0 {
		s.retire()
	}
}

// retire ends the session whoever still uses it.
func (s *session) retire() { s.once.Do(func() { close(s.retired) }) }

// close ends the login; call it after retired is closed, or at shutdown when no request runs any
// more.
func (s *session) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, vault.RevokeTimeout)
	defer cancel()
	return s.client.Close(ctx)
}

// connection is a Connection of the running settings with its session.
type connection struct {
	Connection
	*session
	counters *counters // goes on from session to session
	waiting  *waiting  // the session's successor; nil is none
}
