package vault

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

const doingLogin = "log in"

// Method is an auth method of Vault's by which a login is made. The zero value is AppRole.
type Method int

const (
	// MethodAppRole logs in with a role_id and perhaps a secret_id. Vault locks a role after 5
	// rejected logins.
	MethodAppRole Method = iota
	// MethodKubernetes logs in with the token of a Kubernetes service account.
	MethodKubernetes
	// MethodJWT logs in with a JSON Web Token of whoever Vault trusts to issue it.
	MethodJWT
	// MethodCert logs in with the client certificate of the connection.
	MethodCert
)

var methodNames = []string{"approle", "kubernetes", "jwt", "cert"}

// String returns the method's name in Vault, which is also its default mount.
func (m Method) String() string {
	if m < 0 || int(m) >= len(methodNames) {
		return fmt.Sprintf("method(%d)", int(m))
	}
	return methodNames[m]
}

// MethodNames returns the names of all methods.
func MethodNames() []string { return slices.Clone(methodNames) }

// ParseMethod returns the method of a name; false when there is none of it.
func ParseMethod(name string) (Method, bool) {
	i := slices.Index(methodNames, name)
	return Method(max(i, 0)), i >= 0
}

// TakesJWT reports whether a login by the method sends a JWT.
func (m Method) TakesJWT() bool { return m == MethodKubernetes || m == MethodJWT }

// Identity is who logs in, and at which auth method.
type Identity struct {
	Method Method
	// Mount is where the method is mounted, without slashes around it.
	Mount string
	// RoleID names an AppRole. SecretID is empty for one with bind_secret_id=false.
	RoleID, SecretID redact.String
	// Role names the role of any other method.
	Role string
	// JWT is the token that kubernetes and jwt take.
	JWT redact.String
}

// body is what a login sends.
func (who Identity) body() map[string]string {
	switch {
	case who.Method.TakesJWT():
		return map[string]string{"role": who.Role, "jwt": who.JWT.Reveal()}
	case who.Method == MethodCert:
		return map[string]string{"name": who.Role}
	}
	body := map[string]string{"role_id": who.RoleID.Reveal()}
	if !who.SecretID.IsEmpty() {
		body["secret_id"] = who.SecretID.Reveal()
	}
	return body
}

// LoginFate is what a login may have cost the role in Vault's eyes.
type LoginFate int

const (
	// LoginGranted means that Vault accepted the login.
	LoginGranted LoginFate = iota + 1
	// LoginRejected means that Vault refused the login, and may have counted it against the role.
	LoginRejected
	// LoginNotTried means that Vault did not judge the login: it never arrived, or Vault said that
	// it cannot judge now.
	LoginNotTried
	// LoginLost means that the login may have arrived, but no answer came back.
	LoginLost
)

// Login logs in and returns the token. The fate says what the attempt may have cost, whatever the
// error. Errors: ErrLoginRejected, which says what to fix; an outage; ctx's own.
func (c *Client) Login(ctx context.Context, who Identity) (*Token, LoginFate, error) {
	ctx, sent := withSent(ctx)
	began := time.Now()
	ans, err := c.do(ctx, request{doing: doingLogin, kind: CallLogin, method: http.MethodPost,
		path: "auth/" + who.Mount + "/login", template: "auth/{mount}/login", body: who.body()})
	if err != nil {
		return nil, fateOf(ans, sent()), err
	}
	auth := ans.body.Auth
	if ans.status != http.StatusOK || auth == nil || auth.ClientToken == "" {
		return nil, LoginRejected, rejectedLogin(who, ans)
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
func rejectedLogin(who Identity, ans *answer) error {
	return loginError(whyRejected(who, ans))
}

func whyRejected(who Identity, ans *answer) string {
	switch {
	case ans.status == http.StatusBadRequest && ans.mentions("root token"):
		return "take the policy root from the role: no auth method grants it"
	case ans.body.WrapInfo != nil:
		return wrappedRemedy
	case ans.status == http.StatusOK:
		return "Vault granted no token: check for login MFA on the auth mount, which a sidecar cannot answer"
	}
	switch who.Method {
	case MethodKubernetes:
		return whyRejectedByKubernetes(who, ans)
	case MethodJWT:
		return whyRejectedByJWT(who, ans)
	case MethodCert:
		return whyRejectedByCert(who, ans)
	case MethodAppRole:
	}
	return whyRejectedByAppRole(ans)
}

func loginError(remedy string) *CallError {
	return &CallError{Sentinel: ErrLoginRejected, Doing: doingLogin, Remedy: remedy}
}
