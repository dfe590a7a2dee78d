package vault

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	doingRenew  = "renew the token"
	doingRevoke = "revoke the token"
	// minPause is the least time between two calls of the token's upkeep, however short its life.
	minPause = 250 * time.Millisecond
)

// token is one Vault token. It is immutable: a renewal makes a new value.
type token struct {
	id        redact.String
	serial    uint64 // a login gives a new one, a renewal does not
	batch     bool
	renewable bool
	firstTTL  time.Duration // what the login granted
	ttl       time.Duration // what the last renewal granted; 0 = never expires
	granted   time.Time     // when the request that granted ttl was sent
	policies  []string
	role      string // the AppRole's name; empty where Vault does not tell
}

// newToken reads the token out of a login's answer; sent is when the login went out.
func newToken(auth *grantedAuth, sent time.Time) *token {
	ttl := time.Duration(auth.LeaseDuration) * time.Second
	return &token{
		id:        redact.New(auth.ClientToken),
		batch:     auth.TokenType == "batch",
		renewable: auth.Renewable,
		firstTTL:  ttl,
		ttl:       ttl,
		granted:   sent,
		policies:  slices.Clone(auth.Policies),
		role:      auth.Metadata["role_name"],
	}
}

// expires returns when the token ends; the zero time is never.
func (t *token) expires() time.Time {
	if t.ttl == 0 {
		return time.Time{}
	}
	return t.granted.Add(t.ttl)
}

// valid reports whether there is a token and it has not expired.
func (t *token) valid(now time.Time) bool {
	return t != nil && (t.ttl == 0 || now.Before(t.expires()))
}

// upkeepAt returns when to renew or replace the token: at about two thirds of what is left of its life after
// from, with jitter; the zero time is never.
func (t *token) upkeepAt(from time.Time) time.Time {
	if t.ttl == 0 {
		return time.Time{}
	}
	left := t.expires().Sub(from)
	share := 0.63 + 0.07*rand.Float64() //nolint:gosec // jitter needs no secrecy
	return from.Add(max(time.Duration(share*float64(left)), minPause))
}

// cutShort reports whether a renewal granted so little that the end of the token's life is near.
func (t *token) cutShort() bool { return t.ttl*3 < t.firstTTL*2 }

// renew asks Vault for a new life of the token. Errors: errInvalidToken when Vault does not know it,
// errNotRenewable when it may not be renewed, errPastRenewing when it may no longer, an outage, or ctx's. Vault
// answers 500 to a renewal past the token's max_ttl, or when the role is gone; if it is Vault itself that fails,
// the login that follows will show.
func (a *vaultAPI) renew(ctx context.Context, t *token) (*token, error) {
	sent := time.Now()
	ans, err := a.call(ctx, request{doing: doingRenew, kind: CallRenew, method: http.MethodPost, path: "auth/token/renew-self",
		token: t.id, body: struct{}{}, answers500: true})
	if err != nil {
		return nil, err
	}
	auth, errs := parseAuth(ans)
	switch {
	case mentions(errs, "invalid token"):
		return nil, errInvalidToken
	case ans.status == http.StatusInternalServerError:
		return nil, errPastRenewing
	case auth == nil:
		return nil, errNotRenewable
	}
	renewed := *t
	renewed.granted = sent
	renewed.renewable = auth.Renewable
	// 0 can only mean that less than a second is left: a token without end is not renewed.
	renewed.ttl = max(time.Duration(auth.LeaseDuration)*time.Second, time.Millisecond)
	return &renewed, nil
}

// revoke gives a token back to Vault, also while the gate is closed: it is the last chance. Batch tokens cannot
// be revoked.
func (a *vaultAPI) revoke(ctx context.Context, t *token) error {
	if t == nil || t.batch || !t.valid(time.Now()) {
		return nil
	}
	ans, err := a.ungated().call(ctx, request{doing: doingRevoke, kind: CallRevoke, method: http.MethodPost, path: "auth/token/revoke-self",
		token: t.id})
	if err != nil {
		return err
	}
	if ans.status >= http.StatusBadRequest {
		return statusError(ans.status)
	}
	return nil
}
