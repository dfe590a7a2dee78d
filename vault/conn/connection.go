// Package conn is one connection to one Vault: it reads secrets with the token that package login
// keeps, through one circuit breaker, reports its state, and tests itself. It knows nothing of
// caches, callers or gRPC.
//
// What it promises:
//
//   - A read costs one request. A token that Vault does not know costs one login shared by all who
//     met it, and a denial one fresh login, at most one a minute.
//   - An outage is cheap, and no larger than it is. The breaker lets out one read per pause; every
//     other read fails at once and says when to retry. A failed login stops no read while the token
//     lives.
//   - Vault is not flooded. A bounded number of reads is in progress; others queue for half of the
//     timeout at most.
//   - One function decides the state (board.observe), from the login, the breaker and the denials.
//
// How it works. A Connection owns a vault.Client, a login.Source and a breaker.Breaker, and loops
// that end with Close: the board (status.go), the idle probe (probe.go) and the watch of the TLS
// files (tls.go). Reads (read.go) and tests (test.go) run on their callers' goroutines.
package conn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
	"github.com/secret-sidecar/secret-sidecar/vault"
	"github.com/secret-sidecar/secret-sidecar/vault/login"
)

const (
	// DefaultTimeout is what a Timeout of zero stands for.
	DefaultTimeout = 10 * time.Second
	// maxConcurrentReads bounds the reads in progress at one Vault; more wait in a queue of ours,
	// where they cost Vault nothing.
	maxConcurrentReads = 64
)

// Settings say which Vault to talk to, and as whom. They are comparable: connections with equal
// Settings may share a token and what was read with it, connections with different ones may not.
type Settings struct {
	vault.Endpoint
	login.Role
}

// Config is Settings and how to use them.
type Config struct {
	Settings
	vault.Options

	// Name is the connection's name in logs and advice.
	Name string
	// Timeout bounds one whole operation against Vault, waiting for a login included; 0 is 10 s.
	Timeout time.Duration
	// Logger gets state changes at info, warn and error, and calls at debug level; never a
	// credential or a secret. Nil discards.
	Logger *slog.Logger
	// Budget is the login budget; share one in a process. Nil is one of the connection's own.
	Budget *login.Budget
	// OnChange is called after the Status changed, from one goroutine, with no lock held. It must
	// return soon and must not call Close. Nil is allowed.
	OnChange func()
	// OnLoginRejected is called when Vault rejects a login of this connection, or the login budget
	// refuses one. It must return at once. Nil is allowed.
	OnLoginRejected func()
	// LookUpSecretID makes the connection ask Vault once when a new secret_id expires: see
	// Status.SecretIDExpiresAt.
	LookUpSecretID bool

	// For tests in a synctest bubble, where inotify does not work.
	watch func(ctx context.Context, changed func())
}

// Connection is safe for concurrent use. Close it.
type Connection struct {
	name    string
	timeout atomic.Int64 // nanoseconds
	log     *slog.Logger
	vault   *vault.Client
	breaker *breaker.Breaker
	login   *login.Source
	budget  *login.Budget
	reads   *semaphore.Weighted // maxConcurrentReads
	mounts  *mountMemory
	denials denials
	board   *board

	troubled   chan struct{} // capacity 1: calls have begun to fail, or to succeed
	tlsChanged chan struct{} // capacity 1

	testing   sync.Mutex // held while a test's login is joined or left
	testLogin *testLogin // that others may join; nil is none. Guarded by testing

	closeOnce sync.Once
	closing   sync.Mutex         // held while closed is closed, and while a loop is added
	closed    chan struct{}      // closed when Close begins
	stop      context.CancelFunc // ends the loops
	loops     sync.WaitGroup     // the board, the idle probe, the TLS files' watch, tests
}

// Format prints a Connection as its name, whatever the verb: fmt would print the credentials in its
// fields.
func (c *Connection) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "vault connection %q", c.name)
}

