package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// readSecrets is a policy that lets a role read the mount "secret". A role also gets Vault's
// default policy, with renew-self and revoke-self, unless its parameters say otherwise.
const readSecrets = `path "secret/*" { capabilities = ["read"] }`

// login is an AppRole in a Vault, with a secret_id in a file of the sandbox's.
type login struct {
	sandbox      *sandbox
	vault        *vaulttest.Vault
	role         string
	roleID       string
	secretID     string
	secretIDFile string
}

// newLogin makes an AppRole of its own for a sidecar.
func (s *sandbox) newLogin(v *vaulttest.Vault, params map[string]any, policy string) *login {
	s.t.Helper()
	l := &login{sandbox: s, vault: v, role: vaulttest.Unique("e2e")}
	l.roleID, l.secretID = v.AppRole(s.t, l.role, params, policy)
	s.keep(l.secretID)
	l.secretIDFile = s.write(l.role, l.secretID+"\n")
	return l
}

// defaultLogin is a login that may read the mount "secret".
func (s *sandbox) defaultLogin(v *vaulttest.Vault) *login {
	s.t.Helper()
	return s.newLogin(v, nil, readSecrets)
}

// newSecretID makes one more secret_id for the role.
func (l *login) newSecretID() string {
	l.sandbox.t.Helper()
	return l.sandbox.keep(l.vault.SecretID(l.sandbox.t, "approle", l.role))
}

// destroySecretID makes a secret_id worthless.
func (l *login) destroySecretID(secretID string) {
	l.sandbox.t.Helper()
	l.sandbox.asRoot(l.vault, http.MethodPost, "auth/approle/role/"+l.role+"/secret-id/destroy",
		map[string]any{"secret_id": secretID})
}

// wrappedSecretID makes a secret_id for the role and returns a token that unwraps to it once.
func (l *login) wrappedSecretID() string {
	l.sandbox.t.Helper()
	return l.sandbox.keep(l.vault.WrappedSecretID(l.sandbox.t, "approle", l.role, 2*time.Minute))
}

// asRoot asks Vault with its root token, fails the test unless it succeeds, and returns the
// answer's data.
func (s *sandbox) asRoot(v *vaulttest.Vault, method, path string, body any) map[string]any {
	s.t.Helper()
	status, answer := v.Do(s.t, method, path, body)
	if status/100 != 2 {
		s.t.Fatalf("%s %s: Vault answered %d %v", method, path, status, answer)
	}
	data, _ := answer["data"].(map[string]any)
	return data
}

// writeSecret writes one key of a secret and registers its value.
func (s *sandbox) writeSecret(v *vaulttest.Vault, path, key, value string) {
	s.t.Helper()
	v.WriteSecret(s.t, path, map[string]any{key: s.keep(value)})
}

// connection is a connection of a configuration file: the login at an address, with more lines of
// YAML that replace those with the same key.
func (l *login) connection(name, address string, more ...string) string {
	lines := []string{"scope: platform", "address: " + address, "role_id: " + l.roleID,
		"secret_id_file: " + l.secretIDFile}
	var text strings.Builder
	fmt.Fprintf(&text, "  - name: %s\n", name)
	for _, line := range append(lines, more...) {
		if key, _, _ := strings.Cut(line, ":"); isReplaced(key, line, more) {
			continue
		}
		fmt.Fprintf(&text, "    %s\n", line)
	}
	return text.String()
}

// isReplaced reports whether one of more stands in for a default line. All ways to give a
// credential are one.
func isReplaced(key, line string, more []string) bool {
	for _, other := range more {
		otherKey, _, _ := strings.Cut(other, ":")
		if other != line && family(otherKey) == family(key) {
			return true
		}
	}
	return false
}

func family(key string) string {
	switch key {
	case "secret_id", "secret_id_file", "secret_id_env":
		return "secret_id"
	case "role_id", "role_id_file", "role_id_env":
		return "role_id"
	default:
		return key
	}
}

// configText is a configuration with the sandbox's socket.
func (s *sandbox) configText(connections ...string) string {
	return fmt.Sprintf("socket: {path: %s}\nconnections:\n%s", s.socket(),
		strings.Join(connections, ""))
}

// config writes a configuration with the sandbox's socket and returns the file's path.
func (s *sandbox) config(connections ...string) string {
	s.t.Helper()
	return s.write("config.yaml", s.configText(connections...))
}
