package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

var restarts = flag.Int("restarts", 50,
	"how often TestRestartsWithAPodsOwnTokenRejectNoLogin restarts the sidecar")

const (
	kubernetesLoginPath = "auth/kubernetes/login"
	jwtLoginPath        = "auth/jwt/login"
)

// identitySetup is a Vault that trusts a cluster and an issuer, and a pod's token in a projected
// volume.
type identitySetup struct {
	*sandbox
	vault   *vaulttest.Vault
	proxy   *proxy
	cluster *vaulttest.Kubernetes
	issuer  *vaulttest.Issuer
	token   *volume
	secret  string // the value of secret/data/app/key
}

func newIdentitySetup(t *testing.T, v *vaulttest.Vault) *identitySetup {
	t.Helper()
	s := newSandbox(t)
	i := &identitySetup{sandbox: s, vault: v, proxy: s.newProxy(v),
		cluster: vaulttest.NewKubernetes(t), issuer: vaulttest.NewIssuer(t),
		token: s.newVolume("identity"), secret: s.newSecret()}
	s.writeSecret(v, "secret/data/app", "key", i.secret)
	v.Policy(t, "worker", readSecrets)
	v.KubernetesRole(t, i.cluster, "kubernetes", "worker", "worker")
	v.JWTRole(t, i.issuer, "jwt", "worker", "worker")
	i.rotate()
	return i
}

// rotate puts new tokens into the volume, as the kubelet does, and returns the cluster's.
func (i *identitySetup) rotate() string {
	i.t.Helper()
	token := i.keep(i.cluster.Token(i.t, "flows", "worker", nil))
	i.token.swap(map[string]string{"token": token, "jwt": i.keep(i.issuer.Token(i.t, nil))})
	return token
}

// connection is the connection prod, which logs in as the lines say.
func (i *identitySetup) connection(lines ...string) string {
	lines = append([]string{"address: " + i.proxy.address, timeoutOf(noOutage)}, lines...)
	return "  - name: prod\n    " + strings.Join(lines, "\n    ") + "\n"
}

func (i *identitySetup) byKubernetes(role string) string {
	return i.connection(fmt.Sprintf("auth: {method: kubernetes, role: %s, token_file: %s}", role,
		i.token.file("token")))
}

func (i *identitySetup) byJWT() string {
	return i.connection(fmt.Sprintf("auth: {method: jwt, role: worker, token_file: %s}",
		i.token.file("jwt")))
}

// rejected is how many logins Vault has not granted.
func (i *identitySetup) rejected() int {
	logins := 0
	for _, path := range []string{loginPath, kubernetesLoginPath, jwtLoginPath} {
		logins += i.proxy.count(path)
	}
	return logins - len(i.proxy.granted())
}

// ready reports whether the connection is READY, and nothing is wrong with it.
func ready(r *sidecar) bool {
	one := r.status("prod")
	return one.GetState() == secretsidecarv1.ConnectionState_CONNECTION_STATE_READY &&
		one.GetLastError() == nil
}

// lastErrorSays reports whether the connection's last error holds the text.
func lastErrorSays(r *sidecar, text string) bool {
	return strings.Contains(r.status("prod").GetLastError().GetMessage(), text)
}

func TestAMigrationFromAppRoleToThePodsOwnIdentityFailsNoRequest(t *testing.T) {
	t.Parallel()
	i := newIdentitySetup(t, vaulttest.RealPrivate(t))
	l := i.defaultLogin(i.vault)
	byAppRole := l.connection("prod", i.proxy.address, timeoutOf(noOutage))
	r := i.start("--config", i.config(byAppRole))
	stopLoad := r.underLoad("prod", "secret/data/app/key", i.secret)
	defer stopLoad()
	for _, step := range []struct{ connection, login string }{
		{i.byKubernetes("worker"), kubernetesLoginPath},
		{i.byJWT(), jwtLoginPath},
		{byAppRole, loginPath},
	} {
		before := i.proxy.count(step.login)
		i.config(step.connection)
		eventually(t, "one login by "+step.login,
			func() bool { return i.proxy.count(step.login) == before+1 })
		// Until then, the connection that is READY may be the one before.
		eventually(t, "Vault grants each login", func() bool { return i.rejected() == 0 })
		eventually(t, "the connection is READY after it", func() bool { return ready(r) })
	}

	// A role that Vault does not have yet: the login in use goes on, and the change takes effect
	// once there is one.
	i.config(i.byKubernetes("later"))
	eventually(t, "the error names the remedy",
		func() bool { return lastErrorSays(r, "check auth.role") })
	i.vault.Write(t, "auth/kubernetes/role/later", map[string]any{"audience": "vault",
		"bound_service_account_names": "worker", "bound_service_account_namespaces": "flows",
		"token_policies": "worker"})
	eventually(t, "the connection is READY with the new role", func() bool { return ready(r) })
	stopLoad()
}

