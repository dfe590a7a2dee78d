// Package vault is one connection to one Vault: it logs in by AppRole, keeps the token alive, reads KV version
// 2 secrets and tests itself. It knows nothing of caches, callers or gRPC.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"github.com/secret-sidecar/secret-sidecar/internal/filewatch"
)

const (
	defaultTimeout   = 10 * time.Second
	defaultAuthMount = "approle"
	// maxConcurrentReads is how many reads are on their way to one Vault at once; more wait.
	maxConcurrentReads = 64
)

// Config says which Vault to talk to, and as whom. Environment variables named VAULT_* have no effect.
type Config struct {
	// Name is the connection's name in logs.
	Name string
	// Address is http(s)://host[:port], with a path where Vault is behind one. Required.
	Address string
	// Namespace is the Vault Enterprise namespace; empty is none.
	Namespace string
	// AuthMount is where AppRole is mounted; empty is "approle".
	AuthMount string
	// RoleID is required. SecretID may be zero for a role with bind_secret_id=false.
	RoleID, SecretID Credential
	// SecretIDWrapped says that SecretID is a response-wrapping token. It is unwrapped once for all clients
	// and tests that share Guard.
	SecretIDWrapped bool
	// TLS is used for https addresses.
	TLS TLS
	// AllowedHosts lists the names, addresses and networks (CIDR) that may be connected to, and then no proxy of the
	// environment is used. Nil is any.
	AllowedHosts []string
	// Timeout bounds one whole operation against Vault, waiting for a login included; 0 is 10 s.
	Timeout time.Duration
	// Logger gets state changes at info, warn and error, and calls at debug level; never a credential or a
	// secret. Nil discards.
	Logger *slog.Logger
	// Guard is the login budget; share one in a process. Nil is one of the client's own.
	Guard *Guard
	// OnChange is called after the Status changed, from one goroutine, with no lock held. It must return soon
	// and must not call Close. Nil is nothing.
	OnChange func()
	// OnCall is told of every request that went out to Vault, after its end, by the goroutine that made it. It must
	// return at once. Nil is told nothing.
	OnCall func(Call)
	// OnLoginRejected is told when Vault has rejected a login of the client's own, or the login budget has refused one.
	// It must return at once. Nil is told nothing.
	OnLoginRejected func()
	// Tracer makes a span of every request. Nil makes none.
	Tracer trace.Tracer
	// SpanAttributes are those of every span. Nothing of what a caller chooses belongs there.
	SpanAttributes []attribute.KeyValue
	// TracePaths puts the paths of secrets into the spans.
	TracePaths bool
	// LookUpSecretID makes the client ask Vault once when a new secret_id expires: see Status.SecretIDExpiresAt.
	LookUpSecretID bool

	// For tests in a bubble, where neither sockets nor inotify work.
	transport http.RoundTripper
	watch     watchFunc
}

// Client is one connection to one Vault. It is safe for concurrent use. Close it.
type Client struct {
	name    string
	timeout time.Duration
	log     *slog.Logger
	api     *vaultAPI
	gate    *gate
	auth    *authenticator
	source  credentialSource
	reads   *semaphore.Weighted // maxConcurrentReads
	engines *engineMemory
	keeper  *keeper
	status  *statusBoard
	session atomic.Pointer[session] // written by the keeper alone

	lookUpSecretID  bool
	secretIDExpires atomic.Pointer[secretIDExpiry] // written by the keeper's lookups; nil: not asked for
	onLoginRejected func()                         // never nil

	closeOnce sync.Once
	closing   sync.Mutex         // held while closed is closed, and while a test is added
	closed    chan struct{}      // closed when Close begins
	tests     sync.WaitGroup     // runs of Test; none is added after closed was closed
	stop      context.CancelFunc // ends the loops after the call that they are in
	abort     context.CancelFunc // ends that call too
	loops     sync.WaitGroup     // the keeper, the status board, the file watch, revocations
}

// Format prints a Client as its name, whatever the verb: fmt would print the credentials in its fields.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "vault client %q", c.name) }

// Open checks cfg and starts the login loop; it does not wait for Vault. Its errors are mistakes in cfg, and
// hold no credential; ErrAddressNotAllowed is one.
func Open(cfg Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	watch := c.watchFiles(cfg.watch) // before the keeper reads them
	calls, abort := context.WithCancel(context.Background())
	loop, stop := context.WithCancel(calls)
	c.stop, c.abort = stop, abort
	c.loops.Go(func() { c.keeper.run(loop, calls) })
	c.loops.Go(func() { c.status.run(loop) })
	if watch != nil {
		c.loops.Go(func() { watch(loop, c.keeper.filesChanged) })
	}
	return c, nil
}

// newClient builds a client whose loops do not run.
func newClient(cfg Config) (*Client, error) {
	address, err := parseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	if cfg.RoleID.IsZero() {
		return nil, errors.New("role_id: give a role_id, or a file that holds it")
	}
	if err := checkLiterals(cfg); err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("timeout: it cannot be negative")
	}
	transport := cfg.transport
	if transport == nil {
		if transport, err = newTransport(cfg.TLS, address, cfg.AllowedHosts); err != nil {
			return nil, err
		}
	}
	c := &Client{
		name:    cfg.Name,
		timeout: orDefault(cfg.Timeout, defaultTimeout),
		log:     logger(cfg),
		source:  credentialSource{roleID: cfg.RoleID, secretID: cfg.SecretID},
		reads:   semaphore.NewWeighted(maxConcurrentReads),
		engines: newEngineMemory(),
		closed:  make(chan struct{}),

		lookUpSecretID: cfg.LookUpSecretID, onLoginRejected: cfg.OnLoginRejected,
	}
	if c.onLoginRejected == nil {
		c.onLoginRejected = func() {}
	}
	c.gate = newGate(c.gateChanged)
	c.api = newAPI(address, strings.Trim(cfg.Namespace, "/"), transport, c.gate)
	c.api.tracer = newTracer(cfg)
	if cfg.OnCall != nil {
		c.api.onCall = cfg.OnCall
	}
	c.auth = &authenticator{api: c.api, guard: guard(cfg), mount: authMount(cfg), wrapped: cfg.SecretIDWrapped}
	c.session.Store(newSession())
	c.status = newStatusBoard(c, cfg.OnChange)
	c.keeper = newKeeper(c)
	return c, nil
}

