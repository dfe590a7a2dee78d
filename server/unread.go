package server

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	// readMemory bounds what large answers of all Vaults take while they are read and decoded.
	readMemory = 3 * vault.LargestRead
	// answerMemory bounds the answers of all callers that have not left, in bytes.
	answerMemory = 32 << 20
	// largeAnswerMemory is the part of it that answers of more than smallSecret may take: they leave
	// room for small ones.
	largeAnswerMemory = 24 << 20
	// unreadPerClient bounds the answers on one client connection that have not left.
	unreadPerClient = 8 << 20
	// readPatience is how long a client may leave an answer unread. Then its connection is closed.
	readPatience = 30 * time.Second
	// drainPatience is how long, once a stop has begun.
	drainPatience = time.Second
	// unreadCheck is how often connections are looked at.
	unreadCheck = 5 * time.Second
	// leastBuffer makes gRPC tell of the end of every answer: what is no larger than 1 KiB is not
	// given back.
	leastBuffer = 1<<10 + 1
)

// answers are the answers that have not left. gRPC takes an answer when its handler returns, however
// slowly the client reads: what waits for the client is in memory, and its request is not over. It
// is safe for concurrent use.
type answers struct {
	held atomic.Int64 // bytes

	mu      sync.Mutex
	clients map[*client]struct{} // guarded by mu; those whose connection is open

	refused atomic.Uint64 // answers that there was no room for
	closed  atomic.Uint64 // connections whose client did not read
}

func newAnswers() *answers { return &answers{clients: map[*client]struct{}{}} }

// client is a client connection. As an address it is found again by the requests that come over it.
type client struct {
	net.Conn
	of   *answers
	once sync.Once // guards the end

	mu     sync.Mutex
	ended  bool                 // guarded by mu
	unread map[*answer]struct{} // guarded by mu
	bytes  int64                // guarded by mu: of unread
}

// RemoteAddr implements net.Conn: gRPC hands it to each request as the peer's address.
func (c *client) RemoteAddr() net.Addr { return c }

// Network implements net.Addr.
func (c *client) Network() string { return c.Conn.RemoteAddr().Network() }

// String implements net.Addr.
func (c *client) String() string { return c.Conn.RemoteAddr().String() }

// Close implements net.Conn. Answers that are still unread are over.
func (c *client) Close() error {
	c.once.Do(c.end)
	return c.Conn.Close()
}

func (c *client) end() {
	c.of.mu.Lock()
	delete(c.of.clients, c)
	c.of.mu.Unlock()
	c.mu.Lock()
	c.ended = true
	unread := c.unread
	c.unread, c.bytes = nil, 0
	c.mu.Unlock()
	for a := range unread {
		a.over()
	}
}

// clientOf returns the connection that the request came over; nil where it is none of ours.
func clientOf(ctx context.Context) *client {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	c, _ := p.Addr.(*client)
	return c
}

// answerCredentials make a client of each connection.
type answerCredentials struct {
	credentials.TransportCredentials
	answers *answers
}

// ServerHandshake implements credentials.TransportCredentials.
func (c answerCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	one := &client{Conn: conn, of: c.answers, unread: map[*answer]struct{}{}}
	c.answers.mu.Lock()
	c.answers.clients[one] = struct{}{}
	c.answers.mu.Unlock()
	return one, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c answerCredentials) Clone() credentials.TransportCredentials {
	return answerCredentials{c.TransportCredentials.Clone(), c.answers}
}

// answer is an encoded message that has not left. It is the buffer that gRPC sends, and the pool that
// gRPC gives the message's bytes back to: that is how its end shows.
type answer struct {
	mem.Buffer // of the bytes; set by take

	ctx   context.Context //nolint:containedctx // gRPC's: it says at the end of sending whether the client has reset the stream
	to    *client         // nil: nobody knows
	of    *answers
	bytes int64
	began time.Time
	leave func() // ends the request for its caller's limits

	refs   atomic.Int32 // how often gRPC has taken a reference
	isOver atomic.Bool
}

// Ref implements mem.Buffer.
func (a *answer) Ref() {
	a.refs.Add(1)
	a.Buffer.Ref()
}

// Free implements mem.Buffer. When a client resets a stream while its answer is being handed over,
// gRPC drops the answer and gives nothing back. It takes one reference to hand the answer over, and
// another when it begins to write it. So a Free between the two comes from the end of the hand-over,
// which is before the stream's own end: a ctx that is done by then says that the client has gone.
func (a *answer) Free() {
	wasDropped := a.refs.Load() == 1 && a.ctx.Err() != nil
	a.Buffer.Free()
	if wasDropped {
		a.end()
	}
}

