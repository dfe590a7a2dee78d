package e2e_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// balancer is a layer 4 load balancer. It gives each new connection to the next backend, and knows
// nothing of what is said there. A connection stays with its backend. It is safe for concurrent
// use.
type balancer struct {
	sandbox  *sandbox
	listener net.Listener
	address  string // host:port

	mu       sync.Mutex
	backends []string // host:port; guarded by mu
	// says where a new connection may go; nil checks nothing; guarded by mu
	healthy  func(string) bool
	next     int                // guarded by mu
	accepted int                // guarded by mu
	mute     bool               // new connections are silent from the beginning; guarded by mu
	links    map[*link]struct{} // the open ones; guarded by mu
}

// link is one connection and its continuation to a backend.
type link struct {
	client, backend net.Conn
	silent          atomic.Bool // what is sent is swallowed, and an end is not passed on
}

// newBalancer listens at host:port. The test's end closes it and everything that went through it.
func (s *sandbox) newBalancer(listen string, backends ...string) *balancer {
	s.t.Helper()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		s.t.Fatal(err)
	}
	b := &balancer{sandbox: s, listener: listener, address: listener.Addr().String(),
		links: map[*link]struct{}{}}
	b.route(backends...)
	go b.serve() // ends when the listener is closed
	s.t.Cleanup(b.close)
	return b
}

// hostPort is what follows the scheme of a base URL.
func hostPort(address string) string {
	_, after, _ := strings.Cut(address, "://")
	return after
}

// route says where new connections go: base URLs, taken in turn.
func (b *balancer) route(backends ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = nil
	for _, one := range backends {
		b.backends = append(b.backends, hostPort(one))
	}
}

// check sends new connections only where healthy returns true, if there is such a backend. Nil
// checks nothing.
func (b *balancer) check(healthy func(hostPort string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.healthy = healthy
}

// silence makes the open connections silent: nothing arrives on either side, and nothing is reset.
// New connections work.
func (b *balancer) silence() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for one := range b.links {
		one.silent.Store(true)
	}
}

// vanish is silence for new connections too, as when nobody has the address any more.
func (b *balancer) vanish() {
	b.silence()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute = true
}

// count returns how many connections were accepted.
func (b *balancer) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accepted
}

// close ends it.
func (b *balancer) close() {
	_ = b.listener.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for one := range b.links {
		one.end()
	}
}

func (b *balancer) serve() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return
		}
		go b.join(client) // ends when both sides have closed, at the latest with the test
	}
}

// join connects one client with the backend whose turn it is.
func (b *balancer) join(client net.Conn) {
	b.mu.Lock()
	b.accepted++
	mute := b.mute
	b.mu.Unlock()
	backend, err := b.dial()
	if err != nil {
		_ = client.Close()
		return
	}
	one := &link{client: client, backend: backend}
	one.silent.Store(mute)
	b.mu.Lock()
	b.links[one] = struct{}{}
	b.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { one.carry(backend, client) })
	both.Go(func() { one.carry(client, backend) })
	both.Wait()
	if one.silent.Load() {
		return // it stays open: close ends it
	}
	one.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.links, one)
}

// dial connects to the next backend, or to the next that is healthy.
func (b *balancer) dial() (net.Conn, error) {
	b.mu.Lock()
	backends, healthy := b.backends, b.healthy
	first := b.next
	b.next++
	b.mu.Unlock()
	chosen := backends[first%len(backends)]
	for i := range backends {
		one := backends[(first+i)%len(backends)]
		if healthy == nil || healthy(one) {
			chosen = one
			break
		}
	}
	return net.Dial("tcp", chosen)
}

// carry passes on what comes from one side, and its end.
func (l *link) carry(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if l.silent.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			if half, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				_ = half.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

func (l *link) end() {
	_ = l.client.Close()
	_ = l.backend.Close()
}
