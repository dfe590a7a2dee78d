// Package vault speaks to one HashiCorp Vault: it logs in, renews and revokes tokens, reads KV version 2
// secrets, and asks for mounts and health. Each answer is decoded once, and decided once into a sentinel error. A
// Client keeps nothing but its connections, and which token Vault has honoured last: tokens, budgets and circuit breakers
// are the callers' business. The package knows nothing of caches, callers or gRPC.
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

// MaxAnswerBytes is the largest answer of Vault's that is read; a larger one is ErrTooLarge.
const MaxAnswerBytes = 4 << 20

const (
	// firstLagPause is how long a node that lags is left alone before it is asked again; the pauses double.
	firstLagPause = 50 * time.Millisecond
	// lagPatience bounds those pauses together.
	lagPatience = 2 * time.Second
)

// ErrTimeout is the cause of a context whose end says that Vault did not answer in time: make one with
// context.WithDeadlineCause. A context that ends for another reason says only that the caller went away.
var ErrTimeout = errors.New("vault did not answer in time")

// Config says which Vault to talk to. New clears what the environment's VAULT_* variables would change, but for one
// thing: a malformed one makes New fail.
type Config struct {
	Endpoint
	Options
	// LoginNamespace is where the auth method is, if it is not in the Endpoint's Namespace: its tokens live there. "root" is
	// the root namespace. Empty is the Endpoint's.
	LoginNamespace string
}

// Options say how a Client goes about its requests. They may change without a new login.
type Options struct {
	// AllowedHosts lists the names, addresses and networks (CIDR) that may be connected to, and then no proxy of the
	// environment is used. Nil is any.
	AllowedHosts []string
	// OnCall is told of every request that went out to Vault, after its end, by the goroutine that made it. It must
	// return at once. Nil is told nothing.
	OnCall func(Call)
	// Tracer makes a span of every request. Nil makes none.
	Tracer trace.Tracer
	// SpanAttributes are those of every span. Nothing of what a caller chooses belongs there.
	SpanAttributes []attribute.KeyValue
	// TracePaths puts the paths of secrets into the spans.
	TracePaths bool
	// Transport is for tests in a synctest bubble, where sockets do not work. Nil is a pool of connections.
	Transport http.RoundTripper
}

// Client asks one Vault. It is immutable but for its connections, and safe for concurrent use.
type Client struct {
	address    *url.URL
	api        *api.Client // sends the namespace
	root       *api.Client // sends none: sys/health answers in the root namespace only
	auth       *api.Client // sends the login's namespace
	pool       *pool       // nil with Config.Transport
	tracer     *tracer     // nil: no spans
	onCall     func(Call)  // never nil
	answeredAt *atomic.Int64
	honoured   *atomic.Pointer[redact.String] // the last token with which a read was answered, or refused by its policies
	forTest    bool                           // every request is a connection test's
}

// New checks cfg; it does not connect. Its errors are mistakes in cfg; ErrAddressNotAllowed is one.
func New(cfg Config) (*Client, error) {
	address, err := ParseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	c := &Client{address: address, tracer: newTracer(cfg), onCall: cfg.OnCall, answeredAt: new(atomic.Int64),
		honoured: new(atomic.Pointer[redact.String])}
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
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.root, err = newAPIClient(address, "", httpClient); err != nil {
		return nil, err
	}
	if c.api, err = newAPIClient(address, strings.Trim(cfg.Namespace, "/"), httpClient); err != nil {
		return nil, err
	}
	if c.auth, err = newAPIClient(address, cfg.loginNamespace(), httpClient); err != nil {
		return nil, err
	}
	return c, nil
}

// loginNamespace is the namespace of the auth method, as it is sent.
func (cfg *Config) loginNamespace() string {
	switch namespace := strings.Trim(cfg.LoginNamespace, "/"); {
	case namespace == "":
		return strings.Trim(cfg.Namespace, "/")
	case strings.EqualFold(namespace, "root"):
		return ""
	default:
		return namespace
	}
}

