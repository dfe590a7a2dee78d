package server

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

const (
	// maxBatch is the most requests of one BatchResolve.
	maxBatch = 256
	// maxBatchBytes keeps an answer below the 4 MiB that gRPC clients accept by default, with room for the
	// errors of the items that do not fit.
	maxBatchBytes = 4<<20 - 256<<10
)

// BatchResolve implements the API. Keys of one secret share one read even when each demands a fresh one.
func (s *Server) BatchResolve(ctx context.Context, request *secretsidecarv1.BatchResolveRequest) (*secretsidecarv1.BatchResolveResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	items := request.GetRequests()
	if len(items) == 0 || len(items) > maxBatch {
		err := errInvalidRequest(field("requests", fmt.Sprintf("must hold 1 to %d requests, not %d", maxBatch, len(items))))
		s.countWhole(ctx, request, err)
		return nil, err
	}
	outcomes := make([]outcome, len(items))
	defer releaseAll(outcomes)
	s.admitAll(caller, items, outcomes)
	s.readAll(ctx, outcomes)
	fitInto(maxBatchBytes, outcomes)
	lines := s.audit(ctx, caller, methodBatchResolve)
	for i := range outcomes {
		lines.note(items[i], outcomes[i].question.connection, outcomes[i].secret, outcomes[i].err)
	}
	auditErr := lines.write(ctx)
	s.countAll(ctx, outcomes, auditErr)
	s.describeBatch(ctx, items)
	if auditErr != nil {
		return nil, auditErr
	}
	return &secretsidecarv1.BatchResolveResponse{Results: results(outcomes)}, nil
}

// countAll notes how the items ended; with auditErr, all of them in it. A caller who is refused several items is logged
// once.
func (s *Server) countAll(ctx context.Context, outcomes []outcome, auditErr error) {
	var refused error
	for i := range outcomes {
		one := &outcomes[i]
		if auditErr != nil {
			s.count(ctx, one.question.connection, nil, auditErr)
			continue
		}
		s.count(ctx, one.question.connection, one.secret, one.err)
		if s.refusals.note(methodBatchResolve, one.err, 1) {
			refused = one.err
		}
	}
	if refused != nil {
		s.tellOfRefusal(ctx, methodBatchResolve, refused)
	}
}

// outcome is what became of one item, with room for the messages that say so: those of a batch are one allocation.
type outcome struct {
	question question
	secret   *secretsidecarv1.ResolveResponse
	err      error

	// Items that share a read are a chain.
	follows bool // another one of the chain, which is not its first
	next    int  // the next one of the chain; 0 after the last

	resolved resolved
	chosen   secretsidecarv1.BatchResolveResult_Secret
	result   secretsidecarv1.BatchResolveResult
}

// releaseAll lets go of the connections that the items hold.
func releaseAll(outcomes []outcome) {
	for i := range outcomes {
		if c := outcomes[i].question.connection; c != nil {
			c.release()
		}
	}
}

// readKey is what items must have in common to share a read.
type readKey struct {
	session *session
	path    string
	version uint32
}

// admitAll fills in the questions of the items that are admitted, chained by the read that they share, and the errors
// of the others.
func (s *Server) admitAll(caller unixsocket.Peer, items []*secretsidecarv1.ResolveRequest, outcomes []outcome) {
	lasts := make(map[readKey]int, len(items))
	running := s.current.Load()
	for i, item := range items {
		one := &outcomes[i]
		if one.question, one.err = s.admit(running, caller, methodBatchResolve, item); one.err != nil {
			continue
		}
		key := readKey{one.question.connection.session, one.question.reference.Path, one.question.version}
		if last, ok := lasts[key]; ok {
			outcomes[last].next, one.follows = i, true
		}
		lasts[key] = i
	}
}

// chain yields the items that share a read with the first of them, and that one.
func chain(outcomes []outcome, first int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, more := first, true; more; i = outcomes[i].next {
			more = yield(i) && outcomes[i].next != 0
		}
	}
}

// readAll fills in the outcomes: what is cached at once, the rest by reads side by side. Each read has outcomes of its
// own.
func (s *Server) readAll(ctx context.Context, outcomes []outcome) {
	var group sync.WaitGroup
	defer group.Wait()
	for i := range outcomes {
		if one := &outcomes[i]; !one.follows && one.err == nil && !s.readCached(ctx, i, outcomes) {
			group.Go(func() { s.readInto(ctx, i, outcomes) })
		}
	}
}

