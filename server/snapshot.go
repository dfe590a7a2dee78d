package server

import (
	"cmp"
	"slices"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// snapshot is the running settings: immutable, taken once by each request.
type snapshot struct {
	connections map[string]*connection
	callers     []CallerRule // nil: no rules
	limits      CallerLimits
	// testHosts are where a TestConnection with a spec may connect to; nil is anywhere.
	testHosts    []string
	noReflection bool
}

// find returns the connection that a request names; an empty name is the only one there is.
func (s *snapshot) find(name string) (*connection, error) {
	if name == "" {
		return s.only()
	}
	c, ok := s.connections[name]
	if !ok {
		return nil, errConnectionNotFound(name)
	}
	return c, nil
}

func (s *snapshot) only() (*connection, error) {
	if len(s.connections) != 1 {
		return nil, errConnectionRequired(len(s.connections))
	}
	for _, c := range s.connections {
		return c, nil
	}
	panic("unreachable")
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

// sessions returns those in use, the waiting ones included, with the timeout that is wanted of them.
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
