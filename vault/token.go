package vault

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	doingRenew  = "renew the token"
	doingRevoke = "revoke the token"
)

// Token is one Vault token. It is immutable: a renewal makes a new value.
type Token struct {
	// ID is the token itself.
	ID redact.String
	// Batch tokens cannot be renewed or revoked.
	Batch bool
	// Renewable is what Vault claims; the token's policies may still forbid it.
	Renewable bool
	// FirstTTL is what the login granted, TTL what the last renewal granted; 0 means that the token
	// never expires.
	FirstTTL, TTL time.Duration
	// Granted is when the request that granted TTL was sent, and Since when the login was.
	Granted, Since time.Time
	// Policies are the token's.
	Policies []string
	// Role is the AppRole's name; empty where Vault does not tell.
	Role string
}

// grantedAuth is the `auth` of Vault's answers, with the fields that api.SecretAuth lacks.
type grantedAuth struct {
	api.SecretAuth
	TokenType string `json:"token_type"`
	NumUses   int    `json:"num_uses"`
}

// newToken takes the token from a login's answer; sent is when the login was sent.
func newToken(auth *grantedAuth, sent time.Time) *Token {
	ttl := time.Duration(auth.LeaseDuration) * time.Second
	return &Token{
		ID:        redact.New(auth.ClientToken),
		Batch:     auth.TokenType == "batch",
		Renewable: auth.Renewable,
		FirstTTL:  ttl,
		TTL:       ttl,
		Granted:   sent,
		Since:     sent,
		Policies:  slices.Clone(auth.Policies),
		Role:      auth.Metadata["role_name"],
	}
}

// Expires returns when the token ends; the zero time means never.
func (t *Token) Expires() time.Time {
	if t.TTL == 0 {
		return time.Time{}
	}
	return t.Granted.Add(t.TTL)
}

// Valid reports whether there is a token and it has not expired. It is false for a nil Token.
func (t *Token) Valid(now time.Time) bool {
	return t != nil && (t.TTL == 0 || now.Before(t.Expires()))
}

// Renew asks Vault to extend the token's life. Errors: ErrInvalidToken when Vault does not know or
// honour it, ErrNotRenewable when it may not be renewed, an outage, or ctx's own. Beware: Vault
// also answers 500, an outage, when max_ttl is over or the role is gone.
func (c *Client) Renew(ctx context.Context, t *Token) (*Token, error) {
	sent := time.Now()
	ans, err := c.do(ctx, request{doing: doingRenew, kind: CallRenew, method: http.MethodPost,
		path:  "auth/token/renew-self",
		token: t.ID, body: struct{}{}})
	if err != nil {
		return nil, err
	}
	auth := ans.body.Auth
	switch {
	case ans.knowsNoToken(), ans.deniesPlainly(), ans.status == http.StatusBadRequest &&
		ans.mentions(goneTokens...):
		return nil, &CallError{Sentinel: ErrInvalidToken, Doing: doingRenew, Status: ans.status}
	case ans.status != http.StatusOK || auth == nil || auth.ClientToken == "":
		return nil, &CallError{Sentinel: ErrNotRenewable, Doing: doingRenew, Status: ans.status,
			Remedy: "allow update on auth/token/renew-self to save logins"}
	}
	renewed := *t
	renewed.Granted = sent
	renewed.Renewable = auth.Renewable
	// 0 can only mean that less than a second is left: a token that never ends is not renewed.
	renewed.TTL = max(time.Duration(auth.LeaseDuration)*time.Second, time.Millisecond)
	return &renewed, nil
}

// goneTokens are what Vault answers to the renewal of a token that has ended or is about to.
var goneTokens = []string{"lease expired", "lease is expired", "lease not found",
	"invalid lease ID", "token not found"}

// RevokeTimeout bounds Revoke: a token that nobody revokes expires by itself.
const RevokeTimeout = 2 * time.Second

// Revoke revokes a token, within RevokeTimeout. It does nothing for one that has expired or is a
// batch token; t may be nil. A token that Vault does not know counts as revoked. Errors: an outage,
// ErrNotAllowed, or ctx's own.
func (c *Client) Revoke(ctx context.Context, t *Token) error {
	if t == nil || t.Batch || !t.Valid(time.Now()) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, RevokeTimeout, ErrTimeout)
	defer cancel()
	ans, err := c.do(ctx, request{doing: doingRevoke, kind: CallRevoke, method: http.MethodPost,
		path: "auth/token/revoke-self", token: t.ID})
	if err != nil {
		return err
	}
	if ans.status >= http.StatusBadRequest && !ans.knowsNoToken() {
		return &CallError{Sentinel: ErrNotAllowed, Doing: doingRevoke, Status: ans.status}
	}
	return nil
}
