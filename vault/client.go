// Package vault speaks to one HashiCorp Vault: it logs in by AppRole, renews and revokes tokens,
// reads KV version 2 secrets, and asks for mounts and health. It knows nothing of caches, callers
// or gRPC.
//
// What it promises:
//
//   - One decision per answer. Each body is decoded once, and mapped once to a value or to a
//     sentinel error that says how far the failure reaches. docs/vault-answers.md is the table.
//   - Vault's words stay here. No error holds Vault's own text, a credential or a value: Vault
//     quotes in its errors what it was sent.
//   - No request goes astray. References are checked before they become paths, redirects are not
//     followed, and VAULT_* variables have no effect.
//   - Every call ends: in time by its context, in size by MaxAnswerBytes.
//
// How it works. A Client has no state but its connections and the last token that Vault honoured.
// Tokens and the login budget belong to package login, the circuit breaker to package conn.
// Requests go through vault/api, over a pool of ours (pool.go) that abandons a connection when it
// has died or leads to a node that no longer serves.
package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// MaxAnswerBytes bounds an answer. A longer one is ErrTooLarge.
const MaxAnswerBytes = 4 << 20

const (
	// firstLagPause is how long to wait before asking a lagging node again. Each pause is twice the
	// last.
	firstLagPause = 50 * time.Millisecond
	// lagPatience bounds the sum of those pauses.
	lagPatience = 2 * time.Second
)

// ErrTimeout is the cause of a context that ended because Vault did not answer in time: make one
// with context.WithDeadlineCause. Any other cause means only that the caller left.
var ErrTimeout = errors.New("vault did not answer in time")

// Config says which Vault to talk to. New ignores the VAULT_* variables of the environment, except
// that a malformed one makes New fail.
type Config struct {
	Endpoint
	Options
}

// Options control how a Client makes its requests. Changing them needs no new login.
type Options struct {
	// AllowedHosts lists the names, addresses and networks (CIDR) that the Client may connect to;
	// it then uses no proxy from the environment. Nil allows any.
	AllowedHosts []string
	// OnCall is called after every request to Vault, by the goroutine that made it. It must return
	// at once. Nil is allowed.
	OnCall func(Call)
	// Tracer starts a span for every request. Nil means no spans.
	Tracer trace.Tracer
	// SpanAttributes are set on every span. Nothing that a caller chooses belongs there: it would
	// make as many series as there are callers.
	SpanAttributes []attribute.KeyValue
	// TracePaths puts secret paths into spans.
	TracePaths bool
	// Memory bounds the large answers to reads of secrets; share one in a process. Nil is no bound.
	Memory *AnswerMemory
	// Transport is for tests in a synctest bubble, where sockets do not work. Nil means a pool of
	// connections.
	Transport http.RoundTripper
}

// Client talks to one Vault. It is immutable except for its connections, and safe for concurrent
// use.
type Client struct {
	address    *url.URL
	api        *api.Client // sends the namespace
	root       *api.Client // sends none: sys/health answers in the root namespace only
	pool       *pool       // nil with Config.Transport
	tracer     *tracer     // nil: no spans
	onCall     func(Call)  // never nil
	memory     readMemory
	answeredAt *atomic.Int64
	// the last token that Vault honoured in a read: it answered, or a policy refused
	honoured *atomic.Pointer[redact.String]
	forTest  bool // every request is a connection test's
}

// New checks cfg and does not connect. Its errors are mistakes in cfg, such as
// ErrAddressNotAllowed.
func New(cfg Config) (*Client, error) {
	address, err := ParseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	c := &Client{address: address, tracer: newTracer(cfg), onCall: cfg.OnCall,
		memory:     newReadMemory(cfg.Memory),
		answeredAt: new(atomic.Int64),
		honoured:   new(atomic.Pointer[redact.String])}
	if c.onCall == nil {
		c.onCall = func(Call) {}
	}
	transport := cfg.Transport
	if transport == nil {
		if c.pool, err = newPool(cfg.TLS, address, cfg.AllowedHosts); err != nil {
			return nil, err
		}
		transport = c.pool
	}
	httpClient := &http.Client{
		Transport: bounded{transport},
		// Following a redirect would carry the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	if c.root, err = newAPIClient(address, "", httpClient); err != nil {
		return nil, err
	}
	if c.api, err = newAPIClient(address, strings.Trim(cfg.Namespace, "/"),
		httpClient); err != nil {
		return nil, err
	}
	return c, nil
}

