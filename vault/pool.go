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
	// maxIdle is how many connections are kept for the next requests.
	maxIdle = 64
	// pingAfter and pingTimeout find an HTTP/2 connection that died silently while requests are under way on it.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
	// troubledFor is how long after an answer that speaks of a node that fails each request remembers its connection,
	// which costs a little.
	troubledFor = time.Minute
	// servedLately is how long ago Vault has served at most when the answer that a node does not serve is doubted.
	servedLately = 2 * time.Second
	// longestPatience bounds how long a request waits on a connection that may have died.
	longestPatience = 3 * time.Second
)

// errDeadConnection ends a request on a connection that has probably died.
var errDeadConnection = errors.New("nothing came from a connection that was used before")

// pool is the connections to one Vault; nothing is shared with another. It can leave all of them behind at once: a
// connection may die without a word, lead to a node that is sealed, or to an address that the name no longer has.
//
// It has no CloseIdleConnections: vault/api would call it at each failure.
type pool struct {
	build   func(*tls.Config) *http.Transport
	proxy   string // of the environment; empty is none
	files   TLS
	tls     atomic.Pointer[tls.Config]
	current atomic.Pointer[http.Transport]
	// troubledAt is when an answer came last that speaks of a node that fails, in nanoseconds since 1970.
	troubledAt atomic.Int64
	// answeredAt is when an answer came last, and servedAt when one came that does not speak of a node that fails; in
	// nanoseconds since 1970. usual is how long the last one took.
	answeredAt, servedAt, usual atomic.Int64
}

// newPool makes the pool of one Client. Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY as in every Go program,
// unless the hosts are limited: a proxy would connect to any.
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
		if err := newDestinations(allowedHosts).guardDialer(dialer, address); err != nil {
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
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		}
	}
	p.tls.Store(config)
	p.current.Store(p.build(config))
	return p, nil
}

// renew replaces the connections by none, unless somebody has just done so. Requests that run on old ones go on.
func (p *pool) renew(old *http.Transport) {
	if p.current.CompareAndSwap(old, p.build(p.tls.Load())) {
		old.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper. A read that gets nothing from connections that were used before, while there is
// still time, or meets a node that serves nobody, is made once more on a new one.
func (p *pool) RoundTrip(req *http.Request) (*http.Response, error) {
	transport := p.current.Load()
	patience := p.patience(req)
	if patience == 0 {
		return p.roundTrip(req.Context(), transport, req)
	}
	began := time.Now().UnixNano()
	ctx, giveUp := context.WithCancelCause(req.Context()) // the body needs it; it ends with its parent, an operation's
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

// mayBeTheNode reports whether the answer says that its node serves nobody, though Vault has served a moment ago: then a
// new connection may lead to a better one.
func (p *pool) mayBeTheNode(resp *http.Response) bool {
	switch status := resp.StatusCode; {
	case status == http.StatusServiceUnavailable, isRedirect(status), status == 472, status == 473:
		return time.Now().UnixNano()-p.servedAt.Load() < int64(servedLately)
	}
	return false
}

// roundTrip makes the request under ctx.
func (p *pool) roundTrip(ctx context.Context, transport *http.Transport, req *http.Request) (*http.Response, error) {
	began := time.Now()
	var used net.Conn
	if began.UnixNano()-p.troubledAt.Load() < int64(troubledFor) {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { used = info.Conn }})
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

// speaksOfTheNode reports whether another node might answer better than with the status.
func speaksOfTheNode(status int) bool {
	return status >= 500 || isRedirect(status) || status == http.StatusPreconditionFailed || status == 472 || status == 473
}

// lastBody is the last one that its connection brings: the next request goes over another one. At its end the connection
// is everybody's again, so that it is closed at once: a read that has just taken it is repeated by net/http.
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

// patience is how long to wait for an answer before the connection counts as dead; 0 is for ever. A Vault that is known
// to be slow is given more time, and who has a new connection all of it.
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

// bounded is a RoundTripper whose answers end with ErrTooLarge after MaxAnswerBytes: vault/api reads those that it
// takes for errors whole.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	left := int64(MaxAnswerBytes)
	if resp.ContentLength > left {
		left = -1 // there is no need to read it
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

// readBeginning reads an answer's body up to smallAnswer. Where there is more, size is how large the
// whole may be; it is 0 when the body has ended.
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
