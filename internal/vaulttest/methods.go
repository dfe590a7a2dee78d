package vaulttest

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// Enable enables an auth method at a mount until the test ends. It skips the test for a method that
// the real Vault does not have, unless a real Vault is required: make test builds the plugin of
// kubernetes, which is not in a small Vault.
func (v *Vault) Enable(t testing.TB, method, mount string) {
	t.Helper()
	status, answer := v.Do(t, http.MethodPost, "sys/auth/"+mount, map[string]any{"type": method})
	if errors, _ := answer["errors"].([]any); status == http.StatusBadRequest && len(errors) > 0 {
		text, _ := errors[0].(string)
		isRequired := os.Getenv("SECRET_SIDECAR_REQUIRE_REAL_VAULT") == "1"
		if strings.HasPrefix(text, "plugin not found") && !isRequired {
			t.Skipf("the real Vault has no auth method %s: make test builds one that has", method)
		}
	}
	if status != http.StatusNoContent {
		t.Fatalf("enable %s at %s: status %d: %v", method, mount, status, answer)
	}
	// A plugin is a process, which ends with its last mount.
	t.Cleanup(func() {
		v.Try(http.MethodDelete, "sys/auth/"+mount, nil) //nolint:errcheck // Vault may be gone
	})
}

// Write writes to a path with the root token.
func (v *Vault) Write(t testing.TB, path string, body map[string]any) {
	t.Helper()
	v.must(t, http.MethodPost, path, body)
}

// KubernetesRole makes a role for the service account worker in the namespace flows and the
// audience "vault", whose tokens have the policies. It enables the method at the mount, for the
// cluster, until the test ends.
func (v *Vault) KubernetesRole(t testing.TB, k *Kubernetes, mount, role, policies string) {
	t.Helper()
	v.Enable(t, "kubernetes", mount)
	v.Write(t, "auth/"+mount+"/config", map[string]any{"kubernetes_host": k.Host,
		"kubernetes_ca_cert": k.CA, "disable_local_ca_jwt": true})
	v.Write(t, "auth/"+mount+"/role/"+role, map[string]any{"bound_service_account_names": "worker",
		"bound_service_account_namespaces": "flows", "audience": "vault", "token_policies": policies,
		"token_ttl": "1h"})
}

// JWTRole makes a role for tokens of the issuer with the audience "vault", whose Vault tokens have
// the policies. It enables the method at the mount until the test ends.
func (v *Vault) JWTRole(t testing.TB, i *Issuer, mount, role, policies string) {
	t.Helper()
	v.Enable(t, "jwt", mount)
	v.Write(t, "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": i.PublicKey(t),
		"bound_issuer": "issuer"})
	v.Write(t, "auth/"+mount+"/role/"+role, map[string]any{"role_type": "jwt", "user_claim": "sub",
		"bound_audiences": "vault", "token_policies": policies, "token_ttl": "1h"})
}

// CertRole makes a role for certificates of the authority that are for the client worker, whose
// tokens have the policies. It enables the method at the mount until the test ends.
func (v *Vault) CertRole(t testing.TB, a *Authority, mount, role, policies string) {
	t.Helper()
	v.Enable(t, "cert", mount)
	v.Write(t, "auth/"+mount+"/certs/"+role, map[string]any{"certificate": a.PEM,
		"allowed_common_names": "worker", "token_policies": policies, "token_ttl": "1h"})
}