// newAPIClient returns a client of vault/api that neither retries nor follows redirects, and that
// forgets what it read from the environment.
func newAPIClient(address *url.URL, namespace string,
	httpClient *http.Client) (*api.Client, error) {
	c, err := api.NewClient(&api.Config{
		Address: address.String(), HttpClient: httpClient, DisableRedirects: true,
		// Callers decide about retries: in an outage each one adds load, and a login may cost the
		// role.
		CheckRetry: func(context.Context, *http.Response, error) (bool, error) {
			return false, nil
		},
	})
	if err != nil {
		return nil, errors.New("a VAULT_* variable of the environment is malformed: unset it")
	}
	if err := c.SetAddress(address.String()); err != nil {
		return nil, errors.New("address: write it as https://host:port or http://host:port")
	}
	c.ClearToken()
	// Vault's guard against requests forged by a browser
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	c.SetWrappingLookupFunc(func(string, string) string { return "" })
	c.ClearNamespace()
	if namespace != "" {
		c.SetNamespace(namespace)
	}
	return c, nil
}

// ForTest returns a Client over the same connections whose requests are a connection test's.
func (c *Client) ForTest() *Client {
	test := *c
	test.forTest = true
	test.honoured = new(atomic.Pointer[redact.String]) // it has a token of its own
	return &test
}

// LastAnswerAt is when Vault last did what it was asked, or said that a secret does not exist. The
// zero time means never. Refusals and connection tests do not count.
func (c *Client) LastAnswerAt() time.Time {
	if nanos := c.answeredAt.Load(); nanos != 0 {
		return time.Unix(0, nanos)
	}
	return time.Time{}
}

// Reconnect makes later requests use new connections, which also resolves the address anew.
// Requests in progress continue.
func (c *Client) Reconnect() {
	if c.pool != nil {
		c.pool.renew(c.pool.current.Load())
	}
}

// CloseIdle closes the connections that no request is using.
func (c *Client) CloseIdle() {
	if c.pool != nil {
		c.pool.current.Load().CloseIdleConnections()
	}
}

// request is one call of Vault's HTTP API.
type request struct {
	doing     string // for errors, "read the secret"
	kind      CallKind
	method    string
	path      string // below /v1/, segments not escaped
	template  string // path with placeholders, for spans; empty: the path holds no names
	params    url.Values
	token     redact.String
	body      any  // encoded as JSON; nil for none
	rootLevel bool // sent without the namespace
}

// do sends r and returns Vault's answer, which is never an outage. It asks a lagging node again for
// a while. Errors: *CallError with ErrUnreachable, ErrSealed, ErrRateLimited or ErrTooLarge, or
// ctx's own when the caller left.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	waited, pause := time.Duration(0), firstLagPause
	for {
		ans, err := c.send(ctx, r)
		if ans == nil || !ans.lags() || waited+pause > lagPatience || !Wait(ctx, pause) {
			return ans, err
		}
		ans.release()
		waited, pause = waited+pause, pause*2
	}
}

