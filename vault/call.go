package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// CallKind is the purpose of a request to Vault.
type CallKind string

// The purposes.
const (
	// CallLogin is an AppRole login.
	CallLogin CallKind = "login"
	// CallUnwrap looks up or opens a response-wrapping token for the secret_id inside.
	CallUnwrap CallKind = "unwrap"
	// CallRenew renews the token.
	CallRenew CallKind = "renew"
	// CallRead reads a secret.
	CallRead CallKind = "read"
	// CallMount asks which engine serves a path where no secret was found.
	CallMount CallKind = "mount"
	// CallLookup asks when the secret_id expires.
	CallLookup CallKind = "lookup"
	// CallProbe asks whether Vault is back, in an outage during which nobody asks for secrets.
	CallProbe CallKind = "probe"
	// CallRevoke revokes a token.
	CallRevoke CallKind = "revoke"
	// CallTest is any request of a connection test.
	CallTest CallKind = "test"
)

// Call describes one finished request to Vault, for Config.OnCall.
type Call struct {
	Kind CallKind
	// Method is the HTTP method.
	Method string
	// Status is the HTTP status of the answer; 0 when there was none.
	Status int
	// ErrorType is the error.type of the semantic conventions for HTTP clients, from a small set:
	// the status from 400 on, "timeout", "canceled" (the sidecar gave up first), "unreachable",
	// "redirect", "too_large" or "invalid_answer". It is empty when Vault answered and all is well.
	ErrorType string
	// Took is the time from sending the request to reading the end of the body.
	Took time.Duration
}

// endedCall describes a request that ended with this answer and error.
func (c *Client) endedCall(ctx context.Context, r request, ans *answer, err error,
	took time.Duration) Call {
	if ans == nil {
		ans = &answer{}
	}
	return Call{Kind: c.kindOf(r), Method: r.method, Status: ans.status,
		ErrorType: errorType(ctx, ans, err), Took: took}
}

func (c *Client) kindOf(r request) CallKind {
	if c.forTest {
		return CallTest
	}
	return r.kind
}

func errorType(ctx context.Context, ans *answer, err error) string {
	var network net.Error
	call, isCall := errors.AsType[*CallError](err)
	switch {
	case ans.status >= http.StatusBadRequest:
		return strconv.Itoa(ans.status)
	case err == nil:
		return ""
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case ans.status >= http.StatusMultipleChoices:
		return "redirect"
	case errors.Is(context.Cause(ctx), ErrTimeout), isCall && errors.As(call.Cause, &network) &&
		network.Timeout():
		return "timeout"
	case ctx.Err() != nil:
		return "canceled"
	case ans.status != 0:
		return "invalid_answer"
	}
	return "unreachable"
}
