package vaulttest_test

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logIn(t *testing.T, v *vaulttest.Vault, roleID, secretID string) string {
	t.Helper()
	answer := v.Call(t, "", http.MethodPost, "auth/approle/login",
		map[string]any{"role_id": roleID, "secret_id": secretID}, nil)
	if answer.Status != http.StatusOK {
		t.Fatalf("login: status %d: %s", answer.Status, answer.Text)
	}
	return answer.Body["auth"].(map[string]any)["client_token"].(string)
}

func TestRequestsCountsWhatReachesVault(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		name := vaulttest.Unique("count")
		roleID, secretID := v.AppRole(t, name, nil,
			`path "secret/data/`+name+`/*" { capabilities = ["read"] }`)
		path := "secret/data/" + name + "/a b"
		v.WriteSecret(t, path, map[string]any{"k": "v"})
		token := logIn(t, v, roleID, secretID)
		for range 3 {
			if got := v.Call(t, token, http.MethodGet, vaulttest.EscapePath(path), nil,
				nil).Status; got != http.StatusOK {
				t.Fatalf("read: status %d", got)
			}
		}
		v.Call(t, "garbage", http.MethodGet, vaulttest.EscapePath(path), nil, nil)
		want := vaulttest.Request{Operation: "read", Path: path}
		got := v.RequestsTo(t, "secret/data/"+name)
		if len(got) != 4 || got[0] != want || got[3] != want {
			t.Fatalf("requests = %v, want 4 times %v", got, want)
		}
		if got := v.RequestsTo(t, "auth/approle/login"); len(got) == 0 ||
			got[0].Operation != "update" {
			t.Errorf("login requests = %v, want updates", got)
		}
		v.Mark(t)
		if got := v.RequestsTo(t, "secret/data/"+name); len(got) != 0 {
			t.Errorf("requests after Mark = %v, want none", got)
		}
	})
}

func TestRevokeRoleTokensEndsEveryTokenOfTheRole(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		name := vaulttest.Unique("revoke")
		roleID, secretID := v.AppRole(t, name, nil, "")
		tokens := []string{logIn(t, v, roleID, secretID), logIn(t, v, roleID, secretID)}
		if got := v.RevokeRoleTokens(t, name); got != 2 {
			t.Errorf("revoked %d tokens, want 2", got)
		}
		for _, token := range tokens {
			if got := v.Call(t, token, http.MethodGet, "auth/token/lookup-self", nil,
				nil).Status; got != http.StatusForbidden {
				t.Errorf("lookup of a revoked token: status %d, want 403", got)
			}
		}
	})
}

func TestSealedVaultComesBackWithItsSecretsAndTokens(t *testing.T) {
	t.Parallel()
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		v.WriteSecret(t, "secret/data/kept", map[string]any{"k": "v"})
		token := v.Token(t, time.Hour, "root")
		v.Seal(t)
		answer := v.Call(t, token, http.MethodGet, "secret/data/kept", nil, nil)
		if answer.Status != http.StatusServiceUnavailable ||
			answer.Text != `{"errors":["Vault is sealed"]}`+"\n" {
			t.Errorf("read while sealed: %d %s", answer.Status, answer.Text)
		}
		v.Unseal(t)
		if got := v.Call(t, token, http.MethodGet, "secret/data/kept", nil,
			nil).Status; got != http.StatusOK {
			t.Errorf("read after unseal: status %d, want 200", got)
		}
	})
}