// Open checks cfg and starts to log in, without waiting for Vault. Its errors are mistakes in cfg,
// such as vault.ErrAddressNotAllowed, and hold no credential.
func Open(cfg Config) (*Connection, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	client, err := vault.New(cfg.vault())
	if err != nil {
		return nil, err
	}
	c := &Connection{
		name: cfg.Name, log: logger(cfg), vault: client, budget: budget(cfg),
		reads: semaphore.NewWeighted(maxConcurrentReads), mounts: newMountMemory(),
		troubled: make(chan struct{}, 1), tlsChanged: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	c.SetTimeout(cfg.Timeout)
	c.board = newBoard(c, cfg.OnChange)
	c.breaker = breaker.New(c.breakerChanged)
	loop, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.login = login.New(c.loginConfig(cfg))
	c.login.Start()
	c.loops.Go(func() { c.board.run(loop) })
	c.loops.Go(func() { c.probe(loop) })
	c.watchTLS(loop, cfg)
	return c, nil
}

func (cfg *Config) check() error {
	switch {
	case cfg.RoleID.IsZero():
		return errors.New("role_id: give a role_id, or a file that holds it")
	case cfg.Timeout < 0:
		return errors.New("timeout: it cannot be negative")
	}
	return login.CheckLiterals(cfg.RoleID, cfg.SecretID)
}

func (cfg *Config) vault() vault.Config {
	return vault.Config{Endpoint: cfg.Endpoint, Options: cfg.Options}
}

func (c *Connection) loginConfig(cfg Config) login.Config {
	rejected := cfg.OnLoginRejected
	if rejected == nil {
		rejected = func() {}
	}
	return login.Config{
		Client: c.vault, Breaker: c.breaker, Budget: c.budget, Connection: cfg.Name, Namespace: cfg.Namespace, Role: cfg.Role,
		Timeout: c.Timeout, Logger: c.log,
		OnChange: c.board.wake, OnRejected: rejected, LookUpSecretID: cfg.LookUpSecretID, Watch: cfg.watch,
	}
}

// breakerChanged makes the login try what an outage has delayed, and the status show an outage.
func (c *Connection) breakerChanged() {
	c.login.Wake()
	c.board.wake()
	notify(c.troubled)
}

// Timeout bounds one whole operation against Vault.
func (c *Connection) Timeout() time.Duration { return time.Duration(c.timeout.Load()) }

// SetTimeout changes Config.Timeout for operations that begin later.
func (c *Connection) SetTimeout(timeout time.Duration) {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	c.timeout.Store(int64(timeout))
}

// Reload reads the credential and TLS files again, in case no watch reported a change. It does not
// wait.
func (c *Connection) Reload() {
	c.login.Reload()
	notify(c.tlsChanged)
}

// WaitReady returns nil after the first login. Errors: vault.ErrLoginRejected as soon as Vault
// rejects the credentials, vault.ErrClosed, or ctx's.
func (c *Connection) WaitReady(ctx context.Context) error { return c.login.WaitReady(ctx) }

// RenewLogin logs in again, with the newest credentials and TLS files: see login.Source.Renew.
func (c *Connection) RenewLogin(ctx context.Context) error {
	notify(c.tlsChanged)
	return c.login.Renew(ctx)
}

// Close stops the connection: Reads that wait for a login fail with vault.ErrClosed, Tests are cut
// off, tokens are revoked, idle HTTP connections are closed. It gives up what is not done when ctx
// ends. Afterwards none of the connection's goroutines runs. Let Reads end first, because their
// token is revoked. Further calls do nothing and return nil.
func (c *Connection) Close(ctx context.Context) error {
	var err error
	c.closeOnce.Do(func() { err = c.shutdown(ctx) })
	return err
}

func (c *Connection) shutdown(ctx context.Context) error {
	c.closing.Lock()
	close(c.closed)
	c.closing.Unlock()
	c.stop()
	defer c.vault.CloseIdle()
	err := c.login.Close(ctx)
	c.loops.Wait() // tests end at once and revoke their token, within 2 s
	return err
}

// begin runs a loop that Close waits for. After Close it does nothing and returns false.
func (c *Connection) begin(loop func()) bool {
	c.closing.Lock()
	defer c.closing.Unlock()
	if isClosed(c.closed) {
		return false
	}
	c.loops.Go(loop)
	return true
}

// isClosed reports whether done is closed; nil never is.
func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// operation bounds ctx by the connection's timeout, with a cause that tells it from the caller's
// own deadline. When the caller allows about the same time, ours ends just before, so that a silent
// Vault is recognised as one.
func (c *Connection) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := c.Timeout()
	end := time.Now().Add(timeout)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) > timeout*9/10 && deadline.Add(-timeout/50).Before(end) {
		end = deadline.Add(-timeout / 50)
	}
	return context.WithDeadlineCause(ctx, end, vault.ErrTimeout)
}

func logger(cfg Config) *slog.Logger {
	if cfg.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return cfg.Logger.With("connection", cfg.Name)
}

func budget(cfg Config) *login.Budget {
	if cfg.Budget == nil {
		return login.NewBudget()
	}
	return cfg.Budget
}

func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