// gateChanged lets the keeper retry when the gate has opened, and the status show an outage.
func (c *Client) gateChanged() {
	c.keeper.wake()
	c.status.wake()
}

// watchFunc calls changed when a credential file may have changed, until ctx ends.
type watchFunc = func(ctx context.Context, changed func())

// watchFiles returns the watch of the credential files, which knows them as they are now; nil when there are none.
func (c *Client) watchFiles(instead watchFunc) watchFunc {
	files := c.source.files()
	switch {
	case len(files) == 0:
		return nil
	case instead != nil:
		return instead
	}
	return filewatch.New(files).Run
}

// Close stops the client: Reads that wait for a login fail with ErrClosed, Tests are cut off, the token is revoked,
// idle connections are closed. What is not done when ctx ends is given up. Afterwards none of the client's
// goroutines runs. Let Reads end first: their token is revoked. Further calls do nothing and return nil.
func (c *Client) Close(ctx context.Context) error {
	var err error
	c.closeOnce.Do(func() { err = c.shutdown(ctx) })
	return err
}

func (c *Client) shutdown(ctx context.Context) error {
	c.closing.Lock()
	close(c.closed)
	c.closing.Unlock()
	c.stop()
	defer context.AfterFunc(ctx, c.abort)()
	c.loops.Wait()
	c.tests.Wait() // each ends at once and gives its token back, within 2 s
	c.abort()
	defer c.api.closeIdle()
	if err := c.api.revoke(ctx, c.session.Load().token); err != nil {
		return fmt.Errorf("revoke the token of connection %q at shutdown, it expires by itself: %w", c.name, err)
	}
	return nil
}

// WaitReady returns nil after the first login. Errors: ErrLoginRejected as soon as Vault rejects the
// credentials, ErrClosed, or ctx's.
func (c *Client) WaitReady(ctx context.Context) error {
	for {
		s := c.session.Load()
		switch {
		case s.everLoggedIn:
			return nil
		case errors.Is(s.problem, ErrLoginRejected):
			return s.problem
		}
		select {
		case <-s.replaced:
		case <-c.closed:
			return closedError(doingLogin)
		case <-ctx.Done():
			return fmt.Errorf("wait for the first login: %w", ctx.Err())
		}
	}
}

// RenewLogin logs in anew, with the newest credentials, and then revokes the old token. It counts against the
// login budget. When it fails the old token goes on serving. Errors: ErrLoginRejected, ErrLoginPending when a
// credential file cannot be read and there was no login before, an outage, ErrClosed, or ctx's; the login goes on
// when ctx ends.
func (c *Client) RenewLogin(ctx context.Context) error {
	return c.keeper.ask(ctx, relogin{reason: operatorAsks})
}

// Admit returns nil when a Read may go out now, and while it would fail fast the outage, with RetryAfter.
func (c *Client) Admit() error {
	if c.session.Load().token.valid(time.Now()) {
		return c.gate.admit(doingRead)
	}
	return c.gate.outage(doingRead) // without a token the login is the probe
}

// operation bounds ctx by the client's timeout, with a cause that tells it from the caller's own deadline. A
// caller that allows about the same time gets ours just before its own, so that a silent Vault is seen as one.
func (c *Client) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(c.timeout)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) > c.timeout*9/10 {
		end = minTime(end, deadline.Add(-c.timeout/50))
	}
	return context.WithDeadlineCause(ctx, end, errOperationTimeout)
}

func parseAddress(text string) (*url.URL, error) {
	address, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("address: give the address of Vault, https://host:port")
	case err != nil, address.Scheme != "http" && address.Scheme != "https", address.Hostname() == "":
		return nil, errors.New("address: write it as https://host:port or http://host:port")
	case address.User != nil, address.RawQuery != "", address.Fragment != "":
		return nil, errors.New("address: remove the user, query or fragment, leave https://host:port")
	}
	address.RawPath = strings.TrimRight(address.RawPath, "/")
	address.Path = strings.TrimRight(address.Path, "/")
	return address, nil
}

func logger(cfg Config) *slog.Logger {
	if cfg.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return cfg.Logger.With("connection", cfg.Name)
}

func guard(cfg Config) *Guard {
	if cfg.Guard == nil {
		return NewGuard()
	}
	return cfg.Guard
}

func authMount(cfg Config) string {
	if mount := strings.Trim(cfg.AuthMount, "/"); mount != "" {
		return mount
	}
	return defaultAuthMount
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// beginTest reports whether a test may begin: not after Close. When it may, call tests.Done at its end.
func (c *Client) beginTest() bool {
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.isClosed() {
		return false
	}
	c.tests.Add(1)
	return true
}

// untilClosed returns a ctx that ends when the client closes, too. Call cancel.
func (c *Client) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx, by cancel at the latest
		select {
		case <-c.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func closedError(doing string) error { return &CallError{Sentinel: ErrClosed, Doing: doing} }
