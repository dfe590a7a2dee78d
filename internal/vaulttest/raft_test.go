package vaulttest_test

import (
	"net/http"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
)

// readVersion returns the latest version of a secret, read as root.
func readVersion(t *testing.T, v *vaulttest.Vault, path string) string {
	t.Helper()
	status, answer := v.Do(t, http.MethodGet, path, nil)
	if status != http.StatusOK {
		t.Fatalf("read %s: status %d", path, status)
	}
	return answer["data"].(map[string]any)["data"].(map[string]any)["k"].(string)
}

func TestARaftVaultKeepsItsDataAcrossAKillAndGoesBackToASnapshot(t *testing.T) {
	t.Parallel()
	v := vaulttest.Raft(t)
	const path = "secret/data/app"
	v.WriteSecret(t, path, map[string]any{"k": "older"})
	snapshot := v.Snapshot(t)
	v.WriteSecret(t, path, map[string]any{"k": "newer"})
	v.Kill(t)
	v.StartSealed(t)
	if status, _ := v.Do(t, http.MethodGet, path, nil); status != http.StatusServiceUnavailable {
		t.Errorf("a Vault that was started again answers %d, want 503 until it is unsealed", status)
	}
	v.Unseal(t)
	if got := readVersion(t, v, path); got != "newer" {
		t.Errorf("after a kill the secret is %q, want newer", got)
	}
	v.Restore(t, snapshot)
	if got := readVersion(t, v, path); got != "older" {
		t.Errorf("after a restore the secret is %q, want older", got)
	}
}