// Wait waits for the pause and reports whether it passed before ctx ended.
func Wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// UntilClosed returns a context that also ends when closed does. Call cancel.
func UntilClosed(ctx context.Context,
	closed <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx, by cancel at the latest
		select {
		case <-closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// send makes one request. With an error, the answer holds at most the status; it is nil when there
// was none.
func (c *Client) send(ctx context.Context, r request) (*answer, error) {
	ctx, span := c.tracer.begin(ctx, c, r)
	began := time.Now()
	ans, err := c.exchange(ctx, r)
	call := c.endedCall(ctx, r, ans, err, time.Since(began))
	span.end(ctx, call)
	// A connection test does not count: it also asks a sealed Vault, which answers.
	if err == nil && ans.isGood(r.kind) && !c.forTest {
		c.answeredAt.Store(time.Now().UnixNano())
	}
	c.onCall(call)
	return ans, err
}

func (c *Client) exchange(ctx context.Context, r request) (*answer, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	// Logical has one token for all requests; each of these names its own.
	resp, err := c.apiFor(r).RawRequestWithContext(ctx, req) //nolint:staticcheck // see above
	if resp == nil {
		return nil, c.transportError(ctx, r.doing, err)
	}
	defer func() { _ = resp.Body.Close() }()
	ans := &answer{status: resp.StatusCode, header: resp.Header, release: func() {}}
	err = c.readBody(ctx, r, resp.Response, ans)
	if err != nil {
		ans.release()
	}
	switch {
	case errors.Is(err, ErrOverloaded):
		return ans, err
	case errors.Is(err, ErrTooLarge):
		return ans, &CallError{Sentinel: ErrTooLarge, Doing: r.doing,
			Remedy: "make the secret smaller, or split it: answers of up to 4 MiB are read"}
	case err != nil:
		return ans, c.transportError(ctx, r.doing, err)
	}
	ans.decode(r.kind)
	if outage := ans.outage(r.doing, r.kind, c.proxy()); outage != nil {
		ans.release()
		return ans, outage
	}
	return ans, nil
}

// readBody reads the body of an answer, which is bounded. A large secret waits until there is
// memory for it; then the answer has to release it.
func (c *Client) readBody(ctx context.Context, r request, resp *http.Response, ans *answer) error {
	memory := c.memory
	if r.kind != CallRead {
		memory = readMemory{} // other answers are small, and a login waits for nobody
	}
	begun, size, err := readBeginning(resp)
	if err == nil && size > 0 {
		if ans.release, err = memory.take(ctx, size); err != nil {
			ans.release = func() {}
			return &CallError{Sentinel: ErrOverloaded, Doing: r.doing, Cause: err,
				Status: ans.status,
				Remedy: "other large secrets were being read for as long as this one could wait: " +
					"try again later, or " +
					"raise the timeout"}
		}
		begun, err = readRest(resp, begun, size)
	}
	ans.text = begun
	return err
}

func (c *Client) apiFor(r request) *api.Client {
	if r.rootLevel {
		return c.root
	}
	return c.api
}

func (c *Client) newRequest(ctx context.Context, r request) (*api.Request, error) {
	req := c.apiFor(r).NewRequest(r.method, "/v1/"+r.path)
	req.ClientToken = r.token.Reveal()
	if r.params != nil {
		req.Params = r.params
	}
	if r.body != nil {
		if err := req.SetJSONBody(r.body); err != nil {
			return nil, fmt.Errorf("%s: the request cannot be encoded", r.doing)
		}
		req.Headers.Set("Content-Type", "application/json")
	}
	c.tracer.propagate(ctx, req.Headers)
	return req, nil
}

// url is the request's target, for spans.
func (c *Client) url(r request) string {
	u := *c.address
	u.Path, u.RawPath = u.Path+"/v1/"+r.path, ""
	u.RawQuery = r.params.Encode()
	return u.String()
}

// proxy names the environment's proxy that requests pass through; empty means none.
func (c *Client) proxy() string {
	if c.pool == nil {
		return ""
	}
	return c.pool.proxy
}

// withSent returns a context for a request, and sent, which reports whether any part of the request
// may have reached the peer.
func withSent(ctx context.Context) (with context.Context, sent func() bool) {
	var wrote atomic.Bool
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() {
		wrote.Store(true)
	}}), wrote.Load
}
