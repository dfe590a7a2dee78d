package server

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/secret-sidecar/secret-sidecar/cache"
	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
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
		return nil, errInvalidRequest(field("requests", fmt.Sprintf("must hold 1 to %d requests, not %d", maxBatch, len(items))))
	}
	outcomes := make([]outcome, len(items))
	defer releaseAll(outcomes)
	reads := make(map[readKey][]int, len(items))
	running := s.current.Load()
	for i, item := range items {
		asked, err := s.admit(running, caller, methodBatchResolve, item)
		if err != nil {
			outcomes[i].err = err
			continue
		}
		outcomes[i].question = asked
		reads[readKeyOf(asked)] = append(reads[readKeyOf(asked)], i)
	}
	s.readAll(ctx, reads, outcomes)
	fitInto(maxBatchBytes, outcomes)
	lines := s.audit(ctx, caller, methodBatchResolve)
	for i, one := range outcomes {
		lines.note(items[i], one.question.connection, one.secret, one.err)
	}
	if err := lines.write(ctx); err != nil {
		return nil, err
	}
	return &secretsidecarv1.BatchResolveResponse{Results: results(outcomes)}, nil
}

// outcome is what became of one item.
type outcome struct {
	question question
	secret   *secretsidecarv1.ResolveResponse
	err      error
}

// releaseAll lets go of the connections that the admitted items hold.
func releaseAll(outcomes []outcome) {
	for _, one := range outcomes {
		if c := one.question.connection; c != nil {
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

func readKeyOf(asked question) readKey {
	return readKey{asked.connection.session, asked.reference.Path, asked.version}
}

// readAll fills in the outcomes: what is cached at once, the rest by reads side by side. Each read has outcomes of its
// own.
func (s *Server) readAll(ctx context.Context, reads map[readKey][]int, outcomes []outcome) {
	var group sync.WaitGroup
	defer group.Wait()
	for _, members := range reads {
		// The item that demands the freshest copy goes first.
		slices.SortStableFunc(members, func(a, b int) int {
			return compareLimits(outcomes[a].question.maxAge, outcomes[b].question.maxAge)
		})
		if !s.readCached(ctx, members, outcomes) {
			group.Go(func() { s.readInto(ctx, members, outcomes) })
		}
	}
}

// readCached resolves the items of one secret from a copy that is fresh enough for the first, and so for all; false is
// that there is none.
func (s *Server) readCached(ctx context.Context, members []int, outcomes []outcome) bool {
	found, ok, err := s.cache.GetCached(ctx, outcomes[members[0]].question.lookup())
	if !ok {
		return false
	}
	for _, i := range members {
		if outcomes[i].err = err; err == nil {
			outcomes[i].secret, outcomes[i].err = answer(outcomes[i].question.reference.Key, found)
		}
	}
	return true
}

// readInto resolves the items of one secret, the one that demands the freshest copy first; what Vault answers to it is
// fresh enough for all.
func (s *Server) readInto(ctx context.Context, members []int, outcomes []outcome) {
	defer s.recoverItems(members, outcomes)
	var found cache.Result[*vault.Secret]
	var err error
	for n, i := range members {
		asked := outcomes[i].question
		readHere := err == nil && found.Source == cache.SourceLoad
		if n == 0 || !readHere && !asked.ages.equal(outcomes[members[n-1]].question.ages) {
			found, err = s.read(ctx, asked)
		}
		if err != nil {
			outcomes[i].err = err
			continue
		}
		outcomes[i].secret, outcomes[i].err = answer(asked.reference.Key, found)
	}
}

// recoverItems turns a panic of a read into errors of its items: it runs on a goroutine of its own, where
// the interceptor cannot catch it.
func (s *Server) recoverItems(members []int, outcomes []outcome) {
	value := recover()
	if value == nil {
		return
	}
	err := s.recovered(methodBatchResolve, value)
	for _, i := range members {
		outcomes[i].secret, outcomes[i].err = nil, err
	}
}

// fitInto turns values that would make the answer too large for a client's default limit into errors of their items.
func fitInto(most int, outcomes []outcome) {
	size := 0
	for i, one := range outcomes {
		if one.err != nil {
			continue
		}
		if size += proto.Size(one.secret); size > most {
			size -= proto.Size(one.secret)
			outcomes[i].secret, outcomes[i].err = nil, errBatchTooLarge()
		}
	}
}

// results encodes the outcomes in order.
func results(outcomes []outcome) []*secretsidecarv1.BatchResolveResult {
	encoded := make([]*secretsidecarv1.BatchResolveResult, len(outcomes))
	for i, one := range outcomes {
		encoded[i] = result(one)
	}
	return encoded
}

func result(one outcome) *secretsidecarv1.BatchResolveResult {
	if one.err != nil {
		return &secretsidecarv1.BatchResolveResult{
			Outcome: &secretsidecarv1.BatchResolveResult_Error{Error: problemOf(one.err).resolveError()},
		}
	}
	return &secretsidecarv1.BatchResolveResult{Outcome: &secretsidecarv1.BatchResolveResult_Secret{Secret: one.secret}}
}
