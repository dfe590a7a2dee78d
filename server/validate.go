package server

import (
	"cmp"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
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
