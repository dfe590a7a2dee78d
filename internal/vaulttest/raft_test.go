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

func TestAClusterGoesOnWithoutItsLeader(t *testing.T) {
	t.Parallel()
	c := vaulttest.RaftCluster(t, 3)
	const path = "secret/data/app"
	leader := c.Leader(t)
	leader.WriteSecret(t, path, map[string]any{"k": "older"})
	c.TakeOut(leader)
	leader.Kill(t)
	next := c.Leader(t)
	if got := readVersion(t, next, path); got != "older" {
		t.Errorf("the next leader says %q, want older", got)
	}
	next.WriteSecret(t, path, map[string]any{"k": "newer"})
	leader.Restart(t)
	c.PutBack(leader)
	for i, node := range c.Nodes {
		if got := readVersion(t, node, path); got != "newer" {
			t.Errorf("node %d says %q, want newer", i, got)
		}
	}
	next.Freeze(t)
	c.TakeOut(next)
	if c.Leader(t) == next {
		t.Error("a frozen node leads")
	}
	next.Thaw(t)
}
