package server

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// ages are a request's max_age and max_stale; nil is unset.
type ages struct{ maxAge, maxStale *time.Duration }

// compareLimits orders limits by strictness; unset is the least strict.
func compareLimits(a, b *time.Duration) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	default:
		return cmp.Compare(*a, *b)
	}
}

func agesOf(request *secretsidecarv1.ResolveRequest) (ages, error) {
	var violations []*errdetails.BadRequest_FieldViolation
	check := func(name string, d *durationpb.Duration) *time.Duration {
		if d == nil {
			return nil
		}
		if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
			violations = append(violations, field(name, "must be a duration of 0s or more"))
			return nil
		}
		duration := d.AsDuration()
		return &duration
	}
	result := ages{check("max_age", request.GetMaxAge()), check("max_stale", request.GetMaxStale())}
	if len(violations) > 0 {
		return ages{}, errInvalidRequest(violations...)
	}
	return result, nil
}

// classify tells the cache what an error of Vault's means for the copy that it holds: see "Stale"
// and "Not found" of docs/contract.md.
func classify(err error) cache.Class {
	switch {
	case vault.Outage(err):
		return cache.ClassOutage
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrVersionDeleted), errors.Is(err, vault.ErrVersionDestroyed):
		return cache.ClassAbsent
	case errors.Is(err, vault.ErrPermissionDenied), errors.Is(err, vault.ErrNotKVv2):
		return cache.ClassDenied
	default:
		return cache.ClassOther
	}
}

// isVaultsWord reports whether the error says what Vault has under the path, for whoever asks.
func isVaultsWord(err error) bool {
	class := classify(err)
	return class == cache.ClassAbsent || class == cache.ClassDenied
}

// readCopy returns what is cached within the bounds of the lookup, after a read that has failed for
// this reason.
func (s *Server) readCopy(
	ctx context.Context, asked lookup, failure error,
) (cache.Result[*vault.Secret], error) {
	wanted := asked.cacheLookup()
	wanted.Admit = func(cache.Key) error { return failure }
	return s.cache.Get(ctx, wanted)
}
