package server

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
	"github.com/secret-sidecar/secret-sidecar/vault"
)

// maxBatch is the most requests of one BatchResolve.
const maxBatch = 256

// BatchResolve implements the API. Keys of one secret share one read even when each demands a fresh
// one.
func (s *Server) BatchResolve(
	ctx context.Context, request *secretsidecarv1.BatchResolveRequest,
) (*secretsidecarv1.BatchResolveResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	items := request.GetRequests()
	if len(items) == 0 || len(items) > maxBatch {
		refused := errInvalidRequest(field("requests",
			fmt.Sprintf("must hold 1 to %d requests, not %d", maxBatch, len(items))))
		s.recordUnhandled(ctx, request, refused)
		return nil, refused
	}
	outcomes := make([]outcome, len(items))
	reads := make([]batchItem, len(items))
	defer releaseAll(outcomes)
	s.admitAll(caller, items, outcomes, reads)
	room := &batchRoom{answers: s.answers}
	defer room.release()
	s.readAll(ctx, reads, room)
	if unwritten := s.record(ctx, caller, methodBatchResolve, outcomes); unwritten != nil {
		return nil, unwritten
	}
	return &secretsidecarv1.BatchResolveResponse{Results: results(reads)}, nil
}

// batchItem is one item of a batch with its outcome. It has room for the messages of the answer:
// those of a whole batch are one allocation.
type batchItem struct {
	*outcome
	lookup lookup

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
		if c := outcomes[i].connection; c != nil {
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

// admitAll fills in the questions of the items that are admitted, chained by the read that they
// share, and the errors of the others.
func (s *Server) admitAll(
	caller unixsocket.Peer, requests []*secretsidecarv1.ResolveRequest, outcomes []outcome, items []batchItem,
) {
	lasts := make(map[readKey]int, len(requests))
	running := s.current.Load()
	for i, request := range requests {
		one := &items[i]
		one.outcome = &outcomes[i]
		asked, err := s.admit(running, caller, methodBatchResolve, request)
		one.lookup, one.request, one.connection = asked, request, asked.connection
		if err != nil {
			one.fail(err)
			continue
		}
		key := readKey{one.lookup.connection.session, one.lookup.reference.Path, one.lookup.version}
		if last, ok := lasts[key]; ok {
			items[last].next, one.follows = i, true
		}
		lasts[key] = i
	}
}

// chain yields the items that share a read with the first of them, and that one.
func chain(items []batchItem, first int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, more := first, true; more; i = items[i].next {
			more = yield(i) && items[i].next != 0
		}
	}
}

// readAll fills in the outcomes: what is cached at once, the rest by reads side by side. Each read
// has items of its own.
func (s *Server) readAll(ctx context.Context, items []batchItem, room *batchRoom) {
	var reads []int // the first items of those that need one
	for i := range items {
		if one := &items[i]; !one.follows && one.problem == nil && !s.readCached(ctx, i, items, room) {
			reads = append(reads, i)
		}
	}
	readers := &batchReaders{reads: reads, read: func(first int) { s.readInto(ctx, first, items, room) }, room: room}
	readers.run()
}

// readCached resolves the items of one read from a copy that is fresh enough for all of them; false
// is that there is none.
func (s *Server) readCached(ctx context.Context, first int, items []batchItem, room *batchRoom) bool {
	found, ok, err := s.cache.GetCached(s.withCallers(ctx), strictest(items, first).cacheLookup())
	if !ok {
		return false
	}
	for i := range chain(items, first) {
		items[i].settle(found, err)
		room.fit(items[i].outcome)
	}
	return true
}

// strictest returns the lookup, of those that share a read, that demands the freshest copy.
func strictest(items []batchItem, first int) lookup {
	asked := items[first].lookup
	for i := range chain(items, first) {
		if compareLimits(items[i].lookup.maxAge, asked.maxAge) < 0 {
			asked = items[i].lookup
		}
	}
	return asked
}

// settle makes what was found of the item's secret its outcome.
func (one *batchItem) settle(found cache.Result[*vault.Secret], err error) {
	one.outcome.settle(one.lookup.reference.Key, found, err, &one.resolved)
}

// readInto resolves the items of one secret by one read, for the item that demands the freshest
// copy. What Vault says to that counts for all of them. When Vault says nothing, each item gets the
// copy that its own bounds allow, or the error.
func (s *Server) readInto(ctx context.Context, first int, items []batchItem, room *batchRoom) {
	defer s.recoverItems(ctx, first, items)
	if room.isSpent() {
		for i := range chain(items, first) {
			items[i].fail(errBatchTooLarge())
		}
		return
	}
	asked := strictest(items, first)
	asked.maxStale = new(time.Duration(0)) // an outage has to show here: the items may differ in what they get in one
	found, err := s.read(ctx, asked)
	isFinal := err == nil || isVaultsWord(err)
	for i := range chain(items, first) {
		one := &items[i]
		if isFinal {
			one.settle(found, err)
		} else {
			one.settle(s.readCopy(ctx, one.lookup, err))
		}
		room.fit(one.outcome)
	}
}

// recoverItems turns a panic of a read into errors of its items: it runs on a goroutine of its own,
// where the interceptor cannot catch it.
func (s *Server) recoverItems(ctx context.Context, first int, items []batchItem) {
	value := recover()
	if value == nil {
		return
	}
	err := s.recovered(ctx, methodBatchResolve, value)
	for i := range chain(items, first) {
		items[i].fail(err)
	}
}

// results encodes the outcomes in order.
func results(items []batchItem) []*secretsidecarv1.BatchResolveResult {
	encoded := make([]*secretsidecarv1.BatchResolveResult, len(items))
	for i := range items {
		encoded[i] = items[i].encode()
	}
	return encoded
}

func (one *batchItem) encode() *secretsidecarv1.BatchResolveResult {
	if one.problem != nil {
		one.result.Outcome = &secretsidecarv1.BatchResolveResult_Error{Error: one.problem.resolveError()}
		return &one.result
	}
	one.chosen.Secret = one.secret
	one.result.Outcome = &one.chosen
	return &one.result
}
