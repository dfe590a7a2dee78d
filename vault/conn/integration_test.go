package conn_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
	"github.com/secret-sidecar/secret-sidecar/internal/vaulttest"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/conn"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// fixture is a role of its own in a Vault that tests may share.
type fixture struct {
	*vaulttest.Vault
	name string
	cfg  conn.Config
}

func newFixture(t *testing.T, v *vaulttest.Vault, params map[string]any, policy string) *fixture {
	t.Helper()
	name := vaulttest.Unique("vault")
	policy = strings.ReplaceAll(policy, "NAME", name)
	roleID, secretID := v.AppRole(t, name, params, policy)
	return &fixture{v, name, conn.Config{Name: name, Timeout: 10 * time.Second, Settings: conn.Settings{
		Endpoint: vault.Endpoint{Address: v.Address},
		Role:     login.Role{RoleID: login.Credential{Value: redact.New(roleID)}, SecretID: login.Credential{Value: redact.New(secretID)}},
	}}}
}

const readOwn = `path "secret/data/NAME/*" { capabilities = ["read"] }`

func (f *fixture) path(name string) string { return "secret/data/" + f.name + "/" + name }

func (f *fixture) open(t *testing.T) *conn.Connection {
	t.Helper()
	c := f.openUnready(t)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// openUnready does not wait for the login.
func (f *fixture) openUnready(t *testing.T) *conn.Connection {
	t.Helper()
	c, err := conn.Open(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func TestReadsOnEveryVault(t *testing.T) {
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		f := newFixture(t, v, map[string]any{"token_ttl": "1h"}, readOwn+
			`path "NAME-v1/*" { capabilities = ["read"] } path "NAME-transit/*" { capabilities = ["read"] } path "NAME-gone/*" { capabilities = ["read"] }`)
		v.Mount(t, f.name+"-v1", "kv", "1")
		v.Mount(t, f.name+"-transit", "transit", "")
		v.WriteSecret(t, f.path("app"), map[string]any{"key": "one"})
		v.WriteSecret(t, f.path("app"), map[string]any{"key": "two", "port": 8200})
		v.WriteSecret(t, f.path("odd ?#%/%2e%2e/ü"), map[string]any{"key": "odd"})
		v.WriteSecret(t, f.path("deleted"), map[string]any{"key": "x"})
		v.Do(t, http.MethodDelete, f.path("deleted"), nil)
		v.WriteSecret(t, f.path("destroyed"), map[string]any{"key": "x"})
		v.Do(t, http.MethodPost, "secret/destroy/"+f.name+"/destroyed", map[string]any{"versions": []int{1}})
		v.Do(t, http.MethodPost, f.path("null"), map[string]any{"data": nil})
		v.Do(t, http.MethodPost, f.name+"-v1/app", map[string]any{"key": "x"})
		v.Do(t, http.MethodPost, f.name+"-v1/data/app", map[string]any{"key": "x"})
		c := f.open(t)
		for _, test := range []struct {
			path    string
			version uint32
			want    error
		}{
			{f.path("app"), 0, nil}, {f.path("app"), 1, nil}, {f.path("odd ?#%/%2e%2e/ü"), 0, nil}, {f.path("null"), 0, nil},
			{f.path("app"), 9, vault.ErrNotFound}, {f.path("missing"), 0, vault.ErrNotFound},
			{f.path("deleted"), 0, vault.ErrVersionDeleted}, {f.path("destroyed"), 1, vault.ErrVersionDestroyed},
			{f.name + "-v1/data/app", 0, vault.ErrNotKVv2}, {f.name + "-v1/data/missing", 0, vault.ErrNotKVv2},
			{f.name + "-transit/data/x", 0, vault.ErrNotKVv2}, {f.name + "-gone/data/x", 0, vault.ErrNotFound},
			{"secret/data/not-ours", 0, vault.ErrPermissionDenied},
		} {
			secret, err := c.Read(t.Context(), test.path, test.version)
			if !errors.Is(err, test.want) || (err == nil) != (secret != nil) {
				t.Errorf("%s version %d: %v, want %v", test.path, test.version, err, test.want)
			}
		}
		wantValue(t, c, f.path("app"), 0, "key", "two", 2)
		wantValue(t, c, f.path("app"), 1, "key", "one", 1)
		wantValue(t, c, f.path("app"), 0, "port", "8200", 2)
	})
}

func wantValue(t *testing.T, c *conn.Connection, path string, version uint32, key, want string, wantVersion uint32) {
	t.Helper()
	secret, err := c.Read(t.Context(), path, version)
	if err != nil {
		t.Fatal(err)
	}
	value, _ := secret.Value(key)
	if value.Text.Reveal() != want || secret.Version() != wantVersion || secret.CreatedAt().IsZero() {
		t.Errorf("%s is version %d created %s", key, secret.Version(), secret.CreatedAt())
	}
}

func TestRevokedTokenOnEveryVault(t *testing.T) {
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		f := newFixture(t, v, map[string]any{"token_ttl": "1h"}, readOwn)
		v.WriteSecret(t, f.path("app"), map[string]any{"key": "x"})
		c := f.open(t)
		if n := v.RevokeRoleTokens(t, f.name); n != 1 {
			t.Fatalf("%d tokens", n)
		}
		var readers sync.WaitGroup
		for range 64 {
			readers.Go(func() {
				if _, err := c.Read(t.Context(), f.path("app"), 0); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
		if n := len(v.RoleTokens(t, f.name)); n != 1 {
			t.Errorf("%d live tokens, want 1", n)
		}
	})
}

func TestCloseAndTestLeaveNoTokenOnEveryVault(t *testing.T) {
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		f := newFixture(t, v, map[string]any{"token_ttl": "1h"}, readOwn+`path "sys/mounts" { capabilities = ["read"] }`)
		v.WriteSecret(t, f.path("app"), map[string]any{"key": "x"})
		ref := &vault.Reference{Path: f.path("app"), Key: "key"}
		report, err := conn.TestConfig(t.Context(), f.cfg, ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, check := range report.Checks {
			if check.Status != conn.CheckPassed {
				t.Errorf("%+v", check)
			}
		}
		c := f.open(t)
		if err := c.RenewLogin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tokens := v.RoleTokens(t, f.name); len(tokens) != 0 {
			t.Errorf("%d live tokens", len(tokens))
		}
	})
}

func TestShortTokenOnEveryVault(t *testing.T) {
	t.Parallel()
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		t.Parallel()
		f := newFixture(t, v, map[string]any{"token_ttl": "2s", "token_max_ttl": "6s"}, readOwn)
		v.WriteSecret(t, f.path("app"), map[string]any{"key": "x"})
		c := f.open(t)
		end := time.After(8 * time.Second) // past max_ttl; the half minute is tested on a fake clock
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				if _, err := c.Read(t.Context(), f.path("app"), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestWrappedSecretIDOnEveryVault(t *testing.T) {
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		f := newFixture(t, v, map[string]any{"token_ttl": "1h"}, readOwn)
		f.cfg.Budget = login.NewBudget()
		f.cfg.SecretIDWrapped = true
		f.cfg.SecretID.Value = redact.New(v.WrappedSecretID(t, "approle", f.name, time.Minute))
		c := f.open(t)
		if err := c.RenewLogin(t.Context()); err != nil {
			t.Errorf("a second login with the unwrapped secret_id: %v", err)
		}
		spent := f.cfg
		spent.Budget = nil // a process that was restarted
		report, err := conn.TestConfig(t.Context(), spent, nil)
		if err != nil || report.OK() || !strings.Contains(report.Checks[1].Remedy, "already used") {
			t.Errorf("a spent wrapping token: %+v, %v", report, err)
		}
	})
}

func TestWrongSecretIDLocksNobodyOutOnEveryVault(t *testing.T) {
	vaulttest.Each(t, func(t *testing.T, v *vaulttest.Vault) {
		f := newFixture(t, v, map[string]any{"token_ttl": "1h"}, readOwn)
		bad := f.cfg
		bad.Budget = login.NewBudget()
		bad.SecretID.Value = redact.New("wrong")
		for range 10 {
			report, err := conn.TestConfig(t.Context(), bad, nil)
			if err != nil || report.OK() {
				t.Fatalf("%+v, %v", report, err)
			}
		}
		if err := f.open(t).WaitReady(t.Context()); err != nil {
			t.Errorf("the role is locked: %v", err)
		}
	})
}

func TestSealedVaultOnEveryVault(t *testing.T) {
	vaulttest.EachPrivate(t, func(t *testing.T, v *vaulttest.Vault) {
		f := newFixture(t, v, map[string]any{"token_ttl": "1h"}, readOwn)
		v.WriteSecret(t, f.path("app"), map[string]any{"key": "x"})
		c := f.open(t)
		v.Seal(t)
		if _, err := c.Read(t.Context(), f.path("app"), 0); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("read: %v", err)
		}
		if s := c.Status(); s.State != conn.StateDegraded || !s.TokenValid {
			t.Errorf("status: %+v", s)
		}
		if report := c.Test(t.Context(), nil); report.OK() || !strings.Contains(report.Checks[0].Remedy, "unseal") {
			t.Errorf("report: %+v", report)
		}
		v.Unseal(t)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			_, err := c.Read(ctx, f.path("app"), 0)
			if err == nil {
				return
			}
			call, ok := errors.AsType[*vault.CallError](err)
			if !ok || !vault.Outage(err) {
				t.Fatalf("read after unsealing: %v", err)
			}
			select {
			case <-time.After(call.RetryAfter):
			case <-ctx.Done():
				t.Fatal("the outage does not end")
			}
		}
	})
}
