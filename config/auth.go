package config

import (
	"cmp"
	"strings"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// serviceAccountToken is where Kubernetes puts the token of a pod's service account, unless the pod
// is told otherwise.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" // #nosec G101 -- a path

// appRoleKeys are the keys that AppRole alone has.
var appRoleKeys = []string{
	"role_id", "role_id_file", "role_id_env", "secret_id", "secret_id_file", "secret_id_env", "secret_id_wrapped", "bind_secret_id",
}

// role reads how the connection logs in; what it is to connect to stands in s already.
func (r *reader) role(m mapping, s conn.Settings) login.Role {
	auth := m.at("auth").mapping(authKeys...)
	method, known := auth.method()
	if !known {
		return login.Role{}
	}
	role := login.Role{
		Method:        method,
		AuthMount:     mountOf(m.at("auth_mount"), auth.at("mount"), method),
		AuthNamespace: strings.Trim(auth.at("namespace").text(""), "/"),
	}
	switch method {
	case vault.MethodAppRole:
		auth.refuse("AppRole has none: give role_id and secret_id_file beside auth", "role", "token_file")
		role.RoleID = r.credential(m, "role_id")
		role.SecretID = r.credential(m, "secret_id")
		role.SecretIDWrapped = m.at("secret_id_wrapped").boolean(false)
		m.checkCredentials(role.SecretIDWrapped)
		return role
	case vault.MethodCert:
		auth.refuse("cert logs in with tls.client_cert_file: remove it", "token_file")
		checkClientCert(m, s)
	case vault.MethodKubernetes, vault.MethodJWT:
		role.JWT = r.tokenFile(auth, method)
	}
	role.RoleName = auth.role()
	m.refuse("belongs to AppRole, and auth.method is "+method.String()+": remove it", appRoleKeys...)
	return role
}

// method reads the auth method; false when that is a mistake.
func (m mapping) method() (vault.Method, bool) {
	v, names := m.at("method"), vault.MethodNames()
	switch {
	case !m.present():
		return vault.MethodAppRole, true
	case !m.valid || !v.present() && m.meant["method"]:
		return 0, false
	case !v.present():
		v.mistake("is missing: write %s", orList(names))
		return 0, false
	}
	method, known := vault.ParseMethod(v.text(""))
	if known {
		return method, true
	}
	message := "want " + orList(names)
	if meant := nearest(v.scalarText(), names); meant != "" {
		message += ": did you mean " + meant + "?"
	}
	v.mistake("%s", message)
	return 0, false
}

func orList(texts []string) string {
	last := len(texts) - 1
	return strings.Join(texts[:last], ", ") + " or " + texts[last]
}

// mountOf reads the mount, which may stand in one of two places.
func mountOf(beside, within value, method vault.Method) string {
	if beside.present() && within.present() {
		within.mistake("auth_mount says it too, on line %d: remove one of the two", beside.origin().Line)
	}
	return cmp.Or(within.authMount(""), beside.authMount(""), method.String())
}

// refuse notes message at every one of the keys that is there.
func (m mapping) refuse(message string, keys ...string) {
	for _, key := range keys {
		if v := m.at(key); v.present() {
			v.mistake("%s", message)
		}
	}
}

func (m mapping) role() string {
	v := m.at("role")
	if !v.present() && m.meant["role"] {
		return ""
	}
	return v.requiredText()
}

func (r *reader) tokenFile(auth mapping, method vault.Method) login.Credential {
	v := auth.at("token_file")
	switch {
	case v.present():
		return login.Credential{File: r.file(v)}
	case method == vault.MethodKubernetes:
		return login.Credential{File: serviceAccountToken}
	case !auth.meant["token_file"]:
		v.mistake("is missing: name the file in which the issuer's helper keeps the token")
	}
	return login.Credential{}
}

// checkClientCert notes what keeps a client certificate from Vault.
func checkClientCert(m mapping, s conn.Settings) {
	if !s.TLS.HasClientCert() {
		m.at("auth").mistake("method cert logs in with a client certificate: give tls: {client_cert_file: …, client_key_file: …}")
	}
	if strings.HasPrefix(s.Address, "http://") {
		m.at("address").mistake("method cert shows a client certificate, which needs https://")
	}
}
