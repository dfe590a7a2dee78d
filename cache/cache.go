package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const defaultMaxBytes = 64 << 20

var (
	// ErrOverloaded means that Policy.MaxWaiting callers already wait for loads of the space.
	ErrOverloaded = errors.New("too many callers are waiting for a load")
	// ErrClosed means that the Cache is closed, or was closed while the caller waited.
	ErrClosed = errors.New("cache is closed")
	// ErrPanicked means that the load panicked or ended its goroutine. The error names the type of what it panicked
	// with, never the text, which may hold what must not be shown.
	ErrPanicked = errors.New("load panicked")
)

// Class says what the error of a load means for the cached copy.
type Class int

const (
	// ClassOther errors are returned; the copy stays for later Gets.
	ClassOther Class = iota
	// ClassOutage errors are answered with a stale copy where the policy and the caller allow it.
	ClassOutage
	// ClassAbsent errors are returned and remembered for Policy.NegativeTTL; the copy is dropped.
	ClassAbsent
	// ClassDenied errors are returned and remembered for a second, so that a loop costs a load a second; the copy is
	// dropped.
	ClassDenied
)

// Source says where a Result comes from.
type Source int

const (
	// SourceLoad is a load that the Get waited for.
	SourceLoad Source = iota + 1
	// SourceCache is a fresh copy.
	SourceCache
	// SourceStale is a copy that stands in during an outage.
	SourceStale
)

// Key names what is cached. Keys are equal when all fields are.
type Key struct {
	// Space is what DropSpace, Len and Policy.MaxWaiting go by. Spaces share nothing but memory.
	Space string
	// Name is what Drop, DropMatching and Len count by.
	Name string
	// Version tells copies of one name apart. The cache gives no value a meaning.
	Version uint32
}

// Policy is how one Get wants its key cached. It may change from Get to Get: the new one counts at once, for copies
// already cached too. Negative values count as zero.
type Policy struct {
	// TTL is the age up to which a copy is fresh, less a share of up to a tenth drawn for each copy.
	// Zero: no copy is ever fresh; concurrent Gets still share loads.
	TTL time.Duration
	// MaxStale is what an outage may add to TTL. Zero: an outage is never answered with a copy.
	MaxStale time.Duration
	// NegativeTTL is how long a ClassAbsent error is remembered. Zero: not at all.
	NegativeTTL time.Duration
	// RefreshAhead is the last part of a copy's life in which a hit starts a load in the background. It counts as a
	// quarter of TTL when it is longer than that. Zero: never.
	RefreshAhead time.Duration
	// MaxWaiting bounds the callers that wait for loads in the key's space, together with the running loads for
	// which nobody waits. Zero: no bound.
	MaxWaiting int
}

// Lookup is one question to the Cache.
type Lookup[V any] struct {
	Key    Key
	Policy Policy
	// MaxAge tightens Policy.TTL, Policy.NegativeTTL and a denial's second for this Get. Nil: the policy's. Zero or less: only a load that
	// begins after the Get will do.
	MaxAge *time.Duration
	// MaxStale tightens Policy.MaxStale for this Get. Nil: the policy's. Zero or less: never stale.
	MaxStale *time.Duration
	// Admit is asked before the Get waits for a load, and before a load in the background. Its error counts as the
	// load's, without the wait. It must return at once and may be called by several goroutines at a time. Nil admits.
	Admit func(key Key) error
	// Load fetches the value. Required. It runs on a goroutine of its own, at most two per key and drop at a time; ctx
	// has the values of the Get that caused it and ends only when the Cache is closed, after which Load must return
	// soon. Callers wait as long as Load takes: it has to bound itself. It is told the key, so that one function serves
	// every key of a space.
	Load func(ctx context.Context, key Key) (V, error)
	// Joined is told of a Get that is going to wait for a load which another one has caused: waiter is the Get's ctx,
	// load the one that the load runs, or will run, under. It must return at once: locks are held. Nil is told nothing.
	Joined func(waiter, load context.Context)
	// Refreshing is told when the Get begins a load in the background. It must return at once: locks are held. Nil is
	// told nothing.
	Refreshing func()
}

// Result is the answer to a Lookup. Beside an error only Source may be set: SourceCache says that the error was
// remembered.
type Result[V any] struct {
	Value V
	// FetchedAt is when the load that produced Value began, by the wall clock.
	FetchedAt time.Time
	// ExpiresAt is when the copy stops being fresh by the Lookup's policy, or the value ends by itself. It is in the past
	// for most stale copies.
	ExpiresAt time.Time
	Source    Source
}

