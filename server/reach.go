package server

import (
	"slices"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// admits reports whether the rule lets the caller use the connection by the method, for one project
// at least. A connection that no rule admits is not there for the caller.
func (r *CallerRule) admits(caller unixsocket.Peer, method string, c *connection) bool {
	if !r.matches(caller) || !r.covers(access{method: method, connection: c.Name}) {
		return false
	}
	if len(r.Projects) == 0 {
		return true
	}
	isMeant := carriesProject(method) || slices.Contains(r.Methods, method)
	return isMeant && slices.ContainsFunc(r.Projects, c.isFor)
}

// isVisible reports whether the connection is there for the caller, by the method.
func (s *snapshot) isVisible(caller unixsocket.Peer, method string, c *connection) bool {
	if s.callers == nil {
		return true
	}
	for i := range s.callers {
		if s.callers[i].admits(caller, method, c) {
			return true
		}
	}
	return false
}

// mayKnow reports whether the caller may learn whether there is a connection of this name.
func (s *snapshot) mayKnow(caller unixsocket.Peer, name string) bool {
	if s.callers == nil {
		return true
	}
	c := s.connections[name]
	return slices.ContainsFunc(s.callers, func(r CallerRule) bool {
		if !r.matches(caller) || len(r.Connections) > 0 && !slices.Contains(r.Connections, name) {
			return false
		}
		return len(r.Projects) == 0 || c != nil && slices.ContainsFunc(r.Projects, c.isFor)
	})
}

// visible returns the connections that are there for the caller, by name.
func (s *snapshot) visible(caller unixsocket.Peer, method string) []*connection {
	return slices.DeleteFunc(s.sorted(), func(c *connection) bool {
		return !s.isVisible(caller, method, c)
	})
}

// reach is what a caller may touch on a connection by a method whose requests carry no project:
// what it could read there for the projects that it may name.
type reach struct {
	connection *connection
	rules      []*CallerRule // that admit the caller
}

// everybody is the rule where there are none.
var everybody = &CallerRule{}

// reachOfAll is the reach of who may touch everything.
func reachOfAll(c *connection) reach { return reach{c, []*CallerRule{everybody}} }

// isUnlimited reports whether a rule lets the caller touch everything on every connection.
func (s *snapshot) isUnlimited(caller unixsocket.Peer, method string) bool {
	return s.callers == nil || slices.ContainsFunc(s.callers, func(r CallerRule) bool {
		return r.matches(caller) && r.covers(access{method: method, connection: anyConnection}) &&
			!r.isLimited()
	})
}

func (s *snapshot) reachOf(caller unixsocket.Peer, method string, c *connection) reach {
	if s.callers == nil {
		return reachOfAll(c)
	}
	r := reach{connection: c}
	for i := range s.callers {
		if rule := &s.callers[i]; rule.admits(caller, method, c) {
			r.rules = append(r.rules, rule)
		}
	}
	return r
}

// includes reports whether the caller could read the target.
func (r reach) includes(t target) bool {
	return slices.ContainsFunc(r.rules, func(rule *CallerRule) bool {
		return rule.reads(r.connection, t)
	})
}

// mayDropAll reports whether the caller may drop whatever the connection has cached: no rule limits
// it, or every project may read everything.
func (r reach) mayDropAll() bool {
	isOpen := len(r.connection.Paths) == 0 && r.connection.waiting == nil
	return slices.ContainsFunc(r.rules, func(rule *CallerRule) bool {
		return !rule.isLimited() || len(rule.Paths) == 0 && isOpen
	})
}

// mayDrop reports whether the caller may drop the secret: it could read one of its keys.
func (r reach) mayDrop(secret string) bool {
	return r.mayDropAll() || r.includes(target{secret: secret, anyKey: true})
}

// refusal is the error of a target that is not included. It is the same whatever Vault has there.
func (r reach) refusal(caller unixsocket.Peer) *problem {
	hasNoPaths := func(rule *CallerRule) bool { return len(rule.Paths) == 0 }
	if slices.ContainsFunc(r.rules, hasNoPaths) {
		return errConnectionsPath(r.connection.Name)
	}
	return errCallersPath(caller)
}

// mayRenewLogin reports whether the caller may renew the login. One of certain projects or paths
// may not where others depend on it, unless its rule says so.
func (r reach) mayRenewLogin() bool {
	return slices.ContainsFunc(r.rules, func(rule *CallerRule) bool {
		return !rule.isLimited() || rule.owns(r.connection) ||
			slices.Contains(rule.Methods, methodRenewLogin)
	})
}

// projectIDs are those of the connection that the caller may know.
func (r reach) projectIDs() []string {
	return slices.DeleteFunc(slices.Clone(r.connection.ProjectIDs), func(id string) bool {
		return !slices.ContainsFunc(r.rules, func(rule *CallerRule) bool {
			return len(rule.Projects) == 0 || slices.Contains(rule.Projects, id)
		})
	})
}

// isLimited reports whether the rule is of certain projects or paths.
func (r *CallerRule) isLimited() bool { return len(r.Projects) > 0 || len(r.Paths) > 0 }

// owns reports whether the connection is of the rule's projects alone.
func (r *CallerRule) owns(c *connection) bool {
	isForeign := func(id string) bool { return !slices.Contains(r.Projects, id) }
	return c.Scope == ScopeProject && len(r.Paths) == 0 &&
		!slices.ContainsFunc(c.ProjectIDs, isForeign)
}

// reads reports whether the rule lets its callers read the target on the connection, for one project
// at least.
func (r *CallerRule) reads(c *connection, t target) bool {
	return slices.ContainsFunc(r.projectsFor(c, t), func(project string) bool {
		return covers(r.Paths, t, project) && c.gives(project, t)
	})
}

// projectsFor returns the projects that may be named, of which no other one could read the target
// where these cannot.
func (r *CallerRule) projectsFor(c *connection, t target) []string {
	switch {
	case len(r.Projects) > 0:
		return r.Projects
	case c.Scope == ScopeProject:
		return c.ProjectIDs
	}
	projects := []string{""}
	for _, p := range slices.Concat(r.Paths, c.Paths) {
		if project, ok := p.projectIn(t); ok {
			projects = append(projects, project)
		}
	}
	return projects
}
