package server

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/admission"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

const (
	// unlistedStreams bounds the requests in progress on a connection of a caller that no rule lists.
	unlistedStreams = 8
	// unlistedRequestBytes is more than a health check takes.
	unlistedRequestBytes = 1 << 10
	// unlistedBuffer is the size of the buffers of such a connection.
	unlistedBuffer = 4 << 10
	// unlistedIdleTimeout is when such a connection is closed that asks nothing.
	unlistedIdleTimeout = 30 * time.Second
	// refusedDeadline is the longest deadline with which a request over the limit of streams is
	// answered. gRPC keeps the timer of a request that its tap has refused, until the deadline.
	refusedDeadline = 30 * time.Second
	// excessRetryAfter is when a caller over its limit of connections or streams may try again.
	excessRetryAfter = time.Second
)

// newAdmission makes what bounds the connections and streams of each user, by the rules in force.
func newAdmission(s *Server, limits admission.Limits) *admission.Admission {
	return admission.New(admission.Config{
		Limits: limits,
		Listed: func(peer unixsocket.Peer) bool { return isListed(s.current.Load().callers, peer) },
		OwnUID: uint32(os.Geteuid()), // #nosec G115 -- a uid
	})
}

// newUnlistedServer makes the server for connections whose caller no rule lists, or that are over a
// limit. It reads no request but a health check, so that whatever they send costs next to nothing.
func (s *Server) newUnlistedServer(streams context.Context) *grpc.Server {
	g := grpc.NewServer(
		grpc.Creds(unixsocket.Credentials()),
		grpc.MaxRecvMsgSize(unlistedRequestBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(unlistedStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ReadBufferSize(unlistedBuffer),
		grpc.WriteBufferSize(unlistedBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: min(s.idleTimeout, unlistedIdleTimeout)}),
		grpc.KeepaliveEnforcementPolicy(pingsAllowed),
		grpc.UnaryInterceptor(s.refuseExcess),
		grpc.ChainStreamInterceptor(s.refuseExcessStream, endWith(streams)),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			return s.refuseUnlisted(stream.Context())
		}),
	)
	healthpb.RegisterHealthServer(g, s.health)
	return g
}

// refuseExcess refuses a health check over a connection that is over its user's limit.
func (s *Server) refuseExcess(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if refused := s.excess(ctx, info.FullMethod); refused != nil {
		return nil, refused
	}
	return handler(ctx, request)
}

// refuseExcessStream refuses everything else.
func (s *Server) refuseExcessStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if refused := s.excess(stream.Context(), info.FullMethod); refused != nil {
		return refused
	}
	return handler(srv, stream)
}

// refuseUnlisted answers whatever is no health check. The request is not read.
func (s *Server) refuseUnlisted(ctx context.Context) error {
	caller, err := callerOf(ctx)
	if err != nil {
		return err
	}
	full, _ := grpc.Method(ctx)
	method := methodOf(full)
	refused := errCallerNotAllowed(caller, access{method: method})
	s.refuseUnread(ctx, method, refused)
	return refused
}

// refuseUnread tells of a request that is refused without a look into it.
func (s *Server) refuseUnread(ctx context.Context, method string, refused *problem) {
	s.refuse(ctx, method, unread(method), refused, 1)
}

// unread stands for a request of the method that was not read.
func unread(method string) any {
	switch method {
	case methodResolve:
		return &secretsidecarv1.ResolveRequest{}
	case methodBatchResolve:
		return &secretsidecarv1.BatchResolveRequest{Requests: []*secretsidecarv1.ResolveRequest{{}}}
	case methodWatch:
		return &secretsidecarv1.WatchRequest{Requests: []*secretsidecarv1.ResolveRequest{{}}}
	}
	return nil
}

// anotherMethod stands for every method that is not of the API: its name is the caller's own word.
const anotherMethod = "another service"

// methodOf returns the API's method that gRPC's full name is of.
func methodOf(full string) string {
	service, method := path.Split(full)
	if strings.Trim(service, "/") != healthAPI || !slices.Contains(apiMethods, method) {
		return anotherMethod
	}
	return method
}

// excess returns and notes RATE_LIMITED where the connection is over its user's limit.
func (s *Server) excess(ctx context.Context, full string) error {
	conn, ok := unixsocket.ConnOf(ctx).(*admission.Conn)
	if !ok || conn.Standing() != admission.Excess {
		return nil
	}
	caller, _ := unixsocket.PeerOf(ctx)
	refused := errRateLimited(fmt.Sprintf("uid %d has too many connections to the socket: share one, and close those that are not needed", caller.UID),
		excessRetryAfter)
	s.refuseUnread(ctx, methodOf(full), refused)
	return refused
}

// admitStream refuses a stream of a user that has too many, before anything is read of it.
func (s *Server) admitStream(ctx context.Context, info *tap.Info) (context.Context, error) {
	conn, ok := unixsocket.ConnOf(ctx).(*admission.Conn)
	if !ok || conn.AdmitStream(ctx) {
		return ctx, nil
	}
	refused := errTooManyStreams(ctx)
	s.refuseUnread(ctx, methodOf(info.FullMethodName), refused)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) > refusedDeadline {
		_ = conn.Close()
	}
	return ctx, refused
}

// admitLong refuses a stream that may last for ever, a health watch for example, where its user or
// its connection has too many of them.
func (s *Server) admitLong(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	conn, ok := unixsocket.ConnOf(stream.Context()).(*admission.Conn)
	if !ok {
		return handler(srv, stream)
	}
	leave, ok := conn.EnterLong()
	if !ok {
		refused := errTooManyStreams(stream.Context())
		s.refuseUnread(stream.Context(), methodOf(info.FullMethod), refused)
		return refused
	}
	defer leave()
	return handler(srv, stream)
}

func errTooManyStreams(ctx context.Context) *problem {
	caller, _ := unixsocket.PeerOf(ctx)
	return errRateLimited(fmt.Sprintf("uid %d has too many requests or watches in progress: wait for answers, and end watches that are not needed", caller.UID),
		excessRetryAfter)
}
