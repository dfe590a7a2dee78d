package conn_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// loginRemedy tests the configuration and returns what the check of the login says to do; "" when
// all is well.
func loginRemedy(t *testing.T, cfg conn.Config) string {
	t.Helper()
	report, err := conn.TestConfig(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.OK() {
		return ""
	}
	check := report.Checks[1]
	if check.Name != "login" || check.Status != conn.CheckFailed || check.Message != "log in: vault rejected the login" {
		t.Fatalf("report %+v", report)
	}
	return check.Remedy
}

// own is a configuration that logs in with a JWT.
func own(v *vaulttest.Vault, method vault.Method, mount, role, token string) conn.Config {
	return conn.Config{Name: "own", Timeout: time.Minute, Settings: conn.Settings{
		Endpoint: vault.Endpoint{Address: v.Address, TLS: vault.TLS{CAPEM: v.CA}},
		Role: login.Role{Method: method, AuthMount: mount, RoleName: role,
			JWT: login.Credential{Value: redact.New(token)}},
	}}
}

func TestKubernetesLoginsNameTheirRemedyOnEveryVault(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		k := vaulttest.NewKubernetes(t)
		mount, role := vaulttest.Unique("kubernetes"), vaulttest.Unique("role")
		v.KubernetesRole(t, k, mount, role, role)
		token := func(changed vaulttest.Claims) string { return k.Token(t, "flows", "worker", changed) }
		ago := time.Now().Add(-2 * time.Minute).Unix() // Vault allows one for clocks
		for name, c := range map[string]struct{ mount, role, token, remedy string }{
			"good":                    {mount, role, token(nil), ""},
			"unknown role":            {mount, "nope", token(nil), "no such role at the mount: check auth.role"},
			"other audience":          {mount, role, token(vaulttest.Claims{"aud": []string{"api"}}), "the audience of the role"},
			"expired":                 {mount, role, token(vaulttest.Claims{"exp": ago}), "the token has expired: whoever writes the token's file"},
			"not yet valid":           {mount, role, token(vaulttest.Claims{"nbf": time.Now().Add(time.Hour).Unix()}), "not yet valid: the clock"},
			"other service account":   {mount, role, k.Token(t, "flows", "other", nil), "bound_service_account_names"},
			"other namespace":         {mount, role, k.Token(t, "other", "worker", nil), "bound_service_account_namespaces"},
			"unknown to the cluster":  {mount, role, vaulttest.NewKubernetes(t).Token(t, "flows", "worker", nil), "the cluster has not confirmed the token"},
			"no such mount":           {"nowhere", role, token(nil), "check auth.mount"},
			"none of service account": {mount, role, token(vaulttest.Claims{"kubernetes.io": 7}), "token"},
		} {
			if got := loginRemedy(t, own(v, vault.MethodKubernetes, c.mount, c.role, c.token)); !strings.Contains(got, c.remedy) || (got == "") != (c.remedy == "") {
				t.Errorf("%s: %q, want %q", name, got, c.remedy)
			}
		}
	})
}

func TestJWTLoginsNameTheirRemedyOnEveryVault(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		i := vaulttest.NewIssuer(t)
		mount, role := vaulttest.Unique("jwt"), vaulttest.Unique("role")
		v.JWTRole(t, i, mount, role, role)
		ago := time.Now().Add(-2 * time.Minute).Unix()
		for name, c := range map[string]struct{ role, token, remedy string }{
			"good":           {role, i.Token(t, nil), ""},
			"unknown role":   {"nope", i.Token(t, nil), "no such role at the mount: check auth.role"},
			"other audience": {role, i.Token(t, vaulttest.Claims{"aud": "other"}), "the audience of the role"},
			"expired":        {role, i.Token(t, vaulttest.Claims{"exp": ago}), "the token has expired: whoever writes the token's file"},
			"not yet valid":  {role, i.Token(t, vaulttest.Claims{"nbf": time.Now().Add(30 * time.Minute).Unix()}), "not yet valid: the clock"},
			"other issuer":   {role, i.Token(t, vaulttest.Claims{"iss": "other"}), "another issuer"},
			"other key":      {role, vaulttest.NewIssuer(t).Token(t, nil), "fits the token's signature"},
		} {
			if got := loginRemedy(t, own(v, vault.MethodJWT, mount, c.role, c.token)); !strings.Contains(got, c.remedy) || (got == "") != (c.remedy == "") {
				t.Errorf("%s: %q, want %q", name, got, c.remedy)
			}
		}
	})
}

func TestCertLoginsNameTheirRemedyOnEveryVault(t *testing.T) {
	t.Parallel()
	vaulttest.EachTLS(t, func(t *testing.T, v *vaulttest.Vault) {
		a, soon := vaulttest.NewAuthority(t), time.Now().Add(time.Hour)
		v.CertRole(t, a, "cert", "worker", "worker")
		for name, c := range map[string]struct {
			role   string
			shown  vaulttest.ClientCertificate
			remedy string
		}{
			"good":            {"worker", a.Issue(t, "worker", soon), ""},
			"unknown role":    {"nope", a.Issue(t, "worker", soon), "check auth.role"},
			"other client":    {"worker", a.Issue(t, "other", soon), "allowed_common_names"},
			"other authority": {"worker", vaulttest.NewAuthority(t).Issue(t, "worker", soon), "no role matches the client certificate"},
			"expired":         {"worker", a.Issue(t, "worker", time.Now().Add(-time.Minute)), "has expired or is not yet valid"},
		} {
			cfg := own(v, vault.MethodCert, "cert", c.role, "")
			cfg.TLS.ClientCertPEM, cfg.TLS.ClientKeyPEM = c.shown.PEM, redact.New(c.shown.KeyPEM)
			if got := loginRemedy(t, cfg); !strings.Contains(got, c.remedy) || (got == "") != (c.remedy == "") {
				t.Errorf("%s: %q, want %q", name, got, c.remedy)
			}
		}
	})
}

func TestARejectedClientCertificateHealsWhenItsFilesAreReplacedOnEveryVault(t *testing.T) {
	t.Parallel()
	vaulttest.EachTLS(t, func(t *testing.T, v *vaulttest.Vault) {
		a, soon := vaulttest.NewAuthority(t), time.Now().Add(time.Hour)
		v.Policy(t, "worker", `path "secret/data/app" { capabilities = ["read"] }`)
		v.WriteSecret(t, "secret/data/app", map[string]any{"key": "value"})
		v.CertRole(t, a, "cert", "worker", "worker")
		folder := t.TempDir()
		write := func(shown vaulttest.ClientCertificate) {
			for name, text := range map[string]string{"tls.crt": shown.PEM, "tls.key": shown.KeyPEM} {
				if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(a.Issue(t, "other", soon))
		cfg := own(v, vault.MethodCert, "cert", "worker", "")
		cfg.TLS.ClientCertFile, cfg.TLS.ClientKeyFile = filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")
		changed := make(chan struct{}, 100)
		cfg.OnChange = func() { changed <- struct{}{} }
		f := &fixture{Vault: v, cfg: cfg}
		c := f.openUnready(t)
		await(t, changed, func() bool { return c.Status().State == conn.StateRejected })
		write(a.Issue(t, "worker", soon))
		await(t, changed, func() bool { return c.Status().State == conn.StateReady })
		if secret, err := c.Read(t.Context(), "secret/data/app", 0); err != nil || secret.Len() != 1 {
			t.Errorf("read: %v", err)
		}
	})
}

// await waits until the condition holds, on a busy machine too.
func await(t *testing.T, changed <-chan struct{}, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("not within a minute")
		}
	}
}