func TestAPodsTokenRotatesUnderLoadAHundredTimes(t *testing.T) {
	t.Parallel()
	i := newIdentitySetup(t, vaulttest.RealPrivate(t))
	r := i.start("--config", i.config(i.byKubernetes("worker")))
	stopLoad := r.underLoad("prod", "secret/data/app/key", i.secret)
	defer stopLoad()
	old := i.rotate()
	for n := range 100 {
		next := i.rotate()
		i.cluster.Revoke(old) // as the cluster does once it has expired
		old = next
		if n%20 == 19 {
			if err := r.renewLogin(); err != nil {
				t.Errorf("after %d rotations: %v", n+1, err)
			}
		}
	}
	stopLoad()
	logins, rejected := i.proxy.count(kubernetesLoginPath), i.rejected()
	if logins > 6 || rejected != 0 {
		t.Errorf("%d logins, %d rejected", logins, rejected)
	}
}

func TestRestartsWithAPodsOwnTokenRejectNoLogin(t *testing.T) {
	t.Parallel()
	i := newIdentitySetup(t, vaulttest.RealPrivate(t))
	config := i.config(i.byKubernetes("worker"))
	for range *restarts {
		r := i.start("--config", config)
		r.value("secret/data/app/key", i.secret, secretsidecarv1.Source_SOURCE_VAULT)
		r.stop()
		i.rotate()
	}
	logins, rejected := i.proxy.count(kubernetesLoginPath), i.rejected()
	if logins != *restarts || rejected != 0 {
		t.Errorf("%d logins, %d rejected", logins, rejected)
	}
	if revoked := i.proxy.count("auth/token/revoke-self"); revoked != *restarts {
		t.Errorf("%d tokens were given back", revoked)
	}
}

func TestATokenOfAPodThatCannotBeUsedIsToldAndHealsByItself(t *testing.T) {
	t.Parallel()
	i := newIdentitySetup(t, vaulttest.RealPrivate(t))
	auth := "auth: {method: kubernetes, role: worker, token_file: " + i.path("later") + "}"
	r := i.startUnready("--config", i.config(i.connection(auth)))
	token := func(changed vaulttest.Claims) string {
		return i.keep(i.cluster.Token(t, "flows", "worker", changed))
	}
	for _, step := range []struct{ token, hint string }{
		{"", "cannot be read"},
		{token(vaulttest.Claims{"exp": 1}), "holds a token that has expired"},
		{token(vaulttest.Claims{"aud": []string{"other"}}), "for another audience"},
		{i.keep(i.cluster.Token(t, "flows", "other", nil)), "bound_service_account_names"},
	} {
		if step.token != "" {
			i.must(os.WriteFile(i.path("later"), []byte(step.token), 0o600))
		}
		eventually(t, "the error says "+step.hint,
			func() bool { return lastErrorSays(r, step.hint) })
	}
	i.must(os.WriteFile(i.path("later"), []byte(i.rotate()), 0o600))
	eventually(t, "the secret is there", func() bool {
		_, err := r.resolve("secret/data/app/key")
		return err == nil
	})
}

func TestConnectionsAddAndASpecTakeAPodsOwnIdentity(t *testing.T) {
	t.Parallel()
	i := newIdentitySetup(t, vaulttest.RealPrivate(t))
	config := i.path("added.yaml")
	added := i.run("connections", "add", "prod", "--config", config, "--address", i.proxy.address,
		"--auth-method", "kubernetes", "--auth-role", "worker", "--token-file",
		i.token.file("token"), "--path", "secret/data/app/key")
	if added.code != 0 || !strings.Contains(added.stdout, "saved connection prod") {
		t.Fatalf("add: %d %s%s", added.code, added.stdout, added.stderr)
	}
	refused := i.run("connections", "test", "--address", i.proxy.address, "--auth-method", "jwt",
		"--auth-role", "nope", "--token-file", i.token.file("jwt"))
	if refused.code != 1 || !strings.Contains(refused.stdout, "check auth.role") {
		t.Errorf("test: %d %s%s", refused.code, refused.stdout, refused.stderr)
	}
	r := i.start("--config", config, "--socket", i.socket())
	r.value("secret/data/app/key", i.secret, fromVault)
	spec := &secretsidecarv1.ConnectionSpec{Name: "new", Address: i.proxy.address, AuthMethod: "jwt",
		AuthRole: "worker", AuthToken: i.keep(i.issuer.Token(t, nil))}
	report, err := r.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: spec}, Path: "secret/data/app/key"})
	if err != nil || !report.GetOk() {
		t.Errorf("a spec: %v, %v", report, err)
	}
}