// newAPIClient makes a client of vault/api that does not retry, follows no redirect, and keeps nothing of what it has
// read from the environment.
func newAPIClient(address *url.URL, namespace string, httpClient *http.Client) (*api.Client, error) {
	c, err := api.NewClient(&api.Config{
		Address: address.String(), HttpClient: httpClient, DisableRedirects: true,
		// Decided by those who call: a retry costs an outage more requests, and a login may cost the role.
		CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return false, nil },
	})
	if err != nil {
		return nil, errors.New("a VAULT_* variable of the environment is malformed: unset it")
	}
	if err := c.SetAddress(address.String()); err != nil {
		return nil, errors.New("address: write it as https://host:port or http://host:port")
	}
	c.ClearToken()
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}}) // Vault's guard against requests forged by a browser
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

// LastAnswerAt is when Vault last did what it was asked, or said that a secret is not there; zero is never. Refusals
// and the calls of a connection test do not count.
func (c *Client) LastAnswerAt() time.Time {
	if nanos := c.answeredAt.Load(); nanos != 0 {
		return time.Unix(0, nanos)
	}
	return time.Time{}
}

// Reconnect makes the next requests use new connections, and so resolve the name of the address anew. Requests under
// way go on.
func (c *Client) Reconnect() {
	if c.pool != nil {
		c.pool.renew(c.pool.current.Load())
	}
}

// CloseIdle closes the connections that no request uses.
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
	template  string // path with placeholders, for spans; empty: the path is the same for everybody
	params    url.Values
	token     redact.String
	body      any  // encoded as JSON; nil for none
	rootLevel bool // sent without the namespace
}

// do sends r and returns Vault's answer, which is no outage. A node that only lags behind the others is asked again
// for a while. Errors: *CallError with ErrUnreachable, ErrSealed, ErrRateLimited or ErrTooLarge, or ctx's own when the
// caller went away.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	waited, pause := time.Duration(0), firstLagPause
	for {
		ans, err := c.send(ctx, r)
		if ans == nil || !ans.lags() || waited+pause > lagPatience || !Wait(ctx, pause) {
			return ans, err
		}
		waited, pause = waited+pause, pause*2
	}
}

// Wait waits for the time and reports whether ctx has left it.
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

// UntilClosed returns a ctx that ends when closed does, too. Call cancel.
func UntilClosed(ctx context.Context, closed <-chan struct{}) (context.Context, context.CancelFunc) {
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

// send makes one request. Beside an error the answer has at most its status; it is nil when there was none.
func (c *Client) send(ctx context.Context, r request) (*answer, error) {
	ctx, span := c.tracer.begin(ctx, c, r)
	began := time.Now()
	ans, err := c.exchange(ctx, r)
	call := c.endedCall(ctx, r, ans, err, time.Since(began))
	span.end(ctx, call)
	if err == nil && ans.isGood(r.kind) && !c.forTest { // a test asks on in an outage, and a sealed Vault answers it
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
	// Logical has one token for all; each of these requests names its own.
	resp, err := c.apiFor(r).RawRequestWithContext(ctx, req) //nolint:staticcheck // see above
	if resp == nil {
		return nil, c.transportError(ctx, r.doing, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := readBody(resp.Response)
	ans := &answer{status: resp.StatusCode, header: resp.Header, text: body}
	switch {
	case errors.Is(err, ErrTooLarge):
		return ans, &CallError{Sentinel: ErrTooLarge, Doing: r.doing,
			Remedy: "make the secret smaller, or split it: answers of up to 4 MiB are read"}
	case err != nil:
		return ans, c.transportError(ctx, r.doing, err)
	}
	ans.decode(r.kind)
	if outage := ans.outage(r.doing, r.kind, c.proxy()); outage != nil {
		return ans, outage
	}
	return ans, nil
}

func (c *Client) apiFor(r request) *api.Client {
	switch r.kind {
	case CallLogin, CallRenew, CallRevoke, CallLookup, CallUnwrap:
		return c.auth
	case CallRead, CallMount, CallProbe, CallTest:
	}
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

// url is where the request goes, for spans.
func (c *Client) url(r request) string {
	u := *c.address
	u.Path, u.RawPath = u.Path+"/v1/"+r.path, ""
	u.RawQuery = r.params.Encode()
	return u.String()
}

// proxy names the proxy of the environment that requests go through; empty is none.
func (c *Client) proxy() string {
	if c.pool == nil {
		return ""
	}
	return c.pool.proxy
}

// withSent returns a ctx for a request, and sent, which reports whether a part of it may have reached the peer.
func withSent(ctx context.Context) (with context.Context, sent func() bool) {
	var wrote atomic.Bool
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }}), wrote.Load
}
