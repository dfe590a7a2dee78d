package server

import (
	"sync"
)

const (
	// maxBatchBytes keeps an answer below the 4 MiB that gRPC clients accept by default, with room
	// for the errors of the items that do not fit.
	maxBatchBytes = 4<<20 - 256<<10
	// maxResponseOverhead is more than a ResolveResponse takes beside its value: six fields of at
	// most 12 bytes, three of them in messages of their own.
	maxResponseOverhead = 128
	// A batch begins with few reads. Each that brings a small secret lets one more begin: how large
	// secrets are shows only when they are there.
	firstBatchReads = 16
	maxBatchReads   = 64
	smallSecret     = 64 << 10
)

// batchRoom is the room for values in a batch's answer. What does not fit when it comes is let go at
// once, so that a batch holds little more than it answers. It is safe for concurrent use.
type batchRoom struct {
	answers *answers

	mu      sync.Mutex
	taken   int // guarded by mu: bytes of the values that fit
	wasted  int // guarded by mu: bytes of those that were read and did not
	largest int // guarded by mu: of all of them
}

// fit makes an outcome whose value does not fit the error that says so.
func (r *batchRoom) fit(o *outcome) {
	if o.secret == nil {
		return
	}
	size := len(o.secret.GetValue()) + maxResponseOverhead
	r.mu.Lock()
	defer r.mu.Unlock()
	r.largest = max(r.largest, size)
	switch {
	case r.taken+size > maxBatchBytes:
		r.wasted += size
		o.fail(errBatchTooLarge())
	case !r.answers.hold(size):
		r.answers.refused.Add(1)
		o.fail(errUnread("answers of all callers"))
	default:
		r.taken += size
	}
}

// release lets go of the room, when the values are encoded or of no use any more.
func (r *batchRoom) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers.release(r.taken)
	r.taken = 0
}

// isSpent reports whether as much was read in vain as an answer can hold. What is still to be read
// will hardly fit then.
func (r *batchRoom) isSpent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wasted >= maxBatchBytes
}

// holdsLarge reports whether a value was large.
func (r *batchRoom) holdsLarge() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.largest > smallSecret
}

// batchReaders do the reads of a batch, in order and side by side.
type batchReaders struct {
	reads []int // the first items of each
	read  func(first int)
	room  *batchRoom

	mu      sync.Mutex
	next    int // guarded by mu: place in reads
	readers int // guarded by mu: how many goroutines read
	group   sync.WaitGroup
}

// run returns when all is read.
func (b *batchReaders) run() {
	for range min(firstBatchReads, len(b.reads)) {
		b.begin()
	}
	b.group.Wait()
}

// begin begins one more goroutine that reads, if there is something left to read and may be one.
func (b *batchReaders) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == len(b.reads) || b.readers == maxBatchReads {
		return
	}
	first := b.reads[b.next]
	b.next++
	b.readers++
	b.group.Go(func() { b.readOn(first) })
}

func (b *batchReaders) readOn(first int) {
	for more := true; more; first, more = b.take() {
		b.read(first)
		if !b.room.holdsLarge() {
			b.begin()
		}
	}
}

// take returns the next read; false is that there is none.
func (b *batchReaders) take() (first int, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == len(b.reads) {
		b.readers--
		return 0, false
	}
	first = b.reads[b.next]
	b.next++
	return first, true
}
