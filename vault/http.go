package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// MaxAnswerBytes is the largest answer of Vault's that is read; a larger one is ErrTooLarge.
const MaxAnswerBytes = 4 << 20

const (
	dialTimeout         = 5 * time.Second
	tlsHandshakeTimeout = 5 * time.Second
	idleTimeout         = 90 * time.Second
	// pingAfter and pingTimeout find an HTTP/2 connection that died silently; without them it is used, and
	// every request on it times out, until the kernel gives up after many minutes.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// errOperationTimeout is the cause of a context that ended because Config.Timeout passed, and not because the
// caller went away: only the former says something about Vault.
var errOperationTimeout = errors.New("vault did not answer in time")

// vaultAPI sends requests to one Vault. It is immutable and safe for concurrent use.
type vaultAPI struct {
	base      *url.URL
	namespace string
	client    *http.Client
	gate      *gate // nil: requests are always let through
	forTest   bool  // every request is a connection test's

	tracer     *tracer       // nil: no spans
	onCall     func(Call)    // never nil
	lastAnswer *atomic.Int64 // when Vault last answered as it should, in Unix nanoseconds; 0 is never
}

// request is one call of Vault's HTTP API.
type request struct {
	doing      string // for errors, "read the secret"
	kind       CallKind
	method     string
	path       string // below /v1/, segments not escaped
	template   string // path with placeholders, for spans; empty: the path is the same for everybody
	query      string // encoded
	token      redact.String
	body       any  // encoded as JSON; nil for none
	answers500 bool // a 500 says something about the request, not about Vault: see renew
	isRead     bool // of a secret: a failure may be its path's alone
	rootLevel  bool // sent without the namespace: sys/health answers in the root namespace only
}

// answer is what Vault said: an HTTP status that is no outage, and a body that is JSON or empty. Beside an error it
// has at most the status.
type answer struct {
	status int
	body   []byte
}

func newAPI(address *url.URL, namespace string, transport http.RoundTripper, g *gate) *vaultAPI {
	return &vaultAPI{base: address, namespace: namespace, gate: g, onCall: func(Call) {}, lastAnswer: new(atomic.Int64), client: &http.Client{
		Transport: transport,
		// Following a redirect would carry the token to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// newTransport makes the connection pool of one connection; nothing is shared with another. Proxies come from
// HTTPS_PROXY, HTTP_PROXY and NO_PROXY as in every Go program, unless the hosts are limited: a proxy would connect to
// any.
func newTransport(t TLS, address *url.URL, allowedHosts []string) (*http.Transport, error) {
	tlsConfig, err := t.config()
	if err != nil {
		return nil, err
	}
	proxy := http.ProxyFromEnvironment
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	if allowedHosts != nil {
		proxy = nil
		if err := newDestinations(allowedHosts).guardDialer(dialer, address); err != nil {
			return nil, err
		}
	}
	return &http.Transport{
		Proxy:               proxy,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: tlsHandshakeTimeout,
		MaxIdleConnsPerHost: maxConcurrentReads,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}, nil
}

// ungated returns a vaultAPI to the same Vault whose requests neither ask the gate nor tell it.
func (a *vaultAPI) ungated() *vaultAPI {
	free := *a
	free.gate = nil
	return &free
}

// testing returns an ungated vaultAPI whose requests are a connection test's.
func (a *vaultAPI) testing() *vaultAPI {
	free := a.ungated()
	free.forTest = true
	return free
}

// call sends r and returns Vault's answer. Errors: an outage (see Outage), ErrTooLarge, or ctx's own error
// when the caller went away.
func (a *vaultAPI) call(ctx context.Context, r request) (answer, error) {
	if a.gate == nil {
		return a.send(ctx, r)
	}
	if r.isRead {
		return a.callPath(ctx, r)
	}
	pass, err := a.gate.enter(r.doing)
	if err != nil {
		return answer{}, err
	}
	ans, err := a.send(ctx, r)
	pass.leave(err)
	return ans, err
}

// callPath is call for a read, whose path has a gate of its own before the connection's.
func (a *vaultAPI) callPath(ctx context.Context, r request) (answer, error) {
	if err := a.gate.paths.enter(r.path, r.doing); err != nil {
		return answer{}, err
	}
	pass, err := a.gate.enter(r.doing)
	if err != nil {
		return answer{}, err
	}
	ans, err := a.send(ctx, r)
	failure, isCall := errors.AsType[*CallError](err)
	if wasAnswered := err == nil || isCall && (failure.answered || !Outage(err)); !wasAnswered {
		pass.leave(err)
		return ans, err
	}
	general, turned := a.gate.paths.answered(r.path, err)
	if turned {
		defer a.gate.changed()
	}
	if general || pass.probe {
		pass.leave(err)
		return ans, err
	}
	pass.leave(nil) // Vault is there, whatever it says at this path
	return ans, err
}

// send sends r whatever the gate says, and tells of it.
func (a *vaultAPI) send(ctx context.Context, r request) (answer, error) {
	began := time.Now()
	ctx, span := a.tracer.begin(ctx, a, r)
	ans, err := a.exchange(ctx, r)
	call := a.endedCall(ctx, r, ans, err, time.Since(began))
	span.end(ctx, call)
	if err == nil && ans.good(r.kind) && !a.forTest { // a test asks on in an outage, and a sealed Vault answers it
		a.lastAnswer.Store(time.Now().UnixNano())
	}
	a.onCall(call)
	return ans, err
}

// good says that Vault did what it was asked, or that what was to be read is not there; a refusal is not.
func (a answer) good(kind CallKind) bool {
	return a.status < http.StatusBadRequest || a.status == http.StatusNotFound && kind == CallRead
}

func (a *vaultAPI) exchange(ctx context.Context, r request) (answer, error) {
	req, err := a.newRequest(ctx, r)
	if err != nil {
		return answer{}, unreachable(r.doing, "check the address of the connection", err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return answer{}, transportError(ctx, r.doing, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := readBody(resp)
	switch {
	case errors.Is(err, ErrTooLarge):
		return answer{status: resp.StatusCode}, &CallError{Sentinel: ErrTooLarge, Doing: r.doing,
			Remedy: "make the secret smaller, or split it: answers of up to 4 MiB are read"}
	case err != nil:
		return answer{status: resp.StatusCode}, transportError(ctx, r.doing, err)
	}
	if err := outageOf(r, resp, body); err != nil {
		return answer{status: resp.StatusCode}, err
	}
	return answer{status: resp.StatusCode, body: body}, nil
}

func (a *vaultAPI) newRequest(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, errors.New("the request cannot be encoded")
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, a.url(r.path, r.query).String(), body)
	if err != nil {
		return nil, errors.New("the request cannot be built")
	}
	req.Header.Set("X-Vault-Request", "true") // Vault's guard against requests forged by a browser
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.namespace != "" && !r.rootLevel {
		req.Header.Set("X-Vault-Namespace", a.namespace)
	}
	if !r.token.IsEmpty() {
		req.Header.Set("X-Vault-Token", r.token.Reveal())
	}
	a.tracer.propagate(ctx, req.Header)
	return req, nil
}

// url escapes every segment of path by itself, so that `?`, `#`, `%` and `%2e%2e` reach Vault unchanged.
func (a *vaultAPI) url(path, query string) *url.URL {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = url.PathEscape(segment)
	}
	u := *a.base
	u.Path = a.base.Path + "/v1/" + path
	u.RawPath = a.base.EscapedPath() + "/v1/" + strings.Join(segments, "/")
	u.RawQuery = query
	return &u
}

func readBody(resp *http.Response) ([]byte, error) {
	if resp.ContentLength > MaxAnswerBytes {
		return nil, ErrTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswerBytes+1))
	if err == nil && len(body) > MaxAnswerBytes {
		return nil, ErrTooLarge
	}
	return body, err
}

// closeIdle closes the connections that no request uses.
func (a *vaultAPI) closeIdle() { a.client.CloseIdleConnections() }
