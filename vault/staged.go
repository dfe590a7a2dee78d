package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	doingReach  = "reach Vault"
	doingMounts = "list the mounts"
)

// Test tries the connection step by step, with the credentials that the client uses and a token of the test's
// own, revoked at the end; with a ref also whether that key can be read. It asks Vault even in an outage, each
// step within Config.Timeout, and counts against the login budget. A bad connection is a report that is not
// OK, never an error; so is one that is closed meanwhile.
func (c *Client) Test(ctx context.Context, ref *Reference) Report {
	t := &stagedTest{c: c, api: c.api.testing(), ref: ref}
	if c.beginTest() {
		defer c.tests.Done()
	}
	defer t.revoke(ctx)
	t.step(ctx, "reach", t.reach)
	t.step(ctx, "login", t.logIn)
	t.step(ctx, "mounts", t.mounts)
	t.step(ctx, "path", t.path)
	return t.report
}

// TestConfig does what Test does for a configuration that is not running. Its error is Open's, a mistake in
// cfg.
func TestConfig(ctx context.Context, cfg Config, ref *Reference) (Report, error) {
	c, err := newClient(cfg)
	if err != nil {
		return Report{}, err
	}
	defer c.api.closeIdle()
	return c.Test(ctx, ref), nil
}

// stagedTest is one run of a test.
type stagedTest struct {
	c      *Client
	api    *vaultAPI
	ref    *Reference
	token  *token // nil before the login
	report Report
}

// step runs one check, unless one before it failed.
func (t *stagedTest) step(ctx context.Context, name string, check func(context.Context) Check) {
	if !t.report.OK() {
		t.add(name, skipped("not tried, because of the failure before"), 0)
		return
	}
	ctx, cancel := t.c.operation(ctx)
	defer cancel()
	ctx, stop := t.c.untilClosed(ctx)
	defer stop()
	began := time.Now()
	result := t.unlessClosed(ctx, check)
	took := time.Since(began)
	if result.Status == CheckSkipped {
		took = 0
	}
	t.add(name, result, took)
}

// unlessClosed runs a check of a connection that is open, and says so when it was closed meanwhile.
func (t *stagedTest) unlessClosed(ctx context.Context, check func(context.Context) Check) Check {
	if !t.c.isClosed() {
		result := check(ctx)
		if result.Status != CheckFailed || !t.c.isClosed() {
			return result
		}
	}
	return failed("the connection was closed during the test", "try again")
}

func (t *stagedTest) add(name string, check Check, took time.Duration) {
	check.Name, check.Took = name, took
	t.report.Checks = append(t.report.Checks, check)
}

func (t *stagedTest) reach(ctx context.Context) Check {
	ans, err := t.api.call(ctx, request{doing: doingReach, kind: CallTest, method: http.MethodGet, path: "sys/health", rootLevel: true,
		query: "standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&drsecondarycode=200"})
	if err != nil {
		return failedBy(err)
	}
	var health api.HealthResponse
	if decode(ans.body, &health) != nil || ans.status != http.StatusOK || health.Version == "" {
		return failed("what answers at the address is not Vault", "check the address and the proxies on the way")
	}
	t.report.VaultVersion = health.Version
	switch {
	case !health.Initialized:
		return failed("Vault is not initialised", "initialise it: vault operator init")
	case health.Sealed:
		return failed("Vault is sealed", "unseal it: vault operator unseal")
	}
	return passed("Vault %s answers", health.Version)
}

func (t *stagedTest) logIn(ctx context.Context) Check {
	creds, proven, err := t.credentials()
	if err != nil {
		return failedBy(err)
	}
	// The caller's going away must not hide a rejected login from the budget, or leave a token behind.
	ctx, cancel := t.c.operation(context.WithoutCancel(ctx))
	defer cancel()
	ctx, stop := t.c.untilClosed(ctx)
	defer stop()
	login := *t.c.auth
	login.api = t.api
	if t.token, err = login.logIn(ctx, creds, proven); err != nil {
		return failedBy(err)
	}
	t.report.TokenTTL, t.report.Policies = t.token.ttl, t.token.policies
	message := fmt.Sprintf("logged in, the token lives %s", t.token.ttl)
	if t.token.ttl == 0 {
		message = "logged in, the token never expires"
	}
	if problem := t.c.session.Load().problem; errors.Is(problem, ErrLoginRejected) {
		return warning(message+"; but Vault rejects the newer credentials that wait to replace these",
			"write a valid secret_id into the credential file")
	}
	return passed("%s", message)
}