// readCached resolves the items of one read from a copy that is fresh enough for all of them; false is that there is
// none.
func (s *Server) readCached(ctx context.Context, first int, outcomes []outcome) bool {
	found, ok, err := s.cache.GetCached(s.withCallers(ctx), strictest(outcomes, first).lookup())
	if !ok {
		return false
	}
	err = orRemembered(found.Source, err)
	for i := range chain(outcomes, first) {
		outcomes[i].settle(found, err)
	}
	return true
}

// strictest returns the question, of those that share a read, that demands the freshest copy.
func strictest(outcomes []outcome, first int) question {
	asked := outcomes[first].question
	for i := range chain(outcomes, first) {
		if compareLimits(outcomes[i].question.maxAge, asked.maxAge) < 0 {
			asked = outcomes[i].question
		}
	}
	return asked
}

// settle answers the item from what was found of its secret.
func (o *outcome) settle(found cache.Result[*vault.Secret], err error) {
	if o.err = err; err == nil {
		o.secret, o.err = o.resolved.fill(o.question.reference.Key, found)
	}
}

// readInto resolves the items of one secret by one read, for the item that demands the freshest copy. What Vault says to
// that counts for all of them. When Vault says nothing, each item gets the copy that its own bounds allow, or the error.
func (s *Server) readInto(ctx context.Context, first int, outcomes []outcome) {
	defer s.recoverItems(ctx, first, outcomes)
	asked := strictest(outcomes, first)
	asked.maxStale = new(time.Duration(0)) // an outage has to show here: the items may differ in what they get in one
	found, err := s.read(ctx, asked)
	isFinal := err == nil || isVaultsWord(err)
	for i := range chain(outcomes, first) {
		one := &outcomes[i]
		if isFinal {
			one.settle(found, err)
		} else {
			one.settle(s.readCopy(ctx, one.question, err))
		}
	}
}

// readCopy returns what is cached within the bounds of the question, after a read that has failed for this reason.
func (s *Server) readCopy(ctx context.Context, asked question, failure error) (cache.Result[*vault.Secret], error) {
	lookup := asked.lookup()
	lookup.Admit = func(cache.Key) error { return failure }
	found, err := s.cache.Get(ctx, lookup)
	return found, orRemembered(found.Source, err)
}

// recoverItems turns a panic of a read into errors of its items: it runs on a goroutine of its own, where
// the interceptor cannot catch it.
func (s *Server) recoverItems(ctx context.Context, first int, outcomes []outcome) {
	value := recover()
	if value == nil {
		return
	}
	err := s.recovered(ctx, methodBatchResolve, value)
	for i := range chain(outcomes, first) {
		outcomes[i].secret, outcomes[i].err = nil, err
	}
}

// maxResponseOverhead is more than a ResolveResponse takes beside its value: six fields of at most 12 bytes, three of
// them in messages of their own.
const maxResponseOverhead = 128

// fitInto turns values that would make the answer too large for a client's default limit into errors of their items.
func fitInto(most int, outcomes []outcome) {
	bound := 0
	for i := range outcomes {
		bound += len(outcomes[i].secret.GetValue()) + maxResponseOverhead
	}
	if bound <= most {
		return // nearly always: no need to look closer
	}
	size := 0
	for i := range outcomes {
		one := &outcomes[i]
		if one.err != nil {
			continue
		}
		if size += proto.Size(one.secret); size > most {
			size -= proto.Size(one.secret)
			one.secret, one.err = nil, errBatchTooLarge()
		}
	}
}

// results encodes the outcomes in order.
func results(outcomes []outcome) []*secretsidecarv1.BatchResolveResult {
	encoded := make([]*secretsidecarv1.BatchResolveResult, len(outcomes))
	for i := range outcomes {
		encoded[i] = outcomes[i].encode()
	}
	return encoded
}

func (o *outcome) encode() *secretsidecarv1.BatchResolveResult {
	if o.err != nil {
		o.result.Outcome = &secretsidecarv1.BatchResolveResult_Error{Error: problemOf(o.err).resolveError()}
		return &o.result
	}
	o.chosen.Secret = o.secret
	o.result.Outcome = &o.chosen
	return &o.result
}
