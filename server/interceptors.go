package server

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// finishUnary turns a handler's error into the contract's, recovers its panic, and logs the outcome at debug
// level. Health checks pass untouched.
func (s *Server) finishUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	if info.Server != any(s) {
		return handler(ctx, request)
	}
	began := time.Now()
	defer func() {
		if value := recover(); value != nil {
			answer, err = nil, s.recovered(ctx, info.FullMethod, value)
			s.countWhole(ctx, request, err)
		}
		s.logRequest(ctx, info.FullMethod, began, err)
	}()
	leave, err := s.enterMetered(ctx, request)
	if err != nil {
		s.noteRefusal(ctx, path.Base(info.FullMethod), err, secretsAskedFor(request))
		s.countWhole(ctx, request, err)
		return nil, publicError(err)
	}
	defer leave()
	answer, err = handler(ctx, request)
	if err != nil {
		s.noteRefusal(ctx, path.Base(info.FullMethod), err, 1)
		return nil, publicError(err)
	}
	return answer, nil
}

// enterMetered counts a request in, within the limits of its caller. When the error is nil, leave must follow.
func (s *Server) enterMetered(ctx context.Context, request any) (leave func(), err error) {
	limits := s.current.Load().limits
	if limits == (CallerLimits{}) {
		return func() {}, nil
	}
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.meter.enter(caller, limits, secretsAskedFor(request)); err != nil {
		return nil, err
	}
	return func() { s.meter.leave(caller) }, nil
}

// publicError is the error that grpc sends.
func publicError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err // the contract's already, or grpc's own
	}
	return problemOf(err)
}

// recovered reports a panic by its type and place only: its value could hold a secret.
func (s *Server) recovered(ctx context.Context, method string, value any) error {
	s.log.ErrorContext(ctx, "a request panicked: please report this", "method", path.Base(method),
		"panic_type", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
	return errInternal(nil)
}

func (s *Server) logRequest(ctx context.Context, method string, began time.Time, err error) {
	if !s.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attributes := []any{"method", path.Base(method), "took", time.Since(began)}
	if caller, callerErr := callerOf(ctx); callerErr == nil {
		attributes = append(attributes, "uid", caller.UID, "pid", caller.PID)
	}
	if err != nil {
		attributes = append(attributes, "reason", problemOf(err).reason) // its message may quote the reference
	}
	s.log.DebugContext(ctx, "request", attributes...)
}

// checkReflection refuses the reflection services when they are turned off, as if they were not there.
func (s *Server) checkReflection(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if strings.HasPrefix(info.FullMethod, "/grpc.reflection.") && s.current.Load().noReflection {
		return status.Error(codes.Unimplemented, "reflection is turned off in the sidecar's configuration")
	}
	return handler(srv, stream)
}

// endWith ends the open health watches when parent is done: gRPC's graceful stop waits for them otherwise.
func endWith(parent context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(parent, cancel)()
		return handler(srv, &endableStream{stream, ctx})
	}
}

// endableStream is a stream whose context the server can end.
type endableStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream's own way to hand a context to a handler
}

// Context implements grpc.ServerStream.
func (s *endableStream) Context() context.Context { return s.ctx }