// credentials returns the client's, which are proven, or what it would log in with first.
func (t *stagedTest) credentials() (creds credentials, proven bool, err error) {
	if s := t.c.session.Load(); s.everLoggedIn {
		return s.active, true, nil
	}
	creds, err = t.c.source.load()
	return creds, false, err
}

func (t *stagedTest) mounts(ctx context.Context) Check {
	ans, err := t.api.call(ctx, request{doing: doingMounts, kind: CallTest, method: http.MethodGet, path: "sys/mounts", token: t.token.id})
	if err != nil {
		return failedBy(err)
	}
	var body struct {
		Data map[string]api.MountOutput `json:"data"`
	}
	if ans.status != http.StatusOK || decode(ans.body, &body) != nil {
		return warning("the token may not list the mounts; secrets can be read all the same",
			`to see them here, add to the policy: path "sys/mounts" { capabilities = ["read"] }`)
	}
	t.report.Mounts = secretMounts(body.Data)
	versioned := slices.DeleteFunc(slices.Clone(t.report.Mounts), func(m Mount) bool { return m.KVVersion != 2 })
	if len(versioned) == 0 {
		return warning("Vault has no KV version 2 mount", "enable one: vault secrets enable -path=secret -version=2 kv")
	}
	return passed("%d mounts, KV version 2: %s", len(t.report.Mounts), mountPaths(versioned))
}

// secretMounts leaves Vault's own mounts out.
func secretMounts(all map[string]api.MountOutput) []Mount {
	var mounts []Mount
	for path, m := range all {
		switch strings.TrimPrefix(m.Type, "ns_") {
		case "system", "identity", "cubbyhole", "token":
			continue
		}
		mounts = append(mounts, Mount{Path: path, Type: m.Type, KVVersion: kvVersion(m.Type, m.Options)})
	}
	slices.SortFunc(mounts, func(a, b Mount) int { return cmp.Compare(a.Path, b.Path) })
	return mounts
}

// kvVersion returns 1 or 2 for the KV engine, and 0 for others.
func kvVersion(kind string, options map[string]string) uint32 {
	switch {
	case kind != "kv" && kind != "generic":
		return 0
	case options["version"] == "2":
		return 2
	}
	return 1
}

func mountPaths(mounts []Mount) string {
	const most = 5
	var paths []string
	for _, m := range mounts[:min(len(mounts), most)] {
		paths = append(paths, m.Path)
	}
	if len(mounts) > most {
		paths = append(paths, "…")
	}
	return strings.Join(paths, ", ")
}

func (t *stagedTest) path(ctx context.Context) Check {
	if t.ref == nil {
		return skipped("no path was given")
	}
	secret, err := t.api.readSecret(ctx, t.token, t.ref.Path, 0)
	switch {
	case errors.Is(err, errPlainNotFound):
		return failedBy(newEngineMemory().explainNotFound(ctx, t.api, t.token, t.ref.Path))
	case errors.Is(err, errInvalidToken):
		return failed("Vault does not know the token that it just granted", "try again")
	case err != nil:
		return failedBy(err)
	}
	if _, ok := secret.Value(t.ref.Key); !ok {
		return failed("the secret can be read, but has no such key",
			fmt.Sprintf("check the key, the last part of the path: the secret has %d others", len(*secret.fields)))
	}
	return passed("the key can be read, version %d of the secret", secret.Version())
}

// revoke gives the test's token back, even when the caller has gone away.
func (t *stagedTest) revoke(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), revokeTimeout, errOperationTimeout)
	defer cancel()
	if err := t.api.revoke(ctx, t.token); err != nil {
		t.c.log.Debug("cannot revoke the token of a connection test, it expires by itself", debugAttrs(err)...)
	}
}

// failedBy turns an error of this package into a failed check.
func failedBy(err error) Check {
	call, ok := errors.AsType[*CallError](err)
	if !ok {
		return failed("the test was cut off: the caller's deadline passed", "allow more time")
	}
	return failed(call.Error(), cmp.Or(call.Remedy, "look into the log of the sidecar"))
}
