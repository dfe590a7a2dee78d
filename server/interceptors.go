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
	"google.golang.org/protobuf/proto"
)

// finishUnary logs at debug level what became of a request of the API. Health checks pass
// untouched.
func (s *Server) finishUnary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if info.Server != any(s) {
		return handler(ctx, request)
	}
	began, method := time.Now(), path.Base(info.FullMethod)
	sent, failed := s.handle(ctx, request, method, handler)
	s.logRequest(ctx, method, began, failed)
	if failed != nil {
		return nil, failed
	}
	return sent, nil
}

// handle returns the handler's answer, encoded, or, translated once for all who tell of it, why
// there is none. A panic is a problem too. The request counts for its caller's limits until its
// answer has left.
func (s *Server) handle(
	ctx context.Context, request any, method string, handler grpc.UnaryHandler,
) (sent *answer, failed *problem) {
	leave := func() {}
	defer func() {
		if value := recover(); value != nil {
			sent, failed = nil, s.recovered(ctx, method, value)
			leave()
			s.recordUnhandled(ctx, request, failed)
		}
	}()
	leaveCaller, failed := s.enterJudged(ctx, request, method)
	if failed != nil {
		s.refuse(ctx, method, request, failed, secretsAskedFor(request))
		return nil, failed
	}
	leave = leaveCaller
	message, err := handler(ctx, request)
	if err == nil {
		sent, failed = s.send(ctx, method, message, leave)
	} else {
		failed = problemOf(err)
		s.noteRefusal(ctx, method, failed, 1)
	}
	if failed != nil {
		leave()
	}
	return sent, failed
}

// send hands an answer over to gRPC, if too much is not unread already. leave is called when it has
// left.
func (s *Server) send(ctx context.Context, method string, message any, leave func()) (*answer, *problem) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, errInternal(nil) // no method answers such a thing
	}
	sent, refused := s.answers.take(ctx, m, leave)
	if refused == nil {
		return sent, nil
	}
	if caller, err := callerOf(ctx); err == nil {
		s.log.WarnContext(ctx, "a client does not read its answers", "method", method, "reason", refused.reason,
			"uid", caller.UID, "pid", caller.PID)
	}
	s.auditRefusal(ctx, method, refused, 1)
	return nil, refused
}

// enterJudged refuses a caller that may not call the method at all, before anything is made of its
// request. It counts all others in. When it refuses none, leave must follow.
func (s *Server) enterJudged(
	ctx context.Context, request any, method string,
) (leave func(), refused *problem) {
	if rules := s.current.Load().callers; rules != nil {
		caller, err := callerOf(ctx)
		if err != nil {
			return nil, problemOf(err)
		}
		if !mayCall(rules, caller, method) {
			return nil, errCallerNotAllowed(caller, access{method: method})
		}
	}
	return s.enterMetered(ctx, request)
}

// enterMetered counts a request in, within the limits of its caller. When it refuses none, leave
// must follow.
func (s *Server) enterMetered(ctx context.Context, request any) (leave func(), refused *problem) {
	limits := s.current.Load().limits
	if limits == (CallerLimits{}) {
		return func() {}, nil
	}
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, problemOf(err)
	}
	if refused := s.meter.enter(caller, limits, secretsAskedFor(request)); refused != nil {
		return nil, refused
	}
	return func() { s.meter.leave(caller) }, nil
}

// recovered reports a panic by its type and place only: its value could hold a secret.
func (s *Server) recovered(ctx context.Context, method string, value any) *problem {
	s.log.ErrorContext(ctx, "a request panicked: please report this", "method", method,
		"panic_type", fmt.Sprintf("%T", value), "stack", string(debug.Stack()))
	return errInternal(nil)
}

func (s *Server) logRequest(ctx context.Context, method string, began time.Time, failed *problem) {
	if !s.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attributes := []any{"method", method, "took", time.Since(began)}
	if caller, err := callerOf(ctx); err == nil {
		attributes = append(attributes, "uid", caller.UID, "pid", caller.PID)
	}
	if failed != nil {
		attributes = append(attributes, "reason", failed.reason) // its message may quote the reference
	}
	s.log.DebugContext(ctx, "request", attributes...)
}

// checkReflection refuses the reflection services when they are turned off, as if they were not
// there.
func (s *Server) checkReflection(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if strings.HasPrefix(info.FullMethod, "/grpc.reflection.") && s.current.Load().noReflection {
		return status.Error(codes.Unimplemented, "reflection is turned off in the sidecar's configuration")
	}
	return handler(srv, stream)
}

// endWith ends the open health watches when parent is done: gRPC's graceful stop waits for them
// otherwise.
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
