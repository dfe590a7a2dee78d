package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	dialTimeout         = 5 * time.Second
	tlsHandshakeTimeout = 5 * time.Second
	idleTimeout         = 90 * time.Second
	// maxIdle is how many idle connections are kept.
	maxIdle = 64
	// pingAfter and pingTimeout detect an HTTP/2 connection that died silently during a request.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
	// troubledFor is how long requests track their connections after an answer about a failing
	// node. Tracking costs a little, so it stops when the trouble is over.
	troubledFor = time.Minute
	// servedLately is how recently Vault must have served for us to doubt a node that says it does
	// not.
	servedLately = 2 * time.Second
	// longestPatience bounds how long a request waits on a connection that may have died.
	longestPatience = 3 * time.Second
)

// errDeadConnection cancels a request whose connection has probably died.
var errDeadConnection = errors.New("nothing came from a connection that was used before")

// pool holds the connections to one Vault and shares nothing with another. It can abandon all of
// them at once: a connection may die silently, lead to a sealed node, or to an address that the
// name no longer has.
//
// It has no CloseIdleConnections, because vault/api would call it after each failure.
type pool struct {
	build   func(*tls.Config) *http.Transport
	proxy   string // of the environment; empty is none
	files   TLS
	tls     atomic.Pointer[tls.Config]
	current atomic.Pointer[http.Transport]
	// troubledAt is when the last answer about a failing node came, in nanoseconds since 1970.
	troubledAt atomic.Int64
	// answeredAt is when the last answer came, and servedAt when the last one came that does not
	// blame the node; both in nanoseconds since 1970. usual is how long the last answer took.
	answeredAt, servedAt, usual atomic.Int64
}

// newPool returns the pool of one Client. Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY,
// as in every Go program, unless the hosts are limited: a proxy would connect to any.
func newPool(files TLS, address *url.URL, allowedHosts []string) (*pool, error) {
	config, err := files.config()
	if err != nil {
		return nil, err
	}
	p := &pool{files: files}
	proxy := http.ProxyFromEnvironment
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	if allowedHosts != nil {
		proxy = nil
		if err := newAllowlist(allowedHosts).guardDialer(dialer, address); err != nil {
			return nil, err
		}
	} else if found, _ := proxy(&http.Request{URL: address}); found != nil {
		p.proxy = found.Host
	}
	p.build = func(config *tls.Config) *http.Transport {
		return &http.Transport{
			Proxy:                  proxy,
			OnProxyConnectResponse: refusedByProxy,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        config.Clone(),
			TLSHandshakeTimeout:    tlsHandshakeTimeout,
			MaxIdleConnsPerHost:    maxIdle,
			IdleConnTimeout:        idleTimeout,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
			HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter,
				PingTimeout: pingTimeout},
		}
	}
	p.tls.Store(config)
	p.current.Store(p.build(config))
	return p, nil
}

// renew makes later requests use new connections, unless somebody has just done so. Requests in
// progress stay on the old ones.
func (p *pool) renew(old *http.Transport) {
	if p.current.CompareAndSwap(old, p.build(p.tls.Load())) {
		old.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper. It repeats a read once on a new connection, if time is
// left, when a reused one brings nothing or leads to a node that serves nobody.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	transport := p.current.Load()
	patience := p.patience(req)
	if patience == 0 {
		return p.roundTrip(req.Context(), transport, req)
	}
	began := time.Now().UnixNano()
	// The body still needs the context, which ends with its parent, the operation's.
	ctx, giveUp := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(patience, func() {
		if p.answeredAt.Load() < began {
			giveUp(errDeadConnection)
		}
	})
	resp, err := p.roundTrip(ctx, transport, req)
	timer.Stop()
	switch {
	case err == nil && !p.mayBeTheNode(resp):
		return resp, nil
	case err == nil:
		_ = resp.Body.Close()
	case !errors.Is(context.Cause(ctx), errDeadConnection):
		return nil, err
	}
	p.renew(transport)
	return p.roundTrip(req.Context(), p.current.Load(), req)
}

// mayBeTheNode reports whether the answer says that its node serves nobody, although Vault served a
// moment ago. Then a new connection may lead to a better node.
func (p *pool) mayBeTheNode(resp *http.Response) bool {
	switch status := resp.StatusCode; {
	case status == http.StatusServiceUnavailable, isRedirect(status), status == 472, status == 473:
		return time.Now().UnixNano()-p.servedAt.Load() < int64(servedLately)
	}
	return false
}

// roundTrip makes the request under ctx.
func (p *pool) roundTrip(ctx context.Context, transport *http.Transport,
	req *http.Request) (*http.Response, error) {
	began := time.Now()
	var used net.Conn
	if began.UnixNano()-p.troubledAt.Load() < int64(troubledFor) {
		ctx = httptrace.WithClientTrace(ctx,
			&httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
				used = info.Conn
			}})
	}
	if ctx != req.Context() {
		req = req.WithContext(ctx)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	p.usual.Store(int64(now.Sub(began)))
	p.answeredAt.Store(now.UnixNano())
	if !speaksOfTheNode(resp.StatusCode) {
		p.servedAt.Store(now.UnixNano())
		return resp, nil
	}
	p.troubledAt.Store(now.UnixNano())
	if resp.ProtoMajor == 1 && used != nil {
		resp.Body = lastBody{resp.Body, used}
	}
	return resp, nil
}

