package vault

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const (
	doingLogin  = "log in"
	doingLookup = "look the secret_id up"
)

// AppRole names a role of an AppRole auth method.
type AppRole struct {
	// Mount is where the method is mounted, without slashes around it.
	Mount string
	// RoleID names the role. SecretID is empty for a role with bind_secret_id=false.
	RoleID, SecretID redact.String
}

// LoginFate is what a login may have cost the role in Vault's eyes.
type LoginFate int

const (
	// LoginGranted means that Vault accepted the login.
	LoginGranted LoginFate = iota + 1
	// LoginRejected means that Vault counted a failure against the role, or may have.
	LoginRejected
	// LoginNotTried means that Vault did not judge the login: it never arrived, or Vault said that
	// it cannot judge now.
	LoginNotTried
	// LoginLost means that the login may have arrived, but no answer came back.
	LoginLost
)

// Login logs in and returns the token. The fate says what the attempt may have cost, whatever the
// error. Errors: ErrLoginRejected, which says what to fix; an outage; ctx's own.
func (c *Client) Login(ctx context.Context, role AppRole) (*Token, LoginFate, error) {
	body := map[string]string{"role_id": role.RoleID.Reveal()}
	if !role.SecretID.IsEmpty() {
		body["secret_id"] = role.SecretID.Reveal()
	}
	ctx, sent := withSent(ctx)
	began := time.Now()
	ans, err := c.do(ctx, request{doing: doingLogin, kind: CallLogin, method: http.MethodPost,
		path: "auth/" + role.Mount + "/login", template: "auth/{mount}/login", body: body})
	if err != nil {
		return nil, fateOf(ans, sent()), err
	}
	auth := ans.body.Auth
	if ans.status != http.StatusOK || auth == nil || auth.ClientToken == "" {
		return nil, LoginRejected, rejectedLogin(ans)
	}
	granted := newToken(auth, began)
	if auth.NumUses > 0 {
		_ = c.Revoke(ctx, granted) // if that fails, the token expires by itself
		return nil, LoginRejected, loginError("the role grants tokens of limited use: set token_num_uses=0 on the role")
	}
	return granted, LoginGranted, nil
}

// fateOf decides what a login that ended in an outage has cost. Vault's own answers say that it has
// not judged. But a proxy may have replaced Vault's answer with its own: then the login is in
// doubt, and a status that Vault also rejects with counts as a rejection.
func fateOf(ans *answer, sent bool) LoginFate {
	switch {
	case ans == nil && !sent:
		return LoginNotTried
	case ans == nil:
		return LoginLost
	case !ans.broken && ans.text != nil, ans.wantsTLS(), ans.wantsCertificate():
		return LoginNotTried
	case ans.status == http.StatusBadRequest || ans.status == http.StatusForbidden:
		return LoginRejected
	case ans.status == http.StatusProxyAuthRequired, isRedirect(ans.status) && len(ans.text) == 0:
		return LoginNotTried // a proxy that let nothing through, or a standby
	}
	return LoginLost // a proxy that answers in Vault's place may have passed the login on
}

// rejectedLogin explains an answer that grants no token, and says what to do.
func rejectedLogin(ans *answer) error {
	switch {
	case ans.status == http.StatusBadRequest && ans.mentions("missing secret_id"):
		return loginError("the role wants a secret_id: set secret_id or secret_id_file")
	case ans.mentions("CIDR restrictions", cidrBlocks):
		return loginError("the role or the secret_id is bound to other networks than the sidecar's: look at secret_id_bound_cidrs of the role " +
			"and at the secret_id's cidr_list, or issue a new secret_id")
	case ans.status == http.StatusBadRequest && ans.mentions("root token"):
		return loginError("take the policy root from the role: no auth method grants it")
	case ans.status == http.StatusBadRequest, ans.status >= 500:
		return loginError("check role_id and secret_id: one is wrong, expired or used up, or the role is bound to " +
			"other networks; issue a new secret_id")
	case ans.status == http.StatusForbidden:
		return loginError("check auth_mount and namespace, and that the AppRole method is enabled there; if all is right, Vault has " +
			"locked the role after too many failed logins: wait 15 minutes. Once it is mended, renew the login to try at once")
	case ans.body.WrapInfo != nil:
		return loginError(wrappedRemedy)
	case ans.status == http.StatusOK:
		return loginError("Vault granted no token: check for login MFA on the auth mount, which a sidecar cannot answer")
	}
	return loginError("check auth_mount and namespace: no AppRole auth method answers there")
}

func loginError(remedy string) *CallError {
	return &CallError{Sentinel: ErrLoginRejected, Doing: doingLogin, Remedy: remedy}
}

// SecretIDExpiry asks when the role's secret_id expires, using a token of that role. The zero time
// means never. Errors: ErrNotAllowed when Vault does not say, an outage, or ctx's own.
func (c *Client) SecretIDExpiry(ctx context.Context, token *Token, role AppRole) (time.Time, error) {
	ans, err := c.do(ctx, request{doing: doingLookup, kind: CallLookup, method: http.MethodPost, token: token.ID,
		path: "auth/" + role.Mount + "/role/" + token.Role + "/secret-id/lookup", template: "auth/{mount}/role/{role}/secret-id/lookup",
		body: map[string]string{"secret_id": role.SecretID.Reveal()}})
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
