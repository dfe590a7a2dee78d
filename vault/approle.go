package vault

import (
	"context"
	"net/http"
	"strings"
	"time"
)

const doingLookup = "look the secret_id up"

// whyRejectedByAppRole says what to do after an answer that grants no token.
func whyRejectedByAppRole(ans *answer) string {
	switch {
	case ans.status == http.StatusBadRequest && ans.mentions("missing secret_id"):
		return "the role wants a secret_id: set secret_id or secret_id_file"
	case ans.mentions("CIDR restrictions", cidrBlocks):
		return "the role or the secret_id is bound to other networks than the sidecar's: look at secret_id_bound_cidrs of the role " +
			"and at the secret_id's cidr_list, or issue a new secret_id"
	case ans.mentions(noCertificate...), ans.endsIn("missing role"):
		return "another auth method than AppRole is mounted there: check auth_mount, or name the method in auth: {method: …}"
	case ans.status == http.StatusBadRequest, ans.status >= 500:
		return "check role_id and secret_id: one is wrong, expired or used up, or the role is bound to " +
			"other networks; issue a new secret_id"
	case ans.status == http.StatusForbidden:
		return "check auth_mount and namespace, and that the AppRole method is enabled there; if all is right, Vault has " +
			"locked the role after too many failed logins: wait 15 minutes. Once it is mended, renew the login to try at once"
	}
	return "check auth_mount and namespace: no AppRole auth method answers there"
}

// SecretIDExpiry asks when the secret_id of an AppRole expires, using a token of that role. The
// zero time means never. Errors: ErrNotAllowed when Vault does not say, an outage, or ctx's own.
func (c *Client) SecretIDExpiry(ctx context.Context, token *Token, who Identity) (time.Time, error) {
	ans, err := c.do(ctx, request{doing: doingLookup, kind: CallLookup, method: http.MethodPost, token: token.ID,
		path: "auth/" + who.Mount + "/role/" + token.Role + "/secret-id/lookup", template: "auth/{mount}/role/{role}/secret-id/lookup",
		body: map[string]string{"secret_id": who.SecretID.Reveal()}})
	if err != nil {
		return time.Time{}, err
	}
	if ans.status != http.StatusOK || ans.misshaped || ans.body.Data == nil {
		return time.Time{}, &CallError{Sentinel: ErrNotAllowed, Doing: doingLookup, Status: ans.status}
	}
	return ans.body.Data.ExpirationTime, nil
}

// HasPlainRole reports whether Vault named the token's role and the name is a single path segment.
func (t *Token) HasPlainRole() bool {
	return t.Role != "" && t.Role != "." && t.Role != ".." && !strings.Contains(t.Role, "/")
}
