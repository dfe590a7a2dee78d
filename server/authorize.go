package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// The methods that caller rules can name.
const (
	methodResolve        = "Resolve"
	methodBatchResolve   = "BatchResolve"
	methodTestConnection = "TestConnection"
	// TestConnection with a spec makes the sidecar connect to an address of the caller's choice: it
	// is a method of its own, which only a rule that names it allows, whatever connections and
	// projects the rule is about.
	methodTestConnectionSpec = "TestConnectionSpec"
	methodInvalidate         = "Invalidate"
	methodListConnections    = "ListConnections"
)

// apiMethods are the methods as gRPC calls them.
var apiMethods = []string{
	methodResolve, methodBatchResolve, methodTestConnection, methodInvalidate, methodListConnections,
}

// callerOf returns the process that sent the request.
func callerOf(ctx context.Context) (unixsocket.Peer, error) {
	caller, ok := unixsocket.PeerOf(ctx)
	if !ok {
		return unixsocket.Peer{}, errUnknownCaller()
	}
	return caller, nil
}

// access is what a request wants to do.
type access struct {
	method string
	// connection is the name asked for; anyConnection for all of them at once, or for a Vault that
	// is not configured.
	connection string
	// unnamed says that the request left the connection's name empty, which then is no business of
	// a refused caller's.
	unnamed bool
	// project is the request's project_id. Only Resolve and BatchResolve carry one.
	project string
}

// anyConnection is no valid connection name, so only a rule that allows every connection covers it.
const anyConnection = "*"

// authorize decides who may ask: nil, or the reason why not. Rules nil means that the socket's
// permissions are the only door. Root is no exception.
func authorize(rules []CallerRule, caller unixsocket.Peer, want access) error {
	if rules == nil {
		return nil
	}
	projectIsTheObstacle := false
	for _, rule := range rules {
		if !rule.matches(caller) || !rule.covers(want) {
			continue
		}
		if rule.allowsProject(want) {
			return nil
		}
		projectIsTheObstacle = true
	}
	switch {
	case !projectIsTheObstacle || !carriesProject(want.method):
		return errCallerNotAllowed(caller, want)
	case want.project == "":
		return errProjectRequired(fmt.Sprintf("uid %d may ask for certain projects only: set project_id", caller.UID))
	default:
		return errProjectNotAllowed(fmt.Sprintf("uid %d may not ask for this project: add it to the caller's rule", caller.UID))
	}
}

func (r CallerRule) matches(caller unixsocket.Peer) bool {
	switch {
	case r.UID == nil && r.GID == nil:
		return false
	case r.UID != nil && *r.UID != caller.UID:
		return false
	case r.GID != nil && !caller.InGroup(*r.GID):
		return false
	}
	return true
}

// isListed reports whether a rule is about the caller, whatever it allows.
func isListed(rules []CallerRule, caller unixsocket.Peer) bool {
	return rules == nil || slices.ContainsFunc(rules, func(r CallerRule) bool { return r.matches(caller) })
}

// mayKnow reports whether the caller may learn that the connection exists.
func mayKnow(rules []CallerRule, caller unixsocket.Peer, connection string) bool {
	return rules == nil || slices.ContainsFunc(rules, func(r CallerRule) bool {
		return r.matches(caller) && (len(r.Connections) == 0 || slices.Contains(r.Connections, connection))
	})
}

func (r CallerRule) covers(want access) bool {
	if want.method == methodTestConnectionSpec {
		return slices.Contains(r.Methods, want.method)
	}
	return (len(r.Methods) == 0 || slices.Contains(r.Methods, want.method)) &&
		(len(r.Connections) == 0 || slices.Contains(r.Connections, want.connection))
}

func (r CallerRule) allowsProject(want access) bool {
	switch {
	case len(r.Projects) == 0:
		return true
	case carriesProject(want.method):
		return slices.Contains(r.Projects, want.project)
	default:
		return slices.Contains(r.Methods, want.method)
	}
}

func carriesProject(method string) bool {
	return method == methodResolve || method == methodBatchResolve
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

// allowsProject keeps "Scope" of docs/contract.md: it fails closed. While the session is still that
// of other settings, their scope counts too: a project that has come in with the change must not
// see what their Vault holds.
func (c *connection) allowsProject(project string) error {
	if err := c.Connection.allowsProject(project); err != nil || c.waiting == nil {
		return err
	}
	if c.waiting.before.allowsProject(project) != nil {
		return notInUse(c.waiting.client.Status().LastError)
	}
	return nil
}

func (c *Connection) allowsProject(project string) error {
	if c.Scope == ScopePlatform {
		return nil
	}
	if project == "" {
		return errProjectRequired("connection " + quote(c.Name) + " belongs to projects: set project_id")
	}
	if !slices.Contains(c.ProjectIDs, project) {
		return errProjectNotAllowed("connection " + quote(c.Name) + " does not belong to this project: use another connection, or add the project to its project_ids")
	}
	return nil
}
