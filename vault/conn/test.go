package conn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

// Test tries the connection step by step: with the connection's credentials, with a token of its
// own that it revokes afterwards, and with ref, whether that key can be read. It asks Vault even in
// an outage, each step within Config.Timeout, and spends from the login budget. Tests share a login
// when they run at the same time, or within 10 s of one, unless it was rejected or has not reached
// Vault. A bad connection is a report that is not OK, never an error; so is a connection that is
// closed meanwhile.
func (c *Connection) Test(ctx context.Context, ref *vault.Reference) Report {
	t := &stagedTest{
		client: c.vault.ForTest(), ref: ref, timeout: c.Timeout(), closed: c.closed,
		logIn: c.joinTestLogin,
		newerRejected: func() bool {
			state := c.login.State()
			return state.LoggedIn && errors.Is(state.Problem, vault.ErrLoginRejected)
		},
	}
	return t.run(ctx)
}

// TestConfig is Test for a configuration that is not running. Its error is Open's, a mistake in
// cfg.
func TestConfig(ctx context.Context, cfg Config, ref *vault.Reference) (Report, error) {
	if err := cfg.check(); err != nil {
		return Report{}, err
	}
	client, err := vault.New(cfg.vault())
	if err != nil {
		return Report{}, err
	}
	defer client.CloseIdle()
	t := &stagedTest{client: client.ForTest(), ref: ref, timeout: cmp.Or(cfg.Timeout, DefaultTimeout),
		newerRejected: func() bool { return false }}
	t.logIn = func(ctx context.Context) (*vault.Token, func(), error) {
		identity, err := login.IdentityOf(cfg.Namespace, cfg.Role)
		if err != nil {
			return nil, func() {}, err
		}
		token, err := budget(cfg).LogIn(ctx, t.client, identity)
		return token, func() { revoke(ctx, t.client, token, logger(cfg).Debug) }, err
	}
	return t.run(ctx), nil
}

// revoke revokes a test's token, even when the caller has left. The token may be nil.
func revoke(ctx context.Context, client *vault.Client, token *vault.Token, log func(string, ...any)) {
	if err := client.Revoke(context.WithoutCancel(ctx), token); err != nil {
		log("cannot revoke the token of a connection test, it expires by itself", vault.DebugAttrs(err)...)
	}
}

// testLogin is a login that tests share. What follows done is set before it is closed.
type testLogin struct {
	users sync.WaitGroup // tests that use the token; none is added after Connection.testLogin is another one
	done  chan struct{}
	token *vault.Token
	err   error
}

// joinTestLogin returns the token of a shared test login, and leave, which the caller calls when it
// no longer needs the token.
func (c *Connection) joinTestLogin(ctx context.Context) (token *vault.Token, leave func(), err error) {
	one := c.currentTestLogin()
	if one == nil {
		return nil, func() {}, &vault.CallError{Sentinel: vault.ErrClosed, Doing: "log in"}
	}
	select {
	case <-one.done:
		return one.token, one.users.Done, one.err
	case <-ctx.Done():
		one.users.Done()
		return nil, func() {}, fmt.Errorf("log in: %w", ctx.Err())
	}
}

// currentTestLogin returns the login to join and counts the caller as a user; nil after Close.
func (c *Connection) currentTestLogin() *testLogin {
	c.testing.Lock()
	defer c.testing.Unlock()
	if c.testLogin == nil {
		one := &testLogin{done: make(chan struct{})}
		if !c.begin(func() { c.runTestLogin(one) }) {
			return nil
		}
		c.testLogin = one
	}
	c.testLogin.users.Add(1)
	return c.testLogin
}

// runTestLogin logs in, lets tests use the token as long as they may join, and revokes it.
func (c *Connection) runTestLogin(one *testLogin) {
	ctx, cancel := vault.UntilClosed(context.Background(), c.closed)
	defer cancel()
	client := c.vault.ForTest()
	one.token, one.err = c.logInForTest(ctx, client)
	if !login.IsShared(one.err) {
		c.endTestLogin() // later callers get another try
		close(one.done)
		return
	}
	close(one.done)
	vault.Wait(ctx, login.SharedFor)
	c.endTestLogin()
	if one.err != nil {
		return
	}
	one.users.Wait()
	revoke(ctx, client, one.token, c.log.Debug)
}

// endTestLogin stops further tests from joining.
func (c *Connection) endTestLogin() {
	c.testing.Lock()
	defer c.testing.Unlock()
	c.testLogin = nil
}

func (c *Connection) logInForTest(ctx context.Context, client *vault.Client) (*vault.Token, error) {
	identity, err := c.login.Identity()
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.operation(ctx)
	defer cancel()
	return c.budget.LogIn(ctx, client, identity)
}

