package vault

import (
	"context"
	"net/http"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const doingUnwrap = "unwrap the secret_id"

// UnwrapSecretID opens a response-wrapping token, which works only once, and returns the secret_id
// inside. Errors: ErrLoginRejected when the token is spent or was not made for a secret_id, an
// outage, or ctx's own.
func (c *Client) UnwrapSecretID(ctx context.Context,
	wrappingToken redact.String) (redact.String, error) {
	if err := c.checkWrapping(ctx, wrappingToken); err != nil {
		return redact.String{}, err
	}
	ans, err := c.do(ctx, request{doing: doingUnwrap, kind: CallUnwrap, method: http.MethodPost,
		path:  "sys/wrapping/unwrap",
		token: wrappingToken})
	switch {
	case err != nil:
		return redact.String{}, err
	case ans.saysSpent(), ans.status == http.StatusNoContent:
		return redact.String{}, spentWrappingToken()
	case ans.status >= http.StatusBadRequest && ans.body.Data == nil:
		return redact.String{},
			unwrapRejected("Vault refuses to open the wrapping token: check the namespace of the " +
				"connection; if it is right, " +
				"issue a new wrapping token")
	case ans.status != http.StatusOK, ans.misshaped, ans.body.Data == nil,
		ans.body.Data.SecretID == "":
		return redact.String{},
			unwrapRejected("the wrapping token holds no secret_id: wrap the answer of the role's " +
				"secret-id endpoint")
	}
	return redact.New(ans.body.Data.SecretID), nil
}

// checkWrapping refuses a wrapping token that Vault did not make for a secret_id: an attacker may
// have opened the right one and put another in its place.
func (c *Client) checkWrapping(ctx context.Context, wrappingToken redact.String) error {
	ans, err := c.do(ctx, request{doing: doingUnwrap, kind: CallUnwrap, method: http.MethodPost,
		path: "sys/wrapping/lookup",
		body: map[string]string{"token": wrappingToken.Reveal()}})
	switch {
	case err != nil:
		return err
	case ans.saysSpent():
		return spentWrappingToken()
	case ans.status != http.StatusOK:
		return nil // the lookup is a precaution; unwrapping decides
	case ans.body.Data == nil || !strings.HasSuffix(ans.body.Data.CreationPath, "/secret-id"):
		return unwrapRejected(
			"the wrapping token was not made for a secret_id: treat it as an attack, and issue a " +
				"new one")
	}
	return nil
}

// saysSpent reports whether Vault says for certain that a wrapping token is used, expired, or never
// existed.
func (a *answer) saysSpent() bool {
	return a.mentions("wrapping token is not valid", "no information found")
}

func spentWrappingToken() error {
	return unwrapRejected(
		"the wrapping token was already used, or has expired: unless it was you, by a restart " +
			"with the " +
			"same one, somebody else has the secret_id, and this may be an attack: destroy that " +
			"secret_id and issue a new one")
}

func unwrapRejected(remedy string) error {
	return &CallError{Sentinel: ErrLoginRejected, Doing: doingUnwrap, Remedy: remedy}
}
