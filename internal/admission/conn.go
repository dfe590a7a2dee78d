package admission

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// Conn is a connection that was let in.
type Conn struct {
	*net.UnixConn
	admission *Admission
	peer      unixsocket.Peer
	standing  Standing
	user      *user
	long      int // guarded by the Admission's mu

	slow bool // reads are slowed down; of the goroutine that reads

	mu      sync.Mutex        // locked after the Admission's
	streams []context.Context // guarded by mu: of the streams in progress, and some that have ended
	granted int               // guarded by mu: how many of them there may be

	closing sync.Once
	closed  chan struct{}
}

// Standing returns how the connection was let in.
func (c *Conn) Standing() Standing { return c.standing }

// Read implements net.Conn. Where the user is slowed down, it waits after it has read, so that the
// user's next bytes come no sooner than they may.
func (c *Conn) Read(into []byte) (int, error) {
	if !c.slow {
		return c.UnixConn.Read(into)
	}
	n, err := c.UnixConn.Read(into[:min(len(into), slowBytes)])
	if wait := c.user.slow.ReserveN(time.Now(), n).Delay(); wait > 0 {
		c.wait(wait)
	}
	return n, err
}

// wait ends early when the connection is closed.
func (c *Conn) wait(long time.Duration) {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.admission.leave(c)
	})
	return c.UnixConn.Close()
}

// Split returns two listeners that share the connections of one: listed for those that are let in as
// Listed, others for all other ones. Others gets its connections while somebody accepts from listed.
// Closing listed closes the listener.
func (a *Admission) Split(listener net.Listener) (listed, others net.Listener) {
	rest := &otherListener{addr: listener.Addr(), conns: make(chan *Conn), closed: make(chan struct{})}
	return &listedListener{Listener: listener, admission: a, others: rest}, rest
}

// listedListener lets connections in, and passes on those that are not for it.
type listedListener struct {
	net.Listener
	admission *Admission
	others    *otherListener
}

// Accept implements net.Listener.
func (l *listedListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := l.admission.letIn(raw)
		switch {
		case c == nil:
			_ = raw.Close()
		case c.standing == Listed:
			return c, nil
		default:
			l.others.pass(c)
		}
	}
}

// letIn returns nil for a connection that is not let in, and for one whose peer the kernel does not
// name.
func (a *Admission) letIn(raw net.Conn) *Conn {
	unix, ok := raw.(*net.UnixConn)
	if !ok {
		return nil
	}
	peer, err := unixsocket.PeerOn(unix)
	if err != nil {
		return nil
	}
	c := &Conn{UnixConn: unix, admission: a, peer: peer, closed: make(chan struct{})}
	if !a.admit(c) {
		return nil
	}
	c.slow = c.standing != Listed
	return c
}

// otherListener hands out what listedListener passes on.
type otherListener struct {
	addr    net.Addr
	conns   chan *Conn
	closing sync.Once
	closed  chan struct{}
}

func (l *otherListener) pass(c *Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (l *otherListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *otherListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *otherListener) Addr() net.Addr { return l.addr }
