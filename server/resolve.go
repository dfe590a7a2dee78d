package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// Resolve implements the API.
func (s *Server) Resolve(
	ctx context.Context, request *secretsidecarv1.ResolveRequest,
) (*secretsidecarv1.ResolveResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	outcomes := []outcome{s.resolve(ctx, caller, request)}
	defer s.holdLarge(&outcomes[0])()
	if unwritten := s.record(ctx, caller, methodResolve, outcomes); unwritten != nil {
		return nil, unwritten
	}
	if p := outcomes[0].problem; p != nil {
		return nil, p
	}
	return outcomes[0].secret, nil
}

// holdLarge counts a large value until release: the audit log may take its time. Where there is no
// room for it, that is the outcome.
func (s *Server) holdLarge(o *outcome) (release func()) {
	size := len(o.secret.GetValue())
	switch {
	case size <= smallSecret:
	case s.answers.hold(size):
		return func() { s.answers.release(size) }
	default:
		s.answers.refused.Add(1)
		o.fail(errUnread("answers of all callers"))
	}
	return func() {}
}

// resolve returns what became of the request. Its connection may be closed by then.
func (s *Server) resolve(
	ctx context.Context, caller unixsocket.Peer, request *secretsidecarv1.ResolveRequest,
) (o outcome) {
	asked, err := s.admit(s.current.Load(), caller, methodResolve, request)
	o.request, o.connection = request, asked.connection
	if asked.connection != nil {
		defer asked.connection.release()
	}
	if err != nil {
		o.fail(err)
		return o
	}
	found, err := s.read(ctx, asked)
	o.settle(asked.reference.Key, found, err, new(resolved))
	return o
}

// lookup is a checked and authorised request for one value.
type lookup struct {
	connection *connection // acquired: release it; nil where none was found
	reference  vault.Reference
	version    uint32
	ages
}

// admit authorises the caller of a request before it tells a mistake in it: somebody who may not ask
// learns nothing of what is asked for. What it refuses for its project has a connection all the same:
// the one that it is to be counted on.
func (s *Server) admit(
	running *snapshot, caller unixsocket.Peer, method string, request *secretsidecarv1.ResolveRequest,
) (lookup, error) {
	limits, reference, mistake := parse(request)
	t := targetOf(reference)
	c, err := s.enter(running, caller, access{
		method: method, asked: request.GetConnection(), project: request.GetProjectId(),
		target: t, isMistaken: mistake != nil,
	})
	if err != nil {
		return lookup{}, err
	}
	if mistake != nil {
		c.release()
		return lookup{}, mistake
	}
	if err := c.allows(request.GetProjectId(), t); err != nil {
		return lookup{connection: c}, err
	}
	return lookup{connection: c, reference: reference, version: request.GetVersion(), ages: limits}, nil
}

// parse reads what a request asks for.
func parse(request *secretsidecarv1.ResolveRequest) (ages, vault.Reference, error) {
	limits, err := agesOf(request)
	if err != nil {
		return ages{}, vault.Reference{}, err
	}
	reference, err := vault.ParseReference(request.GetPath(), request.GetKey())
	if err != nil {
		return ages{}, vault.Reference{}, errInvalidPath(err)
	}
	return limits, reference, nil
}

// enter finds and acquires the connection that the caller wants to use, if it may. A caller that
// may not learns nothing about which connections exist.
func (s *Server) enter(
	running *snapshot, caller unixsocket.Peer, want access,
) (*connection, error) {
	c, err := running.authorized(caller, want)
	switch {
	case err != nil:
		return nil, err
	case c.acquire():
		return c, nil
	}
	// A reload ended the session between the snapshot and now; the next snapshot is already there.
	next := s.current.Load()
	if next == running {
		return nil, vault.ErrClosed
	}
	return s.enter(next, caller, want)
}

// read returns the secret that holds the value asked for, from the cache or from Vault.
func (s *Server) read(ctx context.Context, asked lookup) (cache.Result[*vault.Secret], error) {
	return s.cache.Get(s.withCallers(ctx), asked.cacheLookup())
}

// withCallers lets the spans of a read that the request may cause be linked with those who wait for
// it too.
func (s *Server) withCallers(ctx context.Context) context.Context {
	if s.tracer == nil {
		return ctx
	}
	return vault.WithCallers(ctx)
}

func (asked lookup) cacheLookup() cache.Lookup[*vault.Secret] {
	c := asked.connection
	return cache.Lookup[*vault.Secret]{
		Key:      cache.Key{Space: c.space, Name: asked.reference.Path, Version: asked.version},
		Policy:   c.Policy,
		MaxAge:   asked.maxAge,
		MaxStale: asked.maxStale,
		Admit:    c.admit,
		Load:     c.load,

		Joined: c.joined, Refreshing: c.refreshing,
	}
}

// resolved is a response with the messages that it points to, so that they are one allocation.
type resolved struct {
	response                    secretsidecarv1.ResolveResponse
	created, fetched, expiresAt timestamppb.Timestamp
}

// fill picks the key out of the secret.
func (r *resolved) fill(
	key string, found cache.Result[*vault.Secret],
) (*secretsidecarv1.ResolveResponse, *problem) {
	value, ok := found.Value.Value(key)
	if !ok {
		return nil, errKeyNotFound(key)
	}
	response := &r.response
	response.Value = value.Text.Reveal()
	response.ValueType = secretsidecarv1.ValueType_VALUE_TYPE_STRING
	if value.JSON {
		response.ValueType = secretsidecarv1.ValueType_VALUE_TYPE_JSON
	}
	response.Version = found.Value.Version()
	response.VersionCreatedAt = setTime(&r.created, found.Value.CreatedAt())
	response.FetchedAt = setTime(&r.fetched, found.FetchedAt)
	response.ExpiresAt = setTime(&r.expiresAt, found.ExpiresAt)
	response.Source = sourceOf(found.Source)
	return response, nil
}

// setTime is timestamppb.New in place.
func setTime(into *timestamppb.Timestamp, t time.Time) *timestamppb.Timestamp {
	into.Seconds, into.Nanos = t.Unix(), int32(t.Nanosecond()) // #nosec G115 -- below 1e9
	return into
}

func sourceOf(source cache.Source) secretsidecarv1.Source {
	switch source {
	case cache.SourceLoad:
		return secretsidecarv1.Source_SOURCE_VAULT
	case cache.SourceCache:
		return secretsidecarv1.Source_SOURCE_CACHE
	case cache.SourceStale:
		return secretsidecarv1.Source_SOURCE_STALE
	default:
		return secretsidecarv1.Source_SOURCE_UNSPECIFIED
	}
}
