package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/server"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// identity is a connection that logs in as the lines say; they begin on line 4.
func identity(lines ...string) string {
	return "connections:\n  - name: a\n    address: https://vault.example:8200\n    " + strings.Join(lines, "\n    ") + "\n"
}

func TestAConnectionLogsInWithThePodsOwnIdentity(t *testing.T) {
	const clientCert = "tls: {client_cert_file: /tls/crt, client_key_file: /tls/key}"
	const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" // #nosec G101 -- a path
	tests := []struct {
		name string
		text string
		want login.Role
	}{
		{"kubernetes, with defaults", identity("auth: {method: kubernetes, role: worker}"), login.Role{
			Method: vault.MethodKubernetes, AuthMount: "kubernetes", RoleName: "worker", JWT: login.Credential{File: podToken},
		}},
		{"kubernetes, with everything", identity("auth:", "  method: kubernetes", "  mount: /clusters/eu/", "  namespace: admin/", "  role: worker",
			"  token_file: /token"), login.Role{
			Method: vault.MethodKubernetes, AuthMount: "clusters/eu", AuthNamespace: "admin", RoleName: "worker", JWT: login.Credential{File: "/token"},
		}},
		{"jwt", identity("auth: {method: jwt, role: worker, token_file: /svid}"), login.Role{
			Method: vault.MethodJWT, AuthMount: "jwt", RoleName: "worker", JWT: login.Credential{File: "/svid"},
		}},
		{"cert", identity("auth: {method: cert, role: worker}", clientCert), login.Role{
			Method: vault.MethodCert, AuthMount: "cert", RoleName: "worker",
		}},
		{"the mount beside auth", identity("auth: {method: cert, role: worker}", "auth_mount: pki-login", clientCert), login.Role{
			Method: vault.MethodCert, AuthMount: "pki-login", RoleName: "worker",
		}},
		{"AppRole by name", with("auth: {method: approle, mount: team, namespace: admin}"), appRole("team", "admin")},
		{"AppRole without auth", minimal, appRole("approle", "")},
		{"AppRole with its mount beside", with("auth_mount: team"), appRole("team", "")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := load(t, test.text).Connections[0].Vault.Role; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func appRole(mount, namespace string) login.Role {
	role := login.Role{RoleID: login.Credential{Value: redact.New("role")}, SecretID: login.Credential{Value: redact.New("secret")}}
	role.AuthMount, role.AuthNamespace = mount, namespace
	return role
}

func TestMistakesInAuthAreReportedAtTheirPlace(t *testing.T) {
	const clientCert = "tls: {client_cert_file: /tls/crt, client_key_file: /tls/key}"
	const at = "connections[0]."
	tests := []struct {
		name, text string
		want       []string // beginnings of the lines
	}{
		{"no method", identity("auth: {role: worker}"), []string{"4:11: " + at + "auth.method: is missing: write approle, kubernetes, jwt or cert"}},
		{"nothing", identity("auth:"), []string{"4:5: " + at + "auth.method: is missing"}},
		{"a text", identity("auth: kubernetes"), []string{"4:11: " + at + "auth: want keys here: method,"}},
		{"an unknown method", identity("auth: {method: k8s, role: worker}"), []string{"4:20: " + at + "auth.method: want approle, kubernetes, jwt or cert"}},
		{"a misspelt method", identity("auth: {method: kubernets, role: worker}"), []string{"4:20: " + at + "auth.method: want approle, kubernetes, jwt or cert: did you mean kubernetes?"}},
		{"a misspelt key", identity("auth: {method: kubernetes, rol: worker}"), []string{`4:32: ` + at + `auth: unknown key "rol": did you mean "role"?`}},
		{"no role", identity("auth: {method: kubernetes}"), []string{"4:11: " + at + "auth.role: is missing"}},
		{"an empty role", identity("auth: {method: kubernetes, role: ''}"), []string{"4:38: " + at + "auth.role: "}},
		{"jwt without a file", identity("auth: {method: jwt, role: worker}"), []string{"4:11: " + at + "auth.token_file: is missing: name the file"}},
		{"cert without a certificate", identity("auth: {method: cert, role: worker}"), []string{"4:11: " + at + "auth: method cert logs in with a client certificate: give tls:"}},
		{"cert with a token", identity("auth: {method: cert, role: worker, token_file: /t}", clientCert), []string{"4:52: " + at + "auth.token_file: cert logs in with tls.client_cert_file"}},
		{"cert without TLS", strings.Replace(identity("auth: {method: cert, role: worker}", clientCert), "https:", "http:", 1),
			[]string{"3:14: " + at + "address: method cert shows a client certificate, which needs https://"}},
		{"both mounts", identity("auth_mount: a", "auth: {method: kubernetes, role: worker, mount: b}"), []string{"5:53: " + at + "auth.mount: auth_mount says it too, on line 4"}},
		{"auth in the mount", identity("auth: {method: kubernetes, role: worker, mount: auth/k}"), []string{"4:53: " + at + "auth.mount: leave the leading auth/ out"}},
		{"a role_id beside", identity("role_id: r", "auth: {method: kubernetes, role: worker}"), []string{"4:14: " + at + "role_id: belongs to AppRole, and auth.method is kubernetes: remove it"}},
		{"every key of AppRole", identity("role_id_file: /r", "secret_id_env: SET", "bind_secret_id: false", "auth: {method: jwt, role: worker, token_file: /t}"), []string{
			"4:19: " + at + "role_id_file: belongs to AppRole", "5:20: " + at + "secret_id_env: belongs", "6:21: " + at + "bind_secret_id: belongs",
		}},
		{"a role of AppRole", with("auth: {method: approle, role: worker}"), []string{"6:35: " + at + "auth.role: AppRole has none: give role_id"}},
		{"a slip beside", identity("token_file: /t", "auth: {method: kubernetes, role: worker}"), []string{`4:5: ` + at[:len(at)-1] + `: unknown key "token_file": write it under auth`}},
		{"a slip inside", identity("auth: {method: kubernetes, role: worker, audience: vault}"), []string{`4:46: ` + at + `auth: unknown key "audience": the audience is that of the token's issuer`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := mistakesOf(t, test.text)
			if len(got) != len(test.want) || !slices.EqualFunc(got, test.want, strings.HasPrefix) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestATokenFileThatCannotBeUsedIsFoundByTheCheckOfFiles(t *testing.T) {
	const expired = "e30.eyJleHAiOjF9.c2ln"
	file := filepath.Join(t.TempDir(), "token")
	for content, want := range map[string]string{
		"":                "the file is empty",
		"no token":        "the file holds no JSON Web Token",
		expired:           "the file holds a token that has expired: let whoever writes the file renew it",
		"e30.e30.c2ln":    "",
		"e30.e30.c2ln\n":  "",
		"e30.e30.c2ln\nx": "the file holds several lines",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := load(t, identity("auth: {method: jwt, role: worker, token_file: "+file+"}"))
		mistakes := config.CheckFiles(cfg)
		switch {
		case want == "" && len(mistakes) == 0:
		case len(mistakes) != 1 || mistakes[0].Path != "connections[0].auth.token_file" || mistakes[0].Line != 4 || !strings.HasPrefix(mistakes[0].Message, want):
			t.Errorf("%q: %v, want %q", content, mistakes, want)
		}
	}
}

func TestAnAddedConnectionKeepsHowItLogsIn(t *testing.T) {
	clientCert := vault.TLS{ClientCertFile: "/tls/crt", ClientKeyFile: "/tls/key"}
	for name, settings := range map[string]conn.Settings{
		"kubernetes": {Role: login.Role{Method: vault.MethodKubernetes, RoleName: "worker"}},
		"jwt": {Role: login.Role{Method: vault.MethodJWT, RoleName: "worker", AuthMount: "ci", AuthNamespace: "admin",
			JWT: login.Credential{File: "/token"}}},
		"cert":                         {Role: login.Role{Method: vault.MethodCert, RoleName: "worker"}, Endpoint: vault.Endpoint{TLS: clientCert}},
		"AppRole of another namespace": {Role: appRole("team", "admin")},
	} {
		t.Run(name, func(t *testing.T) {
			settings.Address = "https://vault.example:8200"
			path := filepath.Join(t.TempDir(), "config.yaml")
			if err := config.AddConnection(path, server.Connection{Name: "new", Scope: server.ScopePlatform, Vault: settings}); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(path, env(nil))
			if err != nil {
				t.Fatal(err)
			}
			want := settings
			want.AuthMount = want.Mount()
			if want.Method == vault.MethodKubernetes {
				want.JWT.File = "/var/run/secrets/kubernetes.io/serviceaccount/token"
			}
			if got := cfg.Connections[0].Vault; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
