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
	methodWatch              = "Watch"
	// Scan tells references of others: only a rule that names it allows it.
	methodScan = "Scan"
	// Invalidate with renew_login makes all who use the connection depend on a new login: a rule of
	// certain projects or paths has to name it.
	methodRenewLogin = "RenewLogin"
)

// apiMethods are the methods as gRPC calls them.
var apiMethods = []string{
	methodResolve, methodBatchResolve, methodTestConnection, methodInvalidate, methodListConnections,
	methodScan, methodWatch,
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
	// connection is the connection's name, or what the caller asked for where there is none;
	// anyConnection for all of them at once, or for a Vault that is not configured.
	connection string
	// asked is what the caller called the connection: an alias perhaps, or nothing at all.
	asked string
	// project is the request's project_id, and target what it wants to read. Only
	// Resolve, BatchResolve and Watch carry them.
	project string
	target  target
	// isMistaken says that what it wants to read is no reference: no pattern decides about it, for
	// nothing is read.
	isMistaken bool
}

// anyConnection is no valid connection name, so only a rule that allows every connection covers it.
const anyConnection = "*"

// authorize decides who may ask: nil, or the reason why not. Rules nil means that the socket's
// permissions are the only door. Root is no exception.
func authorize(rules []CallerRule, caller unixsocket.Peer, want access) error {
	if rules == nil {
		return nil
	}
	projectIsTheObstacle, pathIsTheObstacle := false, false
	for i := range rules {
		rule := &rules[i]
		switch {
		case !rule.matches(caller) || !rule.covers(want):
		case !rule.allowsProject(want):
			projectIsTheObstacle = true
		case carriesProject(want.method) && !want.isMistaken &&
			!covers(rule.Paths, want.target, want.project):
			pathIsTheObstacle = true
		default:
			return nil
		}
	}
	switch {
	case pathIsTheObstacle:
		return errCallersPath(caller)
	case !projectIsTheObstacle || !carriesProject(want.method):
		return errCallerNotAllowed(caller, want)
	case want.project == "":
		return errProjectRequired(fmt.Sprintf("uid %d may ask for certain projects only: set project_id", caller.UID))
	default:
		return errProjectNotAllowed(fmt.Sprintf("uid %d may not ask for this project: add it to the caller's rule", caller.UID))
	}
}

func (r *CallerRule) matches(caller unixsocket.Peer) bool {
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

// mayCall reports whether the caller may call the method on something; what, authorize decides.
func mayCall(rules []CallerRule, caller unixsocket.Peer, method string) bool {
	return slices.ContainsFunc(rules, func(r CallerRule) bool {
		return r.matches(caller) && (len(r.Methods) == 0 || slices.Contains(r.Methods, method) ||
			method == methodTestConnection && slices.Contains(r.Methods, methodTestConnectionSpec))
	})
}

func (r *CallerRule) covers(want access) bool {
	if want.method == methodTestConnectionSpec {
		return slices.Contains(r.Methods, want.method)
	}
	if want.method == methodScan && !slices.Contains(r.Methods, methodScan) {
		return false
	}
	return (len(r.Methods) == 0 || slices.Contains(r.Methods, want.method)) &&
		(len(r.Connections) == 0 || slices.Contains(r.Connections, want.connection))
}

func (r *CallerRule) allowsProject(want access) bool {
	switch {
	case len(r.Projects) == 0:
		return true
	case carriesProject(want.method):
		return slices.Contains(r.Projects, want.project)
	default:
		return slices.Contains(r.Methods, want.method)
	}
}

// carriesProject reports whether a request says for which project it is. What a Scan finds was given
// out for one.
func carriesProject(method string) bool {
	switch method {
	case methodResolve, methodBatchResolve, methodScan, methodWatch:
		return true
	}
	return false
}

// allows keeps "Scope" and "Paths" of docs/contract.md: they fail closed. While the session is still
// that of other settings, those count too: a project that has come in with the change must not see
// what their Vault holds.
func (c *connection) allows(project string, t target) error {
	switch {
	case c.gives(project, t):
		return nil
	case c.Connection.gives(project, t):
		return notInUse(c.waiting.client.Status().LastError)
	case c.isFor(project):
		return errConnectionsPath(c.Name)
	case project == "":
		return errProjectRequired("connection " + quote(c.Name) + " belongs to projects: set project_id")
	default:
		return errProjectNotAllowed("connection " + quote(c.Name) + " does not belong to this project: use another connection, or add the project to its project_ids")
	}
}

// gives reports whether the project may read the target.
func (c *connection) gives(project string, t target) bool {
	return c.Connection.gives(project, t) && (c.waiting == nil || c.waiting.before.gives(project, t))
}

func (c *Connection) gives(project string, t target) bool {
	return c.isFor(project) && covers(c.Paths, t, project)
}

// isFor reports whether the connection's scope has the project, which may be empty.
func (c *Connection) isFor(project string) bool {
	return c.Scope == ScopePlatform || project != "" && slices.Contains(c.ProjectIDs, project)
}