func isRedirect(status int) bool { return status >= 300 && status < 400 }

// speaksOfTheNode reports whether the status blames the node, so that another one might do better.
func speaksOfTheNode(status int) bool {
	return status >= 500 || isRedirect(status) || status == http.StatusPreconditionFailed ||
		status == 472 || status == 473
}

// lastBody is the last body that its connection brings. At its end the connection goes back to the
// pool, so lastBody closes it at once. net/http repeats a read that took it in between.
type lastBody struct {
	io.ReadCloser
	conn net.Conn
}

// Read implements io.Reader.
func (b lastBody) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	if err != nil {
		_ = b.conn.Close()
	}
	return n, err
}

// Close implements io.Closer.
func (b lastBody) Close() error {
	err := b.ReadCloser.Close()
	_ = b.conn.Close()
	return err
}

// patience is how long to wait for an answer before the connection counts as dead; 0 means for
// ever. A Vault that is known to be slow gets more time, and a new connection all of it.
func (p *pool) patience(req *http.Request) time.Duration {
	deadline, bounded := req.Context().Deadline()
	if req.Method != http.MethodGet || !bounded || p.answeredAt.Load() == 0 {
		return 0
	}
	left := time.Until(deadline)
	patience := max(min(left/3, longestPatience), 2*time.Duration(p.usual.Load()))
	if patience > left/2 {
		return 0
	}
	return patience
}

// proxyError says that a proxy refused to connect to Vault.
type proxyError struct{ status int }

// Error implements error.
func (e *proxyError) Error() string { return "the proxy answered " + http.StatusText(e.status) }

func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return &proxyError{resp.StatusCode}
	}
	return nil
}

// bounded is a RoundTripper whose bodies end with ErrTooLarge after MaxAnswerBytes. It is needed
// because vault/api reads the body of an error whole.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	left := int64(MaxAnswerBytes)
	if resp.ContentLength > left {
		left = -1 // no need to read it
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: left}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(into []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrTooLarge
	}
	n, err := b.ReadCloser.Read(into)
	if b.left -= int64(n); b.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// readBeginning reads an answer's body up to smallAnswer. Where there is more, size is how large
// the whole may be; it is 0 when the body has ended.
func readBeginning(resp *http.Response) (begun []byte, size int64, err error) {
	const usual = 1 << 10
	room := int64(usual)
	if 0 < resp.ContentLength && resp.ContentLength <= MaxAnswerBytes {
		room = min(resp.ContentLength, smallAnswer) + 1 // room to see the end without growing
	}
	begun = make([]byte, 0, room)
	for {
		n, err := resp.Body.Read(begun[len(begun):cap(begun)])
		begun = begun[:len(begun)+n]
		switch {
		case errors.Is(err, io.EOF):
			return begun, 0, nil
		case err != nil:
			return nil, 0, err
		case len(begun) > smallAnswer:
			return begun, wholeSize(resp), nil
		case len(begun) == cap(begun):
			begun = append(begun, 0)[:len(begun)]
		}
	}
}

// wholeSize is how large the body of an answer may be.
func wholeSize(resp *http.Response) int64 {
	if 0 < resp.ContentLength && resp.ContentLength <= MaxAnswerBytes {
		return resp.ContentLength
	}
	return MaxAnswerBytes
}

// readRest reads on to the end of a body that has begun and may have size bytes. Without knowing it
// grows: what is too large then ends at the bound.
func readRest(resp *http.Response, begun []byte, size int64) ([]byte, error) {
	room := size + 1
	if resp.ContentLength < 0 {
		room = 4 * smallAnswer
	}
	body := append(make([]byte, 0, room), begun...)
	for {
		n, err := resp.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		case len(body) == cap(body):
			body = append(body, 0)[:len(body)]
		}
	}
}
