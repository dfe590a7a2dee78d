package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

// maxAnswerBytes leaves room for a secret as large as the sidecar accepts from Vault (4 MiB).
const maxAnswerBytes = 8 << 20

// client is a connection to the running sidecar. It is safe for concurrent use.
type client struct {
	conn   *grpc.ClientConn
	socket string

	mu      sync.Mutex
	dialErr error // guarded by mu: why the socket could not be opened last time
}

// dial makes a client; the connection itself is opened by the first call. The caller closes it.
func (a *app) dial() (*client, error) {
	c := &client{socket: a.socketPath()}
	if err := unixsocket.CheckPath(c.socket); err != nil {
		return nil, usageError{err}
	}
	// Our own dialer takes every path as it is; gRPC's unix: targets are URLs, which some paths
	// break.
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(c.open),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
	)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", c.socket, err)
	}
	c.conn = conn
	return c, nil
}

func (c *client) open(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialErr = err
	return conn, err
}

// Close closes the connection.
func (c *client) Close() { _ = c.conn.Close() } // fails only when closed already

// ask sends one request to the running sidecar. Its errors are ready to be shown.
func ask[Request, Response any](
	ctx context.Context,
	a *app,
	method func(secretsidecarv1.SecretServiceClient, context.Context, *Request,
		...grpc.CallOption) (*Response, error),
	request *Request,
) (*Response, error) {
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	response, err := method(secretsidecarv1.NewSecretServiceClient(c.conn), ctx, request)
	if err != nil {
		return nil, c.explain(err, a.timeout)
	}
	return response, nil
}

// hints translate what the sidecar says about the API into flags of the command line.
var hints = map[string]string{
	"CONNECTION_REQUIRED":  ": add --connection",
	"CONNECTION_NOT_FOUND": ", or run `secret-sidecar connections list`",
	"PROJECT_REQUIRED":     ": add --project",
}

// explain turns the error of a call into one line for a person: the sidecar's reason and message,
// or why there was no answer.
func (c *client) explain(err error, timeout time.Duration) error {
	c.mu.Lock()
	dialErr := c.dialErr
	c.mu.Unlock()
	if dialErr != nil {
		return c.explainDial(dialErr)
	}
	answer := status.Convert(err)
	reason, message := reasonOf(answer), answer.Message()
	switch {
	case reason != "":
		return fmt.Errorf("%s: %s%s", reason, message, hints[reason])
	case answer.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("the sidecar at %s did not answer within %v: try again, or wait longer "+
			"with --timeout", c.socket, timeout)
	case answer.Code() == codes.Canceled:
		return errors.New("interrupted before the sidecar answered")
	case answer.Code() == codes.Unavailable:
		return fmt.Errorf("the sidecar at %s closed the connection: look at its log", c.socket)
	}
	return fmt.Errorf("%s: %s", codeName(answer.Code()), message)
}

func (c *client) explainDial(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("no sidecar answers at %s: start it with `secret-sidecar serve`, or "+
			"name its socket with --socket or %s", c.socket, socketEnv)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not open the socket %s: run as its owner, or see "+
			"`socket` in the configuration for mode and group", c.socket)
	}
	return fmt.Errorf("cannot open the socket %s: %w", c.socket, err)
}

// reasonOf returns the reason of the status's ErrorInfo; empty when the sidecar sent none.
func reasonOf(answer *status.Status) string {
	for _, detail := range answer.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// codeName writes a code as the API's documents do, such as NOT_FOUND.
func codeName(code codes.Code) string {
	var name strings.Builder
	for i, letter := range code.String() {
		if i > 0 && 'A' <= letter && letter <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}
