package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

const (
	// SocketEnv is the environment variable that names the sidecar's socket.
	SocketEnv = "SECRET_SIDECAR_SOCKET"
	// DefaultSocket is the socket where neither Socket nor SocketEnv names one.
	DefaultSocket = "/run/secret-sidecar/sidecar.sock"

	defaultWait = 10 * time.Second
	// maxAnswerBytes leaves room for the largest secret that the sidecar takes from Vault, 4 MiB.
	maxAnswerBytes = 8 << 20
)

// reconnect is how fast a connection is reopened. gRPC's own pauses grow to two minutes; trying a
// socket on the same machine costs nothing, so a sidecar that is back is found within a second.
var reconnect = grpc.ConnectParams{
	Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6,
		Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
	MinConnectTimeout: 5 * time.Second,
}

// Client asks one sidecar. It is safe for concurrent use. Make one for a process, not one for a
// call.
type Client struct {
	api    secretsidecarv1.SecretServiceClient
	conn   *grpc.ClientConn // nil when the caller brought the connection
	socket string
	near   *nearCache // nil when it is off

	// why the socket could not be opened last time; nil, or a nil error, when it could
	dialed atomic.Pointer[error]
}

// OpenOption changes how Open opens.
type OpenOption func(*settings)

type settings struct {
	socket  string
	wait    time.Duration
	conn    grpc.ClientConnInterface
	near    bool
	nearAge time.Duration
}

// Socket names the sidecar's socket: a path, or a path after "unix:" or "unix://". It wins over
// SocketEnv.
func Socket(path string) OpenOption { return func(s *settings) { s.socket = path } }

// Wait bounds how long Open waits for the sidecar; the default is 10 s. With 0 Open does not wait,
// and the first call does.
func Wait(bound time.Duration) OpenOption { return func(s *settings) { s.wait = bound } }

// Conn makes the client use a connection that the caller has opened and will close. Open does not
// wait for it, and Socket has no effect.
func Conn(conn grpc.ClientConnInterface) OpenOption { return func(s *settings) { s.conn = conn } }

// NearCache keeps answers in this process for up to maxAge, or 5 s when that is 0. It never returns
// one past its ExpiresAt, after an Invalidate through this client, or to a call that asks for
// Fresh. A change in Vault, or somebody else's Invalidate, takes up to maxAge longer to be seen.
func NearCache(maxAge time.Duration) OpenOption {
	return func(s *settings) { s.near, s.nearAge = true, maxAge }
}

// Open opens a client and waits until the sidecar takes its connection. The error is an *Error with
// the reason SidecarUnreachable when that takes longer than Wait or ctx allows, and says why.
func Open(ctx context.Context, options ...OpenOption) (*Client, error) {
	s := settings{wait: defaultWait, socket: os.Getenv(SocketEnv)}
	for _, set := range options {
		set(&s)
	}
	c := &Client{}
	if s.near {
		c.near = newNearCache(s.nearAge)
	}
	if s.conn != nil {
		c.api = secretsidecarv1.NewSecretServiceClient(s.conn)
		return c, nil
	}
	if err := c.dial(s.socket); err != nil {
		return nil, err
	}
	if s.wait <= 0 {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	if err := c.waitUntilReady(ctx); err != nil {
		_ = c.conn.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connection. Calls that are under way fail.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// isClosed reports whether Close was called on a connection of the client's own.
func (c *Client) isClosed() bool {
	return c.conn != nil && c.conn.GetState() == connectivity.Shutdown
}

func (c *Client) dial(socket string) error {
	path, err := socketPath(socket)
	if err != nil {
		return err
	}
	c.socket = path
	// Our own dialer takes every path as it is; gRPC's unix targets are URLs.
	c.conn, err = grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(c.openSocket),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(reconnect),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes),
			grpc.WaitForReady(true)),
	)
	if err != nil {
		return fmt.Errorf("make a client for %s: %w", path, err)
	}
	c.api = secretsidecarv1.NewSecretServiceClient(c.conn)
	return nil
}

func (c *Client) openSocket(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	c.dialed.Store(&err)
	return conn, err
}

// waitUntilReady waits for the connection. Its error says why there is none.
func (c *Client) waitUntilReady(ctx context.Context) error {
	for {
		c.conn.Connect()
		state := c.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return c.unreachable(ctx.Err())
		}
	}
}

// unreachable is the error of a sidecar that is away.
func (c *Client) unreachable(cause error) *Error {
	return &Error{Reason: SidecarUnreachable, Message: c.whyUnreachable(), cause: cause}
}

func (c *Client) whyUnreachable() string {
	err := c.dialError()
	switch {
	case c.conn == nil:
		return "no sidecar answers over this connection: start it, or look at its log"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ENOTDIR):
		return fmt.Sprintf("no sidecar answers at %s: start it, or name its socket in %s", c.socket,
			SocketEnv)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("this user may not open the socket %s: see `socket` in the sidecar's "+
			"configuration for mode and group", c.socket)
	case err != nil:
		return fmt.Sprintf("the socket %s cannot be opened: %v", c.socket, err)
	}
	return fmt.Sprintf("the sidecar at %s has closed the connection: look at its log", c.socket)
}

func (c *Client) dialError() error {
	if last := c.dialed.Load(); last != nil {
		return *last
	}
	return nil
}

// socketPath returns the path in what a person writes as a socket; empty means DefaultSocket.
func socketPath(socket string) (string, error) {
	path := socket
	switch {
	case socket == "":
		return DefaultSocket, nil
	case strings.HasPrefix(socket, "unix://"):
		path = strings.TrimPrefix(socket, "unix://")
		if !strings.HasPrefix(path, "/") {
			return "",
				fmt.Errorf("the socket %q has no absolute path after unix://: write "+
					"unix:///path, or the path alone", socket)
		}
	case strings.HasPrefix(socket, "unix:"):
		path = strings.TrimPrefix(socket, "unix:")
	case strings.Contains(socket, "://"):
		return "", fmt.Errorf("the socket %q is not a Unix socket: write its path, or unix:///path",
			socket)
	}
	if path == "" {
		return "", fmt.Errorf("the socket %q names no path: write unix:///path, or the path alone",
			socket)
	}
	return path, nil
}
