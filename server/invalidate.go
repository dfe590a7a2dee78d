package server

import (
	"cmp"
	"context"
	"strings"
	"sync"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/audit"
	"github.com/secret-sidecar/secret-sidecar/internal/fleet"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// Invalidate implements the API. The logins are renewed first, so that what is read between the two
// with an old token is dropped too; secrets are dropped even when a login fails. A waiting
// successor has nothing to drop: what is read through it, once it has taken over, is read after
// this call has begun.
func (s *Server) Invalidate(
	ctx context.Context, request *secretsidecarv1.InvalidateRequest,
) (*secretsidecarv1.InvalidateResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := s.invalidate(ctx, caller, request)
	unwritten := s.auditCall(ctx, caller, methodInvalidate, audit.Entry{
		Connection: request.GetConnection(), Path: request.GetPath(), RenewLogin: request.GetRenewLogin(),
		Outcome: auditOK,
	}, err)
	if unwritten != nil {
		return nil, unwritten
	}
	return answer, err
}

func (s *Server) invalidate(
	ctx context.Context, caller unixsocket.Peer, request *secretsidecarv1.InvalidateRequest,
) (*secretsidecarv1.InvalidateResponse, error) {
	if err := s.checkFleet(request); err != nil {
		return nil, err
	}
	target, err := parseTarget(request.GetPath())
	if err != nil {
		return nil, errInvalidPath(err)
	}
	reaches, err := s.enterAll(caller, request)
	if err != nil {
		return nil, err
	}
	what, dropped, err := s.invalidateHere(ctx, caller, request, target, reaches)
	if err != nil {
		return nil, err
	}
	answer := &secretsidecarv1.InvalidateResponse{Entries: uint32(dropped.entries)} // #nosec G115 -- bounded by memory
	if request.GetFleet() {
		answer.Fleet, err = s.member.tell(ctx, what, request.GetWait().AsDuration())
	}
	if err := cmp.Or(dropped.loginErr, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// drops is what became of an invalidation here: the secrets are dropped even if a login failed.
type drops struct {
	entries  int
	loginErr error
}

// invalidateHere does what is asked for in this sidecar, and lets go of the connections: who waits
// for the fleet must not hold them. It returns what other sidecars are to be told, which know a
// connection by its name.
func (s *Server) invalidateHere(
	ctx context.Context, caller unixsocket.Peer, request *secretsidecarv1.InvalidateRequest,
	target dropTarget, reaches []reach,
) (what fleet.Invalidation, done drops, err error) {
	defer releaseReaches(reaches)
	if err := target.check(caller, request, reaches); err != nil {
		return what, done, err
	}
	if request.GetFleet() && !s.mayTell(caller, request, target, reaches) {
		return what, done, errFleetNotAllowed(caller)
	}
	if request.GetRenewLogin() {
		s.logRenewal(ctx, caller, reaches)
		done.loginErr = renewLogins(ctx, reaches)
		s.takeOver()
	}
	what = fleet.Invalidation{Path: request.GetPath(), RenewLogin: request.GetRenewLogin()}
	for _, within := range reaches {
		within.connection.counters.invalidations.Add(1)
		done.entries += s.drop(target, within)
		if request.GetConnection() != "" {
			what.Connection = within.connection.Name
		}
	}
	return what, done, nil
}

// drop drops what the caller may drop of the target, has it read anew for those who watch it, and
// returns how many secrets were cached.
func (s *Server) drop(target dropTarget, within reach) int {
	c := within.connection
	dropped := target.drop(s, within)
	c.counters.invalidated.Add(uint64(dropped)) // #nosec G115 -- a count
	s.watches.invalidated(c.Name, func(path string) bool {
		return target.covers(path) && within.mayDrop(path)
	})
	return dropped
}

// enterAll acquires the connection that the request names, or every one that the caller may use, and
// returns what the caller may touch there.
func (s *Server) enterAll(
	caller unixsocket.Peer, request *secretsidecarv1.InvalidateRequest,
) ([]reach, error) {
	running := s.current.Load()
	if name := request.GetConnection(); name != "" {
		c, err := s.enter(running, caller, access{method: methodInvalidate, asked: name})
		if err != nil {
			return nil, err
		}
		return []reach{running.reachOf(caller, methodInvalidate, c)}, nil
	}
	if err := authorize(running.callers, caller, access{method: methodInvalidate, connection: anyConnection}); err != nil {
		return nil, err
	}
	var all []reach
	for _, c := range running.visible(caller, methodInvalidate) {
		if c.acquire() {
			all = append(all, running.reachOf(caller, methodInvalidate, c))
		}
	}
	return all, nil
}

func releaseReaches(reaches []reach) {
	for _, within := range reaches {
		within.connection.release()
	}
}

// dropTarget is what to drop: one secret, a prefix of references, or, when both are empty,
// everything.
type dropTarget struct{ secret, prefix string }

func parseTarget(path string) (dropTarget, error) {
	switch {
	case path == "":
		return dropTarget{}, nil
	case strings.HasSuffix(path, "/"):
		prefix, err := vault.ParsePrefix(path)
		return dropTarget{prefix: prefix}, err
	default:
		reference, err := vault.ParseReference(path, "")
		return dropTarget{secret: reference.Path}, err
	}
}

// check refuses what the caller may not ask for: a secret that it names together with a connection
// on which it may not read it, and a new login of a connection that others depend on.
func (t dropTarget) check(
	caller unixsocket.Peer, request *secretsidecarv1.InvalidateRequest, reaches []reach,
) error {
	for _, within := range reaches {
		c := within.connection
		switch {
		case request.GetRenewLogin() && !within.mayRenewLogin():
			return errCallerNotAllowed(caller, access{method: methodRenewLogin, connection: c.Name, asked: c.Name})
		case request.GetConnection() != "" && t.secret != "" && !within.mayDrop(t.secret):
			return within.refusal(caller)
		}
	}
	return nil
}

// covers reports whether the secret with the path is named. Every reference into a secret begins
// with its path and a slash.
func (t dropTarget) covers(path string) bool {
	if t.secret != "" {
		return path == t.secret
	}
	return strings.HasPrefix(path+"/", t.prefix)
}

// drop drops what the caller may drop of it.
func (t dropTarget) drop(s *Server, within reach) int {
	space := within.connection.space
	switch {
	case t.secret != "" && !within.mayDrop(t.secret):
		return 0
	case t.secret != "":
		return s.cache.Drop(space, t.secret)
	case t.prefix == "" && within.mayDropAll():
		return s.cache.DropSpace(space)
	}
	return s.cache.DropMatching(space, func(name string) bool {
		return t.covers(name) && within.mayDrop(name)
	})
}

// logRenewal says who asks. The log limits its repeats for each connection.
func (s *Server) logRenewal(ctx context.Context, caller unixsocket.Peer, reaches []reach) {
	for _, within := range reaches {
		s.log.InfoContext(ctx, "a caller asks for a new login", "connection", within.connection.Name,
			"uid", caller.UID, "gid", caller.GID, "pid", caller.PID)
	}
}

// renewLogins renews side by side and returns the first failure.
func renewLogins(ctx context.Context, reaches []reach) error {
	failures := make([]error, len(reaches))
	var group sync.WaitGroup
	for i, within := range reaches {
		group.Go(func() { failures[i] = within.connection.renewLogin(ctx) })
	}
	group.Wait()
	for i, err := range failures {
		if err != nil {
			return errOnConnection(reaches[i].connection.Name, err)
		}
	}
	return nil
}
