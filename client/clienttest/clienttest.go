// Package clienttest is a sidecar for the tests of a worker: in the test's own process, without a
// socket and without a Vault. A test sets secrets and failures, gives the worker the client, and
// asks how often each reference was read. The client is the real one, so retries and errors are
// those of production.
package clienttest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/secret-sidecar/secret-sidecar/client"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// Sidecar is a sidecar that holds its secrets itself. Its methods are safe for concurrent use.
type Sidecar struct {
	secretsidecarv1.UnimplementedSecretServiceServer

	mu      sync.Mutex
	secrets map[string]secret // by reference; guarded by mu
	asked   map[string]int    // how often each reference was asked for; guarded by mu
}

type secret struct {
	value   string
	version uint32
	reason  string // of the failure; empty for a value
	code    codes.Code
	again   time.Duration // after which the same request may succeed; 0 for never
	wrote   time.Time
}

// New returns a client of a sidecar that holds these secrets, by reference. A request may name any
// connection and project. Both end with the test.
func New(t testing.TB, secrets map[string]string,
	options ...client.OpenOption) (*client.Client, *Sidecar) {
	t.Helper()
	s := &Sidecar{secrets: map[string]secret{}, asked: map[string]int{}}
	for reference, value := range secrets {
		s.Set(reference, value)
	}
	conn := s.serve(t)
	c, err := client.Open(t.Context(), append(options, client.Conn(conn))...)
	if err != nil {
		t.Fatalf("open a client of the test's sidecar: %v", err)
	}
	return c, s
}

// serve starts the server on a pipe in memory, and returns a connection to it.
func (s *Sidecar) serve(t testing.TB) *grpc.ClientConn {
	t.Helper()
	pipe := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	secretsidecarv1.RegisterSecretServiceServer(server, s)
	served := make(chan struct{})
	go func() { // ends with Stop
		defer close(served)
		_ = server.Serve(pipe)
	}()
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return pipe.DialContext(ctx)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("connect to the test's sidecar: %v", err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return conn
}

// Set writes a secret, as a new version.
func (s *Sidecar) Set(reference, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[reference] = secret{value: value, version: s.secrets[reference].version + 1,
		wrote: time.Now()}
}

// Fail makes a reference fail with an error of docs/errors.md until it is Set again, for example
// Fail("secret/data/app/key", codes.PermissionDenied, "VAULT_PERMISSION_DENIED").
func (s *Sidecar) Fail(reference string, code codes.Code, reason string) {
	s.FailFor(reference, code, reason, 0)
}

// FailFor is Fail with an error that says that the same request may succeed after some time, for
// example FailFor("secret/data/app/key", codes.Unavailable, "VAULT_UNREACHABLE", time.Second).
func (s *Sidecar) FailFor(reference string, code codes.Code, reason string, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[reference] = secret{version: s.secrets[reference].version, code: code, reason: reason,
		again: again}
}

// Asked returns how often a reference was asked for.
func (s *Sidecar) Asked(reference string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[reference]
}

// Resolve implements the service.
func (s *Sidecar) Resolve(_ context.Context,
	request *secretsidecarv1.ResolveRequest) (*secretsidecarv1.ResolveResponse, error) {
	answer, failed := s.resolve(request)
	if failed == nil {
		return answer, nil
	}
	plain := status.New(codes.Code(uint32(failed.GetCode())), failed.GetMessage()) // #nosec G115 -- a google.rpc.Code
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: "secretsidecar",
		Reason: failed.GetReason()}}
	if delay := failed.GetRetryDelay(); delay != nil {
		details = append(details, &errdetails.RetryInfo{RetryDelay: delay})
	}
	detailed, err := plain.WithDetails(details...)
	if err != nil {
		return nil, plain.Err()
	}
	return nil, detailed.Err()
}

// BatchResolve implements the service.
func (s *Sidecar) BatchResolve(_ context.Context,
	request *secretsidecarv1.BatchResolveRequest) (*secretsidecarv1.BatchResolveResponse, error) {
	if n := len(request.GetRequests()); n == 0 || n > 256 {
		return nil, status.Errorf(codes.InvalidArgument, "a batch has 1 to 256 requests, not %d", n)
	}
	answer := &secretsidecarv1.BatchResolveResponse{}
	for _, one := range request.GetRequests() {
		result := &secretsidecarv1.BatchResolveResult{}
		if value, failed := s.resolve(one); failed != nil {
			result.Outcome = &secretsidecarv1.BatchResolveResult_Error{Error: failed}
		} else {
			result.Outcome = &secretsidecarv1.BatchResolveResult_Secret{Secret: value}
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

// Invalidate implements the service. The test's sidecar has no cache.
func (s *Sidecar) Invalidate(context.Context,
	*secretsidecarv1.InvalidateRequest) (*secretsidecarv1.InvalidateResponse, error) {
	return &secretsidecarv1.InvalidateResponse{}, nil
}

func (s *Sidecar) resolve(
	request *secretsidecarv1.ResolveRequest) (*secretsidecarv1.ResolveResponse,
	*secretsidecarv1.ResolveError) {
	reference := request.GetPath()
	if key := request.GetKey(); key != "" {
		reference += "/" + key
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[reference]++
	one, known := s.secrets[reference]
	switch {
	case !known:
		return nil, failure(codes.NotFound, "SECRET_NOT_FOUND",
			fmt.Sprintf("the test has set no %s", strings.ToValidUTF8(reference, "?")))
	case one.reason != "":
		failed := failure(one.code, one.reason, "the test has made it fail")
		if one.again > 0 {
			failed.RetryDelay = durationpb.New(one.again)
		}
		return nil, failed
	}
	now := time.Now()
	return &secretsidecarv1.ResolveResponse{
		Value: one.value, ValueType: secretsidecarv1.ValueType_VALUE_TYPE_STRING,
		Version:          one.version,
		VersionCreatedAt: timestamppb.New(one.wrote), FetchedAt: timestamppb.New(now),
		ExpiresAt: timestamppb.New(now.Add(time.Hour)), Source: secretsidecarv1.Source_SOURCE_VAULT,
	}, nil
}

func failure(code codes.Code, reason, message string) *secretsidecarv1.ResolveError {
	return &secretsidecarv1.ResolveError{Code: int32(code), Reason: reason, Message: message} // #nosec G115 -- 17 codes
}