// take encodes the message, and counts it until it has left. Its problem says that too much is
// unread. leave is called when it has left; not when there is a problem.
func (s *answers) take(ctx context.Context, message proto.Message, leave func()) (*answer, *problem) {
	size := proto.Size(message)
	a := &answer{ctx: ctx, to: clientOf(ctx), of: s, bytes: int64(size), began: time.Now(), leave: leave}
	if refused := s.reserve(a); refused != nil {
		s.refused.Add(1)
		return nil, refused
	}
	sendPlain(ctx)
	buffer := mem.DefaultBufferPool().Get(max(size, leastBuffer))
	encoded, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend((*buffer)[:0], message)
	if err != nil {
		a.leave = func() {}
		a.Put(buffer)
		return nil, errInternal(err)
	}
	*buffer = encoded
	a.Buffer = mem.NewBuffer(buffer, a)
	return a, nil
}

// sendPlain keeps gRPC from compressing the answer to a compressed request: what it makes of the
// answer would be counted by nobody.
func sendPlain(ctx context.Context) {
	stream, ok := grpc.ServerTransportStreamFromContext(ctx).(interface {
		RecvCompress() string
		SetSendCompress(name string) error
	})
	if ok && stream.RecvCompress() != "" {
		_ = stream.SetSendCompress(encoding.Identity) // fails once the client has gone
	}
}

// reserve makes room for an answer.
func (s *answers) reserve(a *answer) *problem {
	if !s.hold(int(a.bytes)) {
		return errUnread("answers of all callers")
	}
	if a.to.add(a) {
		return nil
	}
	s.release(int(a.bytes))
	return errUnread("answers on this connection")
}

// add reports false when the connection has too much unread already. What comes over none of ours
// has no bound of its own.
func (c *client) add(a *answer) bool {
	if c == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		a.to = nil // gRPC gives the buffer back at once
		return true
	}
	if c.bytes > 0 && c.bytes+a.bytes > unreadPerClient {
		return false
	}
	c.bytes += a.bytes
	c.unread[a] = struct{}{}
	return true
}

// Get implements mem.BufferPool; gRPC takes no buffer from an answer.
func (a *answer) Get(length int) *[]byte { return mem.DefaultBufferPool().Get(length) }

// Put implements mem.BufferPool. gRPC calls it when the answer has been written to the connection,
// or will not be.
func (a *answer) Put(buffer *[]byte) {
	a.end()
	mem.DefaultBufferPool().Put(buffer)
}

// end takes the answer off those that are unread. It may be called twice.
func (a *answer) end() {
	if c := a.to; c != nil {
		c.mu.Lock()
		if _, ok := c.unread[a]; ok {
			delete(c.unread, a)
			c.bytes -= a.bytes
		}
		c.mu.Unlock()
	}
	a.over()
}

// over ends the answer's request. It may be called twice: by its connection's end, too.
func (a *answer) over() {
	if a.isOver.Swap(true) {
		return
	}
	a.of.held.Add(-a.bytes)
	a.leave()
}

// isStuck reports whether an answer is unread for longer than patience.
func (c *client) isStuck(now time.Time, patience time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.unread {
		if now.Sub(a.began) > patience {
			return true
		}
	}
	return false
}

// closeStuck closes the connections whose client leaves an answer unread for longer than patience,
// and returns how many.
func (s *answers) closeStuck(patience time.Duration) (closed int) {
	now := time.Now()
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	for _, c := range all {
		if c.isStuck(now, patience) {
			_ = c.Close() // what it could say is of no use to anybody
			closed++
		}
	}
	s.closed.Add(uint64(closed)) // #nosec G115 -- a count
	return closed
}

// hold counts a value until release, where it waits to be answered. It reports false when there is
// no room.
func (s *answers) hold(bytes int) bool {
	most := int64(answerMemory)
	if bytes > smallSecret {
		most = largeAnswerMemory
	}
	if s.held.Add(int64(bytes)) > most {
		s.release(bytes)
		return false
	}
	return true
}

func (s *answers) release(bytes int) { s.held.Add(-int64(bytes)) }

// watchUnread closes stuck connections until ctx is done.
func (s *Server) watchUnread(ctx context.Context, every, patience time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if closed := s.answers.closeStuck(patience); closed > 0 {
				s.log.Warn("connections are closed whose clients do not read their answers", "connections", closed)
			}
		}
	}
}

func errUnread(what string) *problem {
	return errOverloaded(fmt.Sprintf("too many %s are not read yet: read them, and ask again then", what))
}

// answerCodec encodes messages, and takes answers as they are encoded already.
type answerCodec struct{ encoding.CodecV2 }

func newAnswerCodec() answerCodec { return answerCodec{encoding.GetCodecV2(grpcproto.Name)} }

// Marshal implements encoding.CodecV2.
func (c answerCodec) Marshal(v any) (mem.BufferSlice, error) {
	if a, ok := v.(*answer); ok {
		return mem.BufferSlice{a}, nil
	}
	return c.CodecV2.Marshal(v)
}