// Config configures a Cache.
type Config[V any] struct {
	// MaxBytes bounds the memory of all entries: keys, values, and bookkeeping by a fixed estimate. Zero: 64 MiB.
	MaxBytes int64
	// Size returns the bytes that a value holds, without fixed overhead. It must be safe for concurrent use.
	// Nil: values count nothing.
	Size func(V) int
	// ExpiresAt says when a value ends by itself: from then on no copy of it answers, fresh or stale. A load that brings
	// a value whose end has passed answers those who wait for it, and nobody else. The zero time: never. It must be safe
	// for concurrent use. Nil: no value ends by itself.
	ExpiresAt func(V) time.Time
	// Classify says what a load's or Admit's error means. It must be safe for concurrent use. Nil: all are ClassOther.
	Classify func(error) Class
}

// Cache is a read-through cache. All methods are safe for concurrent use. Make one with New.
type Cache[V any] struct {
	size      func(V) int
	expiresAt func(V) time.Time
	classify  func(error) Class
	clock     func() instant // replaced by tests only, before the first Get

	store      *store[V]
	background sync.WaitGroup // flights and removals that run; grows under mu and only while open
	workers    *workers       // run the flights
	ending     sync.Once      // ends the workers

	// mu is taken after the store's lock, never before: while it is held, the store is not called.
	mu     sync.Mutex
	closed bool                 // guarded by mu
	spaces map[string]*space[V] // guarded by mu, and so is all that it leads to
}

// New returns an empty Cache. It fails when cfg.MaxBytes is negative. The caller must Close it.
func New[V any](cfg Config[V]) (*Cache[V], error) {
	if cfg.MaxBytes < 0 {
		return nil, fmt.Errorf("make cache: MaxBytes is %d, must not be negative", cfg.MaxBytes)
	}
	c := &Cache[V]{
		size: cfg.Size, expiresAt: cfg.ExpiresAt, classify: cfg.Classify, clock: newClock(), spaces: make(map[string]*space[V]), workers: newWorkers(),
	}
	if c.size == nil {
		c.size = func(V) int { return 0 }
	}
	if c.expiresAt == nil {
		c.expiresAt = func(V) time.Time { return time.Time{} }
	}
	if c.classify == nil {
		c.classify = func(error) Class { return ClassOther }
	}
	var err error
	if c.store, err = newStore(orDefault(cfg.MaxBytes), c.clock().skew(), c.forget); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return c, nil
}

// Len returns the number of names in the space of which a version is cached, fresh or kept for an outage.
// Remembered errors do not count. A copy past both its uses, or past its value's end, may count for
// some seconds more; past an end that came while the machine was suspended, until the next load.
func (c *Cache[V]) Len(space string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.spaces[space]; s != nil {
		return s.copies
	}
	return 0
}

// Stats is what a Cache holds and what became of the rest.
type Stats struct {
	// Bytes is what all entries count together, MaxBytes what they may.
	Bytes, MaxBytes int64
	// Evictions counts the entries that made room for others since New.
	Evictions uint64
	// Rejections counts the entries that were not taken in: all that is there is used more often, or they are larger
	// than MaxBytes.
	Rejections uint64
}

// Stats returns the present numbers; those of the end once the Cache is closed.
func (c *Cache[V]) Stats() Stats { return c.store.stats() }

// SetMaxBytes changes Config.MaxBytes; n of zero or less means 64 MiB. Shrinking drops entries before it returns, not
// the least used ones first. How often keys are used stays counted as finely as the first bound asked for. On a closed
// Cache it does nothing.
func (c *Cache[V]) SetMaxBytes(n int64) { c.store.resize(orDefault(n), c.takeAny) }

// Close refuses every later Get with ErrClosed and answers waiting ones with it, cancels the running loads and waits
// for them, then releases the memory. It takes as long as the slowest load takes to notice. Later calls of Close wait for the first and do nothing.
func (c *Cache[V]) Close() {
	c.store.refuse()
	c.mu.Lock()
	c.closed = true
	for _, s := range c.spaces {
		for f := range s.running {
			f.cancel()
		}
	}
	c.mu.Unlock()

	c.background.Wait()
	c.ending.Do(c.workers.end)
	c.store.close()
}

func orDefault(maxBytes int64) int64 {
	if maxBytes <= 0 {
		return defaultMaxBytes
	}
	return maxBytes
}
