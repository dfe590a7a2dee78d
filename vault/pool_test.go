package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/redact"
)

// pipes is a network inside a bubble, where sockets do not work. Each connection that is dialled is
// a pipe to a server.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}

	mu    sync.Mutex
	conns []*pipeConn // in the order dialled; guarded by mu
}

// pipeConn is the client's end of a connection.
type pipeConn struct {
	net.Conn
	number int

	mu     sync.Mutex
	silent bool // swallows what is sent; guarded by mu
	ended  bool // the client has closed it; guarded by mu
}

func (c *pipeConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	silent := c.silent
	c.mu.Unlock()
	if silent {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *pipeConn) Close() error {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *pipeConn) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// numbered is the server's end. Its address is the connection's number.
type numbered struct {
	net.Conn
	number int
}

type number int

func (n number) Network() string        { return "pipe" }
func (n number) String() string         { return fmt.Sprint(int(n)) }
func (c numbered) RemoteAddr() net.Addr { return number(c.number) }
func (p *pipes) Addr() net.Addr         { return number(0) }
func (p *pipes) Close() error           { close(p.closed); return nil }
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accept:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.mu.Lock()
	conn := &pipeConn{Conn: ours, number: len(p.conns)}
	p.conns = append(p.conns, conn)
	p.mu.Unlock()
	select {
	case p.accept <- numbered{theirs, conn.number}:
		return conn, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialled returns the connections so far.
func (p *pipes) dialled() []*pipeConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*pipeConn(nil), p.conns...)
}

// goSilent makes the connections that there are swallow all that is sent. New ones work.
func (p *pipes) goSilent() {
	for _, conn := range p.dialled() {
		conn.mu.Lock()
		conn.silent = true
		conn.mu.Unlock()
	}
}

// onPipes runs a test of a Client whose server is in the bubble, too. The server is told the number
// of the connection that a request came by.
func onPipes(t *testing.T, serve func(w http.ResponseWriter, r *http.Request, conn string),
	test func(t *testing.T, c *Client, p *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
		server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Hour,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				serve(w, r, r.RemoteAddr)
			})}
		go func() { _ = server.Serve(p) }() // ends with server.Close
		defer func() { _ = server.Close() }()
		c, err := New(Config{Endpoint: Endpoint{Address: "http://vault:8200"}})
		if err != nil {
			t.Fatal(err)
		}
		build := c.pool.build
		c.pool.build = func(config *tls.Config) *http.Transport {
			transport := build(config)
			transport.DialContext, transport.Proxy = p.dial, nil
			return transport
		}
		c.pool.renew(c.pool.current.Load())
		defer c.CloseIdle()
		test(t, c, p)
	})
}

// readWithin reads a secret, for as long as the timeout allows, and returns how long it took.
func readWithin(t *testing.T, c *Client, timeout time.Duration) (took time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), timeout, ErrTimeout)
	defer cancel()
	began := time.Now()
	_, err = c.Read(ctx, redact.New("token"), "secret/data/app", 0)
	return time.Since(began), err
}

func aSecret(w http.ResponseWriter) {
	_, _ = fmt.Fprintf(w, `{"data":{"data":{"key":"value"},"metadata":%s}}`, someMetadata)
}

func TestAConnectionThatWentSilentIsLeftWithin3Seconds(t *testing.T) {
	for _, timeout := range []time.Duration{3 * time.Second, 10 * time.Second, time.Minute} {
		onPipes(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
			aSecret(w)
		}, func(t *testing.T, c *Client, p *pipes) {
			if _, err := readWithin(t, c, timeout); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			p.goSilent()
			took, err := readWithin(t, c, timeout)
			if err != nil || took > longestPatience {
				t.Errorf("with a timeout of %v: %v after %v", timeout, err, took)
			}
			if took, err := readWithin(t, c, timeout); err != nil || took > 0 {
				t.Errorf("the next one: %v after %v", err, took)
			}
		})
	}
}

func TestASlowVaultIsNotTakenForADeadConnection(t *testing.T) {
	for _, delay := range []time.Duration{500 * time.Millisecond, 2 * time.Second,
		4 * time.Second} {
		requests := 0 // the server answers one at a time
		onPipes(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
			requests++
			time.Sleep(delay)
			aSecret(w)
		}, func(t *testing.T, c *Client, p *pipes) {
			for range 10 {
				if took, err := readWithin(t, c, 10*time.Second); err != nil || took != delay {
					t.Errorf("a Vault that takes %v: %v after %v", delay, err, took)
				}
				time.Sleep(10 * time.Second)
			}
			if n := len(p.dialled()); n != 1 {
				t.Errorf("a Vault that takes %v: %d connections", delay, n)
			}
		})
		if requests != 10 {
			t.Errorf("a Vault that takes %v was asked %d times, want 10", delay, requests)
		}
	}
}

func TestAConnectionThatLeadsToANodeThatFailsIsLeftWhileOthersStay(t *testing.T) {
	both := make(chan struct{}) // closed when two requests are under way
	waiting := 0
	var mu sync.Mutex
	onPipes(t, func(w http.ResponseWriter, r *http.Request, conn string) {
		mu.Lock()
		if waiting++; waiting == 2 {
			close(both)
		}
		mu.Unlock()
		select {
		case <-both:
		case <-r.Context().Done():
		}
		if conn == "1" {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"errors":["internal error"]}`)
			return
		}
		aSecret(w)
	}, func(t *testing.T, c *Client, p *pipes) {
		inParallel := func() (failed int) {
			errs := make(chan error)
			for range 2 {
				go func() {
					_, err := readWithin(t, c, time.Minute)
					errs <- err
				}()
			}
			for range 2 {
				if err := <-errs; errors.Is(err, ErrUnreachable) {
					failed++
				}
			}
			return failed
		}
		if failed := inParallel(); failed != 1 {
			t.Fatalf("%d reads failed, want the one of the bad node", failed)
		}
		for range 10 { // one after the other: the pool gives the connection that was used last
			_ = inParallel()
		}
		conns := p.dialled()
		if len(conns) < 3 || !conns[1].isEnded() || conns[0].isEnded() {
			t.Errorf("%d connections; that to the bad node is closed: %v, that to the good one: %v",
				len(conns), conns[1].isEnded(), conns[0].isEnded())
		}
		if failed := inParallel(); failed != 0 {
			t.Errorf("%d reads failed after the bad node was left", failed)
		}
	})
}
