package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// outcome is what became of one secret that was asked for: the secret, or the problem.
type outcome struct {
	request    *secretsidecarv1.ResolveRequest
	connection *connection // the one that it counts for; nil where the request found none
	secret     *secretsidecarv1.ResolveResponse
	problem    *problem // nil: there is none
	remembered bool     // the problem is an absence that the cache remembers
}

// fail makes err the outcome.
func (o *outcome) fail(err error) { o.secret, o.problem, o.remembered = nil, problemOf(err), false }

// settle makes what the cache found, or failed with, the outcome. A secret is answered in into.
func (o *outcome) settle(key string, found cache.Result[*vault.Secret], err error, into *resolved) {
	if err != nil {
		o.fail(err)
		o.remembered = found.Source == cache.SourceCache && classify(err) == cache.ClassAbsent
		return
	}
	o.secret, o.problem = into.fill(key, found)
}

// record tells the audit log, the counters, the log, the span and the register of leaks what became
// of the secrets of one request. When it returns a problem, that is the outcome of them all, and
// nothing may be answered: the audit log is required and cannot be written.
func (s *Server) record(
	ctx context.Context, caller unixsocket.Peer, method string, outcomes []outcome,
) *problem {
	if ctx.Err() != nil {
		tellDeadlines(ctx, outcomes)
	}
	unwritten := s.audit(ctx, caller, method, outcomes)
	for i := range outcomes {
		if unwritten != nil {
			outcomes[i].fail(unwritten)
		}
		s.count(ctx, &outcomes[i])
		s.remember(&outcomes[i])
	}
	switch method {
	case methodResolve:
		s.describe(ctx, &outcomes[0]) // finishUnary notes that its caller was refused
	case methodWatch:
		s.noteRefusal(ctx, method, outcomes[0].problem, 1) // its span is of all its states
	default:
		s.noteRefusedItems(ctx, outcomes)
		s.describeBatch(ctx, len(outcomes), func(i int) *secretsidecarv1.ResolveRequest {
			return outcomes[i].request
		})
	}
	return unwritten
}

// deadlineMargin is how much earlier than here a deadline may pass at the client, whose
// cancellation then arrives first.
const deadlineMargin = 100 * time.Millisecond

// tellDeadlines tells the requests whose time was up from those that the client gave up.
func tellDeadlines(ctx context.Context, outcomes []outcome) {
	deadline, ok := ctx.Deadline()
	if !ok || time.Until(deadline) > deadlineMargin {
		return
	}
	for i := range outcomes {
		if p := outcomes[i].problem; p != nil && p.reason == reasonCancelled {
			outcomes[i].fail(context.DeadlineExceeded)
		}
	}
}

// refuse tells of a request that is refused before anybody looked into it, and that asked for so many
// secrets.
func (s *Server) refuse(ctx context.Context, method string, request any, refused *problem, secrets int) {
	s.noteRefusal(ctx, method, refused, secrets)
	if !s.recordUnhandled(ctx, request, refused) {
		s.auditRefusal(ctx, method, refused, 1)
	}
}

// recordUnhandled counts the secrets of a request that failed as a whole, and describes it in its
// span. It reports false for a request that asks for no secrets, of which it tells nobody.
func (s *Server) recordUnhandled(ctx context.Context, request any, p *problem) (asksSecrets bool) {
	switch request := request.(type) {
	case *secretsidecarv1.ResolveRequest:
		s.auditRefusal(ctx, methodResolve, p, 1)
		one := outcome{request: request, problem: p}
		s.count(ctx, &one)
		s.describe(ctx, &one)
	case *secretsidecarv1.BatchResolveRequest:
		s.recordUnhandledItems(ctx, methodBatchResolve, request.GetRequests(), p)
	case *secretsidecarv1.WatchRequest:
		s.recordUnhandledItems(ctx, methodWatch, request.GetRequests(), p)
	default:
		return false
	}
	return true
}

func (s *Server) recordUnhandledItems(
	ctx context.Context, method string, items []*secretsidecarv1.ResolveRequest, p *problem,
) {
	s.auditRefusal(ctx, method, p, len(items))
	for _, item := range items {
		s.count(ctx, &outcome{request: item, problem: p})
	}
	s.describeBatch(ctx, len(items), func(i int) *secretsidecarv1.ResolveRequest { return items[i] })
}

