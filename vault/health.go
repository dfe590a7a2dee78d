package vault

import (
	"context"
	"net/http"
	"net/url"
)

const doingHealth = "ask for Vault's health"

// Health is what sys/health says.
type Health struct {
	Version             string
	Initialized, Sealed bool
}

// Health asks whether Vault is reachable, initialised and unsealed. A standby that reaches its
// leader counts. Errors: an outage, or ctx's own. A sealed Vault is no error.
func (c *Client) Health(ctx context.Context) (Health, error) {
	ans, err := c.do(ctx, request{doing: doingHealth, kind: CallProbe, method: http.MethodGet,
		path: "sys/health", rootLevel: true,
		params: url.Values{"standbyok": {"true"}, "perfstandbyok": {"true"}, "sealedcode": {"200"},
			"uninitcode": {"200"}, "drsecondarycode": {"472"}}})
	if err != nil {
		return Health{}, err
	}
	if ans.body.Initialized == nil || ans.body.Version == "" {
		return Health{}, &CallError{Sentinel: ErrUnreachable, Doing: doingHealth,
			Status: ans.status, Reach: ReachNode,
			Remedy: "what answers at the address is not Vault: check the address and the proxies " +
				"on the way"}
	}
	return Health{Version: ans.body.Version, Initialized: *ans.body.Initialized,
		Sealed: ans.body.Sealed}, nil
}

// Well is Health, except that a sealed or uninitialised Vault is ErrSealed.
func (c *Client) Well(ctx context.Context) error {
	health, err := c.Health(ctx)
	if err == nil && (health.Sealed || !health.Initialized) {
		return &CallError{Sentinel: ErrSealed, Doing: doingHealth, Reach: ReachNode,
			Remedy: "unseal Vault: vault operator unseal"}
	}
	return err
}

// tryTransport returns nil when Vault, or a proxy in front of it, answers over the transport.
func (c *Client) tryTransport(ctx context.Context, transport http.RoundTripper) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(request{path: "sys/health"}),
		http.NoBody)
	if err != nil {
		return c.transportError(ctx, doingTLS, err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return c.transportError(ctx, doingTLS, err)
	}
	return resp.Body.Close()
}
