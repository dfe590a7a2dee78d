package client

import (
	"context"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// Invalidation says what Invalidate drops. The zero value is everything.
type Invalidation struct {
	// Connection is the connection whose secrets are dropped; empty means all of them.
	Connection string
	// Path is a reference, whose secret is dropped in all versions, or a prefix that ends in "/".
	Path string
	// RenewLogin makes the connection log in to Vault again.
	RenewLogin bool
}

// Invalidate drops secrets from the sidecar's cache, and this client's kept answers. It returns how
// many the sidecar dropped. A call that begins after it has returned gets no older value. A stored
// reference may stand in Path. Of the options only Timeout means something. The error is an *Error.
func (c *Client) Invalidate(ctx context.Context, what Invalidation,
	options ...Option) (entries int, err error) {
	ctx, cancel := optionsOf(options).limit(ctx)
	defer cancel()
	l, failed := call{connection: what.Connection}.lookup(what.Path)
	if failed != nil {
		return 0, failed
	}
	request := &secretsidecarv1.InvalidateRequest{Connection: l.connection, Path: l.path,
		RenewLogin: what.RenewLogin}
	defer c.near.drop() // what was asked for in between may be older than the sidecar's drop
	failed = c.try(ctx, func() error {
		answer, err := c.api.Invalidate(ctx, request)
		entries = int(answer.GetEntries())
		return err
	})
	if failed != nil {
		return 0, failed
	}
	return entries, nil
}

// TestConnection tests one of the sidecar's connections, and a reference too unless that is "". The
// answer's Ok is false when a check failed; the error, an *Error, is for a test that could not be
// made. A stored reference may stand for both.
func (c *Client) TestConnection(ctx context.Context, connection, reference string,
	options ...Option) (*secretsidecarv1.TestConnectionResponse, error) {
	l, failed := call{connection: connection}.lookup(reference)
	if failed != nil {
		return nil, failed
	}
	return c.test(ctx, &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Connection{Connection: l.connection},
		Path:   l.path,
	}, options)
}

// TestSpec is TestConnection for a connection that the sidecar does not have.
func (c *Client) TestSpec(ctx context.Context, spec *secretsidecarv1.ConnectionSpec,
	reference string, options ...Option) (*secretsidecarv1.TestConnectionResponse, error) {
	return c.test(ctx, &secretsidecarv1.TestConnectionRequest{
		Target: &secretsidecarv1.TestConnectionRequest_Spec{Spec: spec}, Path: reference,
	}, options)
}

func (c *Client) test(ctx context.Context, request *secretsidecarv1.TestConnectionRequest,
	options []Option) (answer *secretsidecarv1.TestConnectionResponse, err error) {
	ctx, cancel := optionsOf(options).limit(ctx)
	defer cancel()
	if failed := c.try(ctx, func() error {
		answer, err = c.api.TestConnection(ctx, request)
		return err
	}); failed != nil {
		return nil, failed
	}
	return answer, nil
}

// Connections returns the sidecar's connections and their state. The error is an *Error.
func (c *Client) Connections(ctx context.Context,
	options ...Option) ([]*secretsidecarv1.ConnectionStatus, error) {
	ctx, cancel := optionsOf(options).limit(ctx)
	defer cancel()
	var answer *secretsidecarv1.ListConnectionsResponse
	failed := c.try(ctx, func() (err error) {
		answer, err = c.api.ListConnections(ctx, &secretsidecarv1.ListConnectionsRequest{})
		return err
	})
	if failed != nil {
		return nil, failed
	}
	return answer.GetConnections(), nil
}
