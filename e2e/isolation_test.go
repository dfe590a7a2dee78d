package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

func TestVaultVariablesNeverLeakIntoAConfiguredConnection(t *testing.T) {
	t.Parallel()
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter,
		*http.Request) {
		trapped.Add(1)
	}))
	t.Cleanup(trap.Close)
	s := newSandbox(t)
	v := vaulttest.RealPrivate(t)
	g := s.newProxy(v)
	value, foreignToken := s.newSecret(), s.newSecret()
	s.writeSecret(v, "secret/data/app", "key", value)
	l := s.defaultLogin(v)
	r := s.startWith([]string{
		"VAULT_ADDR=" + trap.URL,
		"VAULT_AGENT_ADDR=" + trap.URL,
		"VAULT_PROXY_ADDR=" + trap.URL,
		"VAULT_HTTP_PROXY=" + trap.URL,
		"VAULT_TOKEN=" + foreignToken,
		"VAULT_NAMESPACE=leaky",
		"VAULT_HEADERS={\"X-Leaky\": \"yes\"}",
		"VAULT_WRAP_TTL=60s",
		"VAULT_SKIP_VERIFY=perhaps",
		"VAULT_CACERT=/nowhere/ca.pem",
		"VAULT_CLIENT_CERT=/nowhere/cert.pem",
		"VAULT_CLIENT_TIMEOUT=never",
		"VAULT_RATE_LIMIT=many",
		"VAULT_MAX_RETRIES=-1",
		"VAULT_SRV_LOOKUP=true",
		"VAULT_ROLE_ID=foreign-role",
		"VAULT_SECRET_ID=" + s.newSecret(),
	}, "--config", s.config(l.connection("prod", g.address)))
	r.awaitHealth("")
	r.value("secret/data/app/key", value, fromVault)
	r.stop()

	if trapped.Load() != 0 {
		t.Errorf("%d requests went to the address in the environment", trapped.Load())
	}
	for _, one := range g.seen() {
		if one.header.Get("X-Vault-Token") == foreignToken {
			t.Errorf("%s %s carries the token of the environment", one.method, one.path)
		}
		for _, name := range []string{"X-Vault-Namespace", "X-Vault-Wrap-Ttl", "X-Leaky"} {
			if leaked := one.header.Get(name); leaked != "" {
				t.Errorf("%s %s carries %s: %s", one.method, one.path, name, leaked)
			}
		}
	}
	if g.count(loginPath) != 1 || g.count("secret/data/app") != 1 {
		t.Errorf("Vault saw %v", g.seen())
	}
}

func TestWithoutAFileTheVariablesMakeOneConnection(t *testing.T) {
	t.Parallel()
	for name, variables := range map[string]func(l *login) []string{
		"literal": func(l *login) []string {
			return []string{"VAULT_ROLE_ID=" + l.roleID, "VAULT_SECRET_ID=" + l.secretID}
		},
		"files": func(l *login) []string {
			return []string{"VAULT_ROLE_ID_FILE=" + l.sandbox.write("role", l.roleID),
				"VAULT_SECRET_ID_FILE=" + l.secretIDFile}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			v := vaulttest.Dev(t)
			l := s.defaultLogin(v)
			value := s.newSecret()
			s.writeSecret(v, "secret/data/app", "key", value)
			r := s.startWith(append(variables(l), "VAULT_ADDR="+v.Address,
				"VAULT_TOKEN="+s.newSecret()),
				"--socket", s.socket())
			r.awaitHealth("")
			r.awaitHealth("connection/default")
			r.value("secret/data/app/key", value, fromVault)
		})
	}
	t.Run("nothing at all is wrong usage", func(t *testing.T) {
		t.Parallel()
		s := newSandbox(t)
		done := s.run("serve", "--socket", s.socket())
		if done.code != 2 || !strings.Contains(done.stderr, "VAULT_ADDR") {
			t.Errorf("serve ended with %d and says %s", done.code, done.stderr)
		}
	})
}

func TestASecretIDFromTheEnvironment(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	l := s.defaultLogin(v)
	config := s.config(l.connection("prod", v.Address, "secret_id_env: VAULT_MY_SECRET_ID"))
	s.startWith([]string{"VAULT_MY_SECRET_ID=" + l.secretID}, "--config", config).awaitHealth("")
}

func TestTheConfiguredNamespaceGoesWithEveryRequest(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	v := vaulttest.Dev(t)
	g := s.newProxy(v)
	r := s.startUnready("--config",
		s.config(s.defaultLogin(v).connection("prod", g.address, "namespace: team-a")))
	_, _ = r.resolve("secret/data/app/key")
	eventually(t, "a request arrives", func() bool { return len(g.seen()) > 0 })
	for _, one := range g.seen() {
		if namespace := one.header.Get("X-Vault-Namespace"); namespace != "team-a" {
			t.Errorf("%s %s carries the namespace %q", one.method, one.path, namespace)
		}
	}
}
