package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"
)

// CallKind says what a request to Vault was for.
type CallKind string

// The kinds of calls.
const (
	// CallLogin is a login.
	CallLogin CallKind = "login"
	// CallUnwrap looks at a response-wrapping token or opens it, for the secret_id inside.
	CallUnwrap CallKind = "unwrap"
	// CallRenew renews the token.
	CallRenew CallKind = "renew"
	// CallRead reads a secret.
	CallRead CallKind = "read"
	// CallMount asks which engine answers at a path where no secret was found.
	CallMount CallKind = "mount"
	// CallLookup asks when the secret_id expires.
	CallLookup CallKind = "lookup"
	// CallProbe asks, during an outage in which nobody asks for secrets, whether Vault is well again.
	CallProbe CallKind = "probe"
	// CallRevoke gives a token back.
	CallRevoke CallKind = "revoke"
	// CallTest is any request of a connection test.
	CallTest CallKind = "test"
)

// Call is one request that went out to Vault, as Config.OnCall is told of it after its end.
type Call struct {
	Kind CallKind
	// Method is the HTTP method.
	Method string
	// Status is the HTTP status of the answer; 0 when there was none.
	Status int
	// ErrorType is error.type of the semantic conventions for HTTP clients, from a small set: the status when it is 400
	// or more, else "timeout", "canceled" (the sidecar gave up first), "unreachable", "redirect", "too_large" or
	// "invalid_answer". Empty when Vault answered and all is well.
	ErrorType string
	// Took is the time from the request to the end of the answer's body.
	Took time.Duration
}

// endedCall describes a request that was sent and ended with the answer and the error.
func (c *Client) endedCall(ctx context.Context, r request, ans *answer, err error, took time.Duration) Call {
	if ans == nil {
		ans = &answer{}
	}
	return Call{Kind: c.kindOf(r), Method: r.method, Status: ans.status, ErrorType: errorType(ctx, ans, err), Took: took}
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
	case errors.Is(context.Cause(ctx), ErrTimeout), isCall && errors.As(call.Cause, &network) && network.Timeout():
		return "timeout"
	case ctx.Err() != nil:
		return "canceled"
	case ans.status != 0:
		return "invalid_answer"
	}
	return "unreachable"
}
