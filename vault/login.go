package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const doingLogin = "log in"

var (
	// errNotRenewable: tokens of this kind cannot be renewed, or their policies do not allow it.
	errNotRenewable = errors.New("the token cannot be renewed")
	// errPastRenewing: the token's life is at its end.
	errPastRenewing = errors.New("the token can no longer be renewed")
)

// authenticator logs in to one AppRole mount of one Vault. It is immutable and safe for concurrent use.
type authenticator struct {
	api     *vaultAPI
	guard   *Guard
	mount   string
	wrapped bool // secret_ids are wrapping tokens
}

// target is what a login with the role counts for.
func (a *authenticator) target(roleID redact.String) loginTarget {
	return newLoginTarget(a.api.base, a.api.namespace, a.mount, roleID)
}

// logIn takes a token for creds out of Vault; proven ones have been accepted before. Errors: ErrLoginRejected,
// an outage, or ctx's.
func (a *authenticator) logIn(ctx context.Context, creds credentials, proven bool) (*token, error) {
	secretID := creds.secretID
	if a.wrapped {
		var err error
		if secretID, err = a.guard.unwrap(ctx, a.api, creds.secretID); err != nil {
			return nil, err
		}
	}
	sent := time.Now()
	ans, err := a.callLogin(ctx, creds.roleID, secretID, proven)
	if err != nil {
		return nil, err
	}
	auth, errs := parseAuth(ans)
	if auth == nil {
		return nil, rejectedLogin(ans, errs)
	}
	granted := newToken(auth, sent)
	if auth.NumUses > 0 {
		// Give it back; if that fails it dies by its own ttl.
		_ = a.api.revoke(ctx, granted)
		return nil, loginError("the role grants tokens of limited use: set token_num_uses=0 on the role")
	}
	return granted, nil
}

// callLogin makes one login within the guard's budget and tells the guard how it went.
func (a *authenticator) callLogin(ctx context.Context, roleID, secretID redact.String, proven bool) (answer, error) {
	done, err := a.guard.reserve(ctx, a.target(roleID), proven)
	if err != nil {
		return answer{}, err
	}
	body := map[string]string{"role_id": strings.TrimSpace(roleID.Reveal())} // as Vault does
	if !secretID.IsEmpty() {
		body["secret_id"] = secretID.Reveal()
	}
	ans, err := a.api.call(ctx, request{doing: doingLogin, kind: CallLogin, method: http.MethodPost,
		path: "auth/" + a.mount + "/login", template: "auth/{mount}/login", body: body})
	done(isRejection(ans, err))
	return ans, err
}

// isRejection reports whether Vault may have counted a login as failed. A proxy may have put a page of its own in the
// place of Vault's answer, but hardly another status: those with which Vault rejects are counted even so. Another one,
// 404 for example, is the proxy's alone.
func isRejection(ans answer, err error) bool {
	if call, ok := errors.AsType[*CallError](err); ok {
		answered, _ := errors.AsType[statusError](call.Cause)
		return answered == http.StatusBadRequest || answered == http.StatusForbidden
	}
	switch ans.status {
	case http.StatusTooManyRequests, http.StatusPreconditionFailed, 472, 473:
		return false
	}
	return ans.status >= 400 && ans.status < 500
}

// grantedAuth is the `auth` of Vault's answers, with the fields that api.SecretAuth lacks.
type grantedAuth struct {
	api.SecretAuth
	TokenType string `json:"token_type"`
	NumUses   int    `json:"num_uses"`
}

// parseAuth returns the token that an answer grants, or nil and Vault's error texts, which go no further than
// the caller's decision.
func parseAuth(ans answer) (*grantedAuth, []string) {
	var body struct {
		Auth   *grantedAuth `json:"auth"`
		Errors []string     `json:"errors"`
	}
	if err := decode(ans.body, &body); err != nil || ans.status != http.StatusOK ||
		body.Auth == nil || body.Auth.ClientToken == "" {
		return nil, body.Errors
	}
	return body.Auth, nil
}

// rejectedLogin says what to do after an answer that grants no token.
func rejectedLogin(ans answer, errs []string) error {
	switch {
	case ans.status == http.StatusBadRequest && mentions(errs, "missing secret_id"):
		return loginError("the role wants a secret_id: set secret_id or secret_id_file")
	case ans.status == http.StatusBadRequest:
		return loginError("check role_id and secret_id: one is wrong, expired or used up, or the role is bound to " +
			"other networks; issue a new secret_id")
	case ans.status == http.StatusForbidden:
		return loginError("check auth_mount and namespace, and that the AppRole method is enabled there; if all is right, Vault has " +
			"locked the role after too many failed logins: wait 15 minutes. Once it is mended, renew the login to try at once")
	case ans.status == http.StatusOK:
		return loginError("Vault granted no token: check for login MFA on the auth mount, which a sidecar cannot answer")
	}
	return loginError("check auth_mount and namespace: no AppRole auth method answers there")
}

func loginError(remedy string) *CallError {
	return &CallError{Sentinel: ErrLoginRejected, Doing: doingLogin, Remedy: remedy}
}