// count counts one outcome, and the age of its secret.
func (s *Server) count(ctx context.Context, o *outcome) {
	is := kindOf(o)
	if o.connection == nil {
		s.unmatched.resolved[is].Add(1)
		return
	}
	o.connection.counters.resolved[is].Add(1)
	if o.connection.recorder != nil && o.problem == nil {
		o.connection.recorder.age(ctx, is, o.secret.GetFetchedAt().AsTime())
	}
}

// refusalReasons are the reasons that have to do with who asks, or how often.
var refusalReasons = []string{
	reasonCallerNotAllowed, "PROJECT_REQUIRED", "PROJECT_NOT_ALLOWED", reasonRateLimited,
}

// refusal is what refused callers are counted by.
type refusal struct{ method, reason string }

// refusals counts refused callers. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	count map[refusal]uint64 // guarded by mu; every method of the API and reason from the start
}

func newRefusals() *refusals {
	count := map[refusal]uint64{}
	for _, method := range apiMethods {
		for _, reason := range refusalReasons {
			count[refusal{method, reason}] = 0
		}
	}
	return &refusals{count: count}
}

// add counts so many secrets or calls that were answered with p, and returns true, if p refuses the
// caller; p may be nil.
func (r *refusals) add(method string, p *problem, times int) bool {
	if p == nil || !slices.Contains(refusalReasons, p.reason) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if key := (refusal{method, p.reason}); slices.Contains(apiMethods, method) {
		r.count[key] += uint64(times) // #nosec G115 -- a length
	}
	return true
}

func (r *refusals) all() map[refusal]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.count)
}

// noteRefusal counts p if it refuses a caller, and logs who that is.
func (s *Server) noteRefusal(ctx context.Context, method string, p *problem, times int) {
	if s.refusals.add(method, p, times) {
		s.logRefusal(ctx, method, p)
	}
}

// noteRefusedItems counts the refused items of a batch. The log tells of them once.
func (s *Server) noteRefusedItems(ctx context.Context, outcomes []outcome) {
	var last *problem
	for i := range outcomes {
		if s.refusals.add(methodBatchResolve, outcomes[i].problem, 1) {
			last = outcomes[i].problem
		}
	}
	if last != nil {
		s.logRefusal(ctx, methodBatchResolve, last)
	}
}

// logRefusal logs who was refused. Connection and project stay out of it: they are the caller's own
// words. The two events differ so that a flood of one does not use up the other's limit on repeats.
func (s *Server) logRefusal(ctx context.Context, method string, p *problem) {
	caller, err := callerOf(ctx)
	if err != nil {
		return
	}
	who := []any{
		"method", method, "reason", p.reason, "uid", caller.UID, "gid", caller.GID, "pid", caller.PID,
	}
	if p.reason == reasonRateLimited {
		s.log.WarnContext(ctx, "a caller asks for more than its limit", who...)
		return
	}
	s.log.WarnContext(ctx, "a caller is refused", who...)
}

// recordedSpan returns the request's span; nil when there is none that is recorded.
func (s *Server) recordedSpan(ctx context.Context) trace.Span {
	if s.tracer == nil {
		return nil
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return span
	}
	return nil
}

// describe says in the span of a Resolve what became of it, and names the path if that is wanted.
func (s *Server) describe(ctx context.Context, o *outcome) {
	span := s.recordedSpan(ctx)
	if span == nil {
		return
	}
	attributes := []attribute.KeyValue{attribute.String(attrOutcome, kindOf(o).outcome())}
	if o.connection != nil {
		attributes = append(attributes, named(o.connection.Name))
	}
	if o.problem != nil {
		attributes = append(attributes, attribute.String(attrErrorType, o.problem.reason))
	}
	if s.tracePaths {
		attributes = append(attributes, attribute.String("path", tracedPath(o.request)))
	}
	span.SetAttributes(attributes...)
}

// describeBatch says in the span of a BatchResolve what was asked: so many items.
func (s *Server) describeBatch(
	ctx context.Context, items int, item func(i int) *secretsidecarv1.ResolveRequest,
) {
	span := s.recordedSpan(ctx)
	if span == nil {
		return
	}
	span.SetAttributes(attribute.Int("requests", items))
	if !s.tracePaths {
		return
	}
	paths := make([]string, items)
	for i := range paths {
		paths[i] = tracedPath(item(i))
	}
	span.SetAttributes(attribute.StringSlice("paths", paths))
}

// tracedPath is the path for a span. It is empty where a request holds none that is valid: what it
// holds instead may be long, and may be anything.
func tracedPath(request *secretsidecarv1.ResolveRequest) string {
	if _, err := vault.ParseReference(request.GetPath(), request.GetKey()); err != nil {
		return ""
	}
	return request.GetPath()
}
