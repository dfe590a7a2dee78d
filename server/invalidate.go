package server

import (
	"cmp"
	"context"
	"strings"
	"sync"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
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
	if err := s.checkFleet(request); err != nil {
		return nil, err
	}
	target, err := parseTarget(request.GetPath())
	if err != nil {
		return nil, errInvalidPath(err)
	}
	connections, err := s.enterAll(caller, request.GetConnection())
	if err != nil {
		return nil, err
	}
	var loginErr error
	if request.GetRenewLogin() {
		loginErr = renewLogins(ctx, connections)
		s.takeOver()
	}
	for _, c := range connections {
		c.counters.invalidations.Add(1)
	}
	answer := &secretsidecarv1.InvalidateResponse{Entries: uint32(s.drop(target, connections))} // #nosec G115 -- bounded by memory
	if request.GetFleet() {
		answer.Fleet, err = s.member.tell(ctx, request)
	}
	if err := cmp.Or(loginErr, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// drop drops what the target covers, lets go of the connections, and returns how many secrets were
// cached.
func (s *Server) drop(target dropTarget, connections []*connection) int {
	dropped := 0
	for _, c := range connections {
		here := target.drop(s, c.space)
		c.counters.invalidated.Add(uint64(here)) // #nosec G115 -- a count
		dropped += here
		s.watches.invalidated(c.Name, target)
		c.release()
	}
	return dropped
}

// enterAll acquires the connection with the name, or every connection for an empty name.
func (s *Server) enterAll(caller unixsocket.Peer, name string) ([]*connection, error) {
	running := s.current.Load()
	if name != "" {
		c, err := s.enter(running, caller, access{method: methodInvalidate, connection: name})
		return []*connection{c}, err
	}
	if err := authorize(running.callers, caller, access{method: methodInvalidate, connection: anyConnection}); err != nil {
		return nil, err
	}
	var all []*connection
	for _, c := range running.sorted() {
		if c.acquire() {
			all = append(all, c)
		}
	}
	return all, nil
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

// covers reports whether the secret with the path is dropped. Every reference into a secret begins
// with its path and a slash.
func (t dropTarget) covers(path string) bool {
	if t.secret != "" {
		return path == t.secret
	}
	return strings.HasPrefix(path+"/", t.prefix)
}

func (t dropTarget) drop(s *Server, space string) int {
	switch {
	case t.secret != "":
		return s.cache.Drop(space, t.secret)
	case t.prefix != "":
		return s.cache.DropMatching(space, t.covers)
	default:
		return s.cache.DropSpace(space)
	}
}

// renewLogins renews side by side and returns the first failure.
func renewLogins(ctx context.Context, connections []*connection) error {
	failures := make([]error, len(connections))
	var group sync.WaitGroup
	for i, c := range connections {
		group.Go(func() { failures[i] = c.renewLogin(ctx) })
	}
	group.Wait()
	for i, err := range failures {
		if err != nil {
			return errOnConnection(connections[i].Name, err)
		}
	}
	return nil
}
