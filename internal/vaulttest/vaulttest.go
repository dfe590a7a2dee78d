// Package vaulttest gives tests a Vault to work with: the development Vault of package devvault,
// and a real Vault server where the environment names one.
//
// It speaks to both over HTTP with nothing but net/http, so that what it says about a Vault does
// not depend on the client under test. It leaves no goroutine behind for goleak to find.
//
// The environment variables are VAULT_BINARY, the path of a vault executable, and
// SECRET_SIDECAR_REQUIRE_REAL_VAULT, which set to 1 turns a missing real Vault from a skip into a
// failure.
package vaulttest

import (
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/secret-sidecar/secret-sidecar/internal/devvault"
)

// Vault is a running Vault with KV version 2 mounted at secret/. Its methods are safe for
// concurrent use, and fail the test that they are given when Vault does not do what they ask.
type Vault struct {
	// Name is "devvault" or "real".
	Name string
	// Address is its base URL, for example "http://127.0.0.1:8200".
	Address string
	// RootToken is the ID of a root token.
	RootToken string

	dev     *devvault.Vault // nil for a real one
	process *process        // nil for devvault
	shared  bool            // with other tests: not to be sealed

	mu       sync.Mutex
	recorded []Request // what reached devvault; guarded by mu
	mark     int       // number of requests that were there when the count began; guarded by mu
}

// Each runs the test once for each available Vault, in subtests called "devvault" and "real". The
// real one is shared by all tests of the binary: name mounts, roles and secrets after the test (see
// Unique). A test that disturbs the others, by sealing, takes EachPrivate.
func Each(t *testing.T, test func(t *testing.T, v *Vault)) {
	t.Helper()
	t.Run("devvault", func(t *testing.T) { test(t, Dev(t)) })
	t.Run("real", func(t *testing.T) { test(t, Real(t)) })
}

// EachPrivate is Each with a real Vault of the test's own. Starting one takes a second or two.
func EachPrivate(t *testing.T, test func(t *testing.T, v *Vault)) {
	t.Helper()
	t.Run("devvault", func(t *testing.T) { test(t, Dev(t)) })
	t.Run("real", func(t *testing.T) { test(t, RealPrivate(t)) })
}

// Dev starts a development Vault of the test's own, which ends with the test.
func Dev(t testing.TB) *Vault {
	t.Helper()
	v := &Vault{Name: "devvault"}
	v.dev = devvault.New(devvault.Options{OnRequest: v.record})
	server := httptest.NewServer(v.dev)
	t.Cleanup(server.Close)
	v.Address, v.RootToken = server.URL, v.dev.RootToken()
	return v
}

// Real returns the real Vault that the tests of this binary share, and starts it for the first of
// them. It skips the test when VAULT_BINARY is not set, unless a real Vault is required.
func Real(t testing.TB) *Vault {
	t.Helper()
	binary := vaultBinary(t)
	p, err := sharedProcess(binary)
	if err != nil {
		t.Fatalf("start the shared real Vault: %v", err)
	}
	v := &Vault{Name: "real", Address: p.address, RootToken: p.rootToken, process: p, shared: true}
	v.Mark(t)
	return v
}

// RealPrivate starts a real Vault of the test's own, which ends with the test. It skips like Real.
func RealPrivate(t testing.TB) *Vault {
	t.Helper()
	binary := vaultBinary(t)
	p, err := startDev(binary)
	if err != nil {
		t.Fatalf("start a real Vault: %v", err)
	}
	t.Cleanup(p.stop)
	v := &Vault{Name: "real", Address: p.address, RootToken: p.rootToken, process: p}
	v.Mark(t)
	return v
}
