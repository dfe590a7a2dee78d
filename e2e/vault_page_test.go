package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

const warning = secretsidecarv1.CheckStatus_CHECK_STATUS_WARNING

// The capabilities of docs/vault.md.
const (
	readFlows   = `path "flows/data/*" { capabilities = ["read"] } `
	readMounts  = `path "sys/mounts" { capabilities = ["read"] } `
	renewToken  = `path "auth/token/renew-self" { capabilities = ["update"] } `
	revokeToken = `path "auth/token/revoke-self" { capabilities = ["update"] } `
)

// TestTheVaultPageSetsUpWhatASidecarNeeds follows docs/vault.md, and lets a sidecar in with what
// comes of it.
func TestTheVaultPageSetsUpWhatASidecarNeeds(t *testing.T) {
	t.Parallel()
	if os.Getenv("VAULT_BINARY") == "" {
		vaulttest.Real(t) // skips, or fails where a real one is required
	}
	page, err := os.ReadFile("../docs/vault.md")
	if err != nil {
		t.Fatal(err)
	}
	setUp, rest, found := strings.Cut(string(page), "## What each capability is for")
	if !found {
		t.Fatal("the page has no table of capabilities")
	}
	reader := newReader(t)
	for _, b := range codeBlocks(setUp) {
		reader.follow(t, b)
	}
	s := newSandbox(t)
	role := &login{sandbox: s, role: "flow-worker", roleID: reader.file(t, "role_id"),
		secretID: s.keep(reader.file(t, "secret_id"))}
	role.secretIDFile = s.write("secret_id", role.secretID)
	r := s.start("--config", s.config(role.connection("prod", reader.server.Address)))
	r.value("flows/data/mysec/api_key", "supersecret", fromVault)

	// The rest of the page rotates the secret_id; the sidecar takes the new one up before the old
	// one is destroyed.
	_, rotation, _ := strings.Cut(rest, "## Hand over and rotate")
	blocks := codeBlocks(rotation)
	reader.follow(t, blocks[0])
	reader.follow(t, blocks[1]) // tries the new one
	next := s.keep(reader.file(t, "secret_id.next"))
	s.write("secret_id", next)
	eventually(t, "the new secret_id is in use",
		func() bool { return r.logs("accepts the new credentials") })
	reader.follow(t, blocks[len(blocks)-1])
	if status, _ := reader.server.Do(t, http.MethodPost, "auth/approle/login",
		map[string]any{"role_id": role.roleID,
			"secret_id": role.secretID}); status == http.StatusOK {
		t.Error("the old secret_id still works")
	}
	if err := r.renewLogin(); err != nil {
		t.Errorf("a login with the new secret_id: %v", err)
	}
	r.answer(&secretsidecarv1.ResolveRequest{Path: "flows/data/mysec/api_key",
		MaxAge: readVaultNow},
		"supersecret", fromVault)
}

// A second policy that repeated a part of the first would be taken for the whole, and the rest be
// lost.
func TestTheVaultPagesPoliciesNameEachCapabilityOnce(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/vault.md")
	if err != nil {
		t.Fatal(err)
	}
	var granted []string
	for _, b := range codeBlocks(string(page)) {
		if b.language == "hcl" {
			granted = append(granted, submatches(`path "(\S+)"`, b.text)...)
		}
	}
	explained := submatches("(?m)^\\| `\\w+` on `(\\S+)` \\|", string(page))
	slices.Sort(granted)
	slices.Sort(explained)
	if !slices.Equal(granted, explained) || len(granted) == 0 {
		t.Errorf("the policies have %q, the table %q", granted, explained)
	}
}