// stagedTest is one run of a test.
type stagedTest struct {
	client  *vault.Client
	ref     *vault.Reference
	timeout time.Duration
	closed  <-chan struct{} // nil: never
	// logIn logs in, and returns what to call when the token is no longer needed.
	logIn func(context.Context) (*vault.Token, func(), error)
	// newerRejected reports whether Vault has rejected newer credentials than those of the test.
	newerRejected func() bool

	token  *vault.Token // nil before the login
	leave  func()       // from logIn; nil before it
	report Report
}

func (t *stagedTest) run(ctx context.Context) Report {
	defer t.end()
	t.step(ctx, "reach", t.reach)
	t.step(ctx, "login", t.tryLogin)
	t.step(ctx, "mounts", t.mounts)
	t.step(ctx, "path", t.path)
	return t.report
}

// end releases the token.
func (t *stagedTest) end() {
	if t.leave != nil {
		t.leave()
	}
}

// step runs one check, unless one before it failed.
func (t *stagedTest) step(ctx context.Context, name string, check func(context.Context) Check) {
	if !t.report.OK() {
		t.add(name, skipped("not tried, because of the failure before"), 0)
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, vault.ErrTimeout)
	defer cancel()
	ctx, stop := vault.UntilClosed(ctx, t.closed)
	defer stop()
	began := time.Now()
	result := t.unlessClosed(ctx, check)
	took := time.Since(began)
	if result.Status == CheckSkipped {
		took = 0
	}
	t.add(name, result, took)
}

// unlessClosed runs a check of an open connection, and reports when the connection was closed
// meanwhile.
func (t *stagedTest) unlessClosed(ctx context.Context, check func(context.Context) Check) Check {
	if !isClosed(t.closed) {
		result := check(ctx)
		if result.Status != CheckFailed || !isClosed(t.closed) {
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
	health, err := t.client.Health(ctx)
	if err != nil {
		return failedBy(err)
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

func (t *stagedTest) tryLogin(ctx context.Context) Check {
	// A caller that leaves must not hide a rejected login from the budget, or leave a token behind.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), t.timeout, vault.ErrTimeout)
	defer cancel()
	ctx, stop := vault.UntilClosed(ctx, t.closed)
	defer stop()
	token, leave, err := t.logIn(ctx)
	t.leave = leave
	if err != nil {
		return failedBy(err)
	}
	t.token = token
	t.report.TokenTTL, t.report.Policies = token.TTL, token.Policies
	message := fmt.Sprintf("logged in, the token lives %s", token.TTL)
	if token.TTL == 0 {
		message = "logged in, the token never expires"
	}
	if t.newerRejected() {
		return warning(message+"; but Vault rejects the newer credentials that wait to replace these",
			"write a valid secret_id into the credential file")
	}
	return passed("%s", message)
}

func (t *stagedTest) mounts(ctx context.Context) Check {
	mounts, err := t.client.Mounts(ctx, t.token.ID)
	switch {
	case errors.Is(err, vault.ErrNotAllowed):
		return warning("the token may not list the mounts; secrets can be read all the same", failedBy(err).Remedy)
	case err != nil:
		return failedBy(err)
	}
	t.report.Mounts = mounts
	versioned := slices.DeleteFunc(slices.Clone(mounts), func(m vault.Mount) bool { return m.KVVersion != 2 })
	if len(versioned) == 0 {
		return warning("Vault has no KV version 2 mount", "enable one: vault secrets enable -path=secret -version=2 kv")
	}
	return passed("%d mounts, KV version 2: %s", len(mounts), mountPaths(versioned))
}

func mountPaths(mounts []vault.Mount) string {
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
	secret, err := t.client.Read(ctx, t.token.ID, t.ref.Path, 0)
	switch {
	case err == vault.ErrNothing: //nolint:errorlint // the very same: what wraps it says more
		if mount, err := t.client.MountOf(ctx, t.token.ID, t.ref.Path); err == nil && mount.KVVersion != 2 {
			return failedBy(vault.NotKVv2())
		}
		return failedBy(vault.ErrNothing)
	case errors.Is(err, vault.ErrInvalidToken):
		return failed("Vault does not know the token that it just granted", "try again; if it stays, look whether several Vaults, "+
			"or a standby that lags, stand behind the address")
	case err != nil:
		return failedBy(err)
	}
	if _, ok := secret.Value(t.ref.Key); !ok {
		return failed("the secret can be read, but has no such key",
			fmt.Sprintf("check the key, the last part of the path: the secret has %d others", secret.Len()))
	}
	return passed("the key can be read, version %d of the secret", secret.Version())
}

// failedBy turns an error of a call into a failed check.
func failedBy(err error) Check {
	call, ok := errors.AsType[*vault.CallError](err)
	if !ok {
		return failed("the test was cut off: the caller's deadline passed", "allow more time")
	}
	return failed(call.Error(), cmp.Or(call.Remedy, "look into the log of the sidecar"))
}
