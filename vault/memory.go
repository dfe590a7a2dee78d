package vault

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"
)

const (
	// smallAnswer is the size up to which an answer is read without asking for memory, in bytes.
	// Few secrets are larger.
	smallAnswer = 32 << 10
	// decodedCopies is how often a large answer is in memory while it is decoded: as it came, cut
	// into its fields, and as the texts of the secret.
	decodedCopies = 3
	// LargestRead is what the largest answer takes while it is read and decoded.
	LargestRead = decodedCopies * MaxAnswerBytes
)

// AnswerMemory bounds the memory of large answers that are being read and decoded. Clients that
// share one wait for each other, in the order in which the answers come. One client has LargestRead
// at most, so that a Vault whose answers hang leaves memory to others. It is safe for concurrent
// use.
type AnswerMemory struct{ free *semaphore.Weighted }

// NewAnswerMemory returns memory of so many bytes; less than LargestRead is LargestRead.
func NewAnswerMemory(bytes int64) *AnswerMemory {
	return &AnswerMemory{semaphore.NewWeighted(max(bytes, LargestRead))}
}

// readMemory is what one client has of an AnswerMemory.
type readMemory struct {
	shared *AnswerMemory // nil: there is no bound
	own    *semaphore.Weighted
}

func newReadMemory(shared *AnswerMemory) readMemory {
	return readMemory{shared, semaphore.NewWeighted(LargestRead)}
}

// take waits until there is memory for an answer of size bytes. One goroutine gives it back by
// release; it may do so twice.
func (m readMemory) take(ctx context.Context, size int64) (release func(), err error) {
	if m.shared == nil || size <= smallAnswer {
		return func() {}, nil
	}
	bytes := decodedCopies * size
	if err := m.own.Acquire(ctx, bytes); err != nil {
		return nil, fmt.Errorf("wait for memory: %w", err)
	}
	if err := m.shared.free.Acquire(ctx, bytes); err != nil {
		m.own.Release(bytes)
		return nil, fmt.Errorf("wait for memory: %w", err)
	}
	return func() {
		m.own.Release(bytes)
		m.shared.free.Release(bytes)
		bytes = 0
	}, nil
}