func submatches(pattern, text string) []string {
	var found []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

// file returns a file of the reader's directory, as a program would read it.
func (r *docsReader) file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.directory, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// TestWhatEachCapabilityIsFor shows what is lost with each line of the policy.
func TestWhatEachCapabilityIsFor(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		v.Mount(t, "flows", "kv", "2")
		s := newSandbox(t)
		value := s.newSecret()
		s.writeSecret(v, "flows/data/mysec", "api_key", value)
		all := readFlows + readMounts + renewToken + revokeToken
		for _, test := range []struct {
			name, policy string
			noDefault    bool
			want         [4]secretsidecarv1.CheckStatus // reach, login, mounts, path
			reads        bool
			left         int // tokens when the sidecar has ended
		}{
			{"everything", all, true, [4]secretsidecarv1.CheckStatus{passed, passed, passed, passed},
				true, 0},
			{"the default policy does for the token", readFlows + readMounts, false,
				[4]secretsidecarv1.CheckStatus{passed, passed, passed, passed}, true, 0},
			{"no sys/mounts", readFlows, false,
				[4]secretsidecarv1.CheckStatus{passed, passed, warning, passed}, true, 0},
			{"no secrets", readMounts, false,
				[4]secretsidecarv1.CheckStatus{passed, passed, passed, failed}, false, 0},
			// and the test's
			{"no revoke-self", readFlows + readMounts + renewToken, true,
				[4]secretsidecarv1.CheckStatus{passed, passed, passed, passed}, true, 2},
			{"no renew-self", readFlows + readMounts + revokeToken, true,
				[4]secretsidecarv1.CheckStatus{passed, passed, passed, passed}, true, 0},
		} {
			t.Run(test.name, func(t *testing.T) {
				s := newSandbox(t)
				s.keep(value)
				l := s.newLogin(v, map[string]any{"token_ttl": "1h",
					"token_no_default_policy": test.noDefault}, test.policy)
				r := s.start("--config", s.config(l.connection("prod", v.Address)))
				report, err := r.TestConnection(t.Context(), &secretsidecarv1.TestConnectionRequest{
					Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: "prod"},
					Path:   "flows/data/mysec/api_key",
				})
				if err != nil {
					t.Fatal(err)
				}
				requireChecks(t, report, test.want[:])
				if test.reads {
					r.value("flows/data/mysec/api_key", value, fromVault)
				} else {
					_, err := r.resolve("flows/data/mysec/api_key")
					requireFailure(t, s, err, denied)
				}
				r.stop()
				if left := len(v.RoleTokens(t, l.role)); left != test.left {
					t.Errorf("%d tokens are left, want %d", left, test.left)
				}
			})
		}
	})
}

// TestWhatEachParameterOfTheRoleDoes shows what comes of parameters that the page warns of.
func TestWhatEachParameterOfTheRoleDoes(t *testing.T) {
	t.Parallel()
	v := vaulttest.RealPrivate(t)
	outside := []string{"10.0.0.0/8"} // the test comes from 127.0.0.1
	for name, test := range map[string]struct {
		parameters map[string]any
		starts     int // that go well before
		want       failure
	}{
		"a token of limited use":      {map[string]any{"token_num_uses": 5}, 0, loginRejected},
		"a secret_id that is used up": {map[string]any{"secret_id_num_uses": 1}, 1, loginRejected},
		"a secret_id of another network": {map[string]any{"secret_id_bound_cidrs": outside}, 0,
			loginRejected},
		"a token of another network": {map[string]any{"token_bound_cidrs": outside}, 0, denied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			l := s.newLogin(v, test.parameters, readSecrets)
			file := s.config(l.connection("prod", v.Address))
			for range test.starts {
				s.start("--config", file).stop()
			}
			r := s.startUnready("--config", file)
			_, err := r.resolve("secret/data/app/key") // waits for the login
			requireFailure(t, s, err, test.want)
		})
	}
	t.Run("Vault cuts the life of a secret_id to its longest lease", func(t *testing.T) {
		s := newSandbox(t)
		l := s.newLogin(v, map[string]any{"secret_id_ttl": "2160h"}, readSecrets)
		about := s.asRoot(v, http.MethodPost, "auth/approle/role/"+l.role+"/secret-id/lookup",
			map[string]any{"secret_id": l.secretID})
		if life := lifetime(t, about); life != 768*time.Hour {
			t.Errorf("a secret_id of 2160h lives for %v", life)
		}
	})
}

// lifetime is the time between two timestamps of Vault's about a secret_id, to the second.
func lifetime(t *testing.T, about map[string]any) time.Duration {
	t.Helper()
	moment := func(name string) time.Time {
		text, _ := about[name].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return at
	}
	return moment("expiration_time").Sub(moment("creation_time")).Round(time.Second)
}
