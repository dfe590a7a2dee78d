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
	// ErrOverloaded means that Policy.MaxWaiting callers already wait for loads in the space.
	ErrOverloaded = errors.New("too many callers are waiting for a load")
	// ErrClosed means that the Cache is closed, or was closed while the caller waited.
	ErrClosed = errors.New("cache is closed")
	// ErrPanicked means that the load panicked or ended its goroutine. The error names the type of
	// the panic's value, never its text, which may be a secret.
	ErrPanicked = errors.New("load panicked")
)

// Class is what a load's error means for the cached copy.
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

// Source is where a Result comes from.
type Source int

const (
	// SourceLoad is a load that the Get waited for.
	SourceLoad Source = iota + 1
	// SourceCache is a fresh copy.
	SourceCache
	// SourceStale is a copy served in an outage.
	SourceStale
)

// Key names what is cached. Keys are equal when all fields are.
type Key struct {
	// Space is the unit of DropSpace, Len and Policy.MaxWaiting. Spaces share nothing but memory.
	Space string
	// Name is the unit of Drop, DropMatching and Len.
	Name string
	// Version distinguishes copies of one name. The cache gives its value no meaning.
	Version uint32
}

// Policy is how one Get wants its key cached. It may differ from Get to Get, and applies at once,
// to existing copies too. Negative values count as zero.
type Policy struct {
	// TTL is the age up to which a copy is fresh, less up to a tenth, drawn for each copy. Zero: no
	// copy is ever fresh; concurrent Gets still share loads.
	TTL time.Duration
	// MaxStale is what an outage may add to TTL. Zero: an outage is never answered with a copy.
	MaxStale time.Duration
	// NegativeTTL is how long a ClassAbsent error is remembered. Zero: not at all.
	NegativeTTL time.Duration
	// RefreshAhead is the last part of a copy's life, during which a hit starts a load in the
	// background; at most a quarter of TTL. Zero: never.
	RefreshAhead time.Duration
	// MaxWaiting bounds the callers that wait for loads in the key's space, plus the running loads
	// for which nobody waits. Zero: no bound.
	MaxWaiting int
}

// Lookup is one request to the Cache.
type Lookup[V any] struct {
	Key    Key
	Policy Policy
	// MaxAge tightens Policy.TTL, Policy.NegativeTTL and a denial's second for this Get. Nil: the
	// policy's. Zero or less: only a load that begins after the Get will do.
	MaxAge *time.Duration
	// MaxStale tightens Policy.MaxStale for this Get. Nil: the policy's. Zero or less: never stale.
	MaxStale *time.Duration
	// Admit is called before the Get waits for a load, and before a load in the background. Its
	// error counts as the load's, without the wait. It must return at once and may be called
	// concurrently. Nil admits.
	Admit func(key Key) error
	// Load fetches the value. Required. It runs on its own goroutine, at most two per key and drop
	// at a time. ctx has the values of the Get that caused it and ends only when the Cache is
	// closed; Load must then return soon. Callers wait as long as Load takes, so it must bound
	// itself. It is told the key, so that one function serves every key of a space.
	Load func(ctx context.Context, key Key) (V, error)
	// Joined is called when a Get is about to wait for a load that another one caused: waiter is
	// the Get's ctx, load the context that the load runs or will run under. It must return at once,
	// because locks are held. Nil is allowed.
	Joined func(waiter, load context.Context)
	// Refreshing is called when the Get starts a load in the background. It must return at once,
	// because locks are held. Nil is allowed.
	Refreshing func()
}

// Result answers a Lookup. With an error only Source may be set: SourceCache means that the error
// was remembered.
type Result[V any] struct {
	Value V
	// FetchedAt is when the load that produced Value began, by the wall clock.
	FetchedAt time.Time
	// ExpiresAt is when the copy stops being fresh by the Lookup's policy, or the value itself
	// expires. It is in the past for most stale copies.
	ExpiresAt time.Time
	Source    Source
}

// Config configures a Cache.
type Config[V any] struct {
	// MaxBytes bounds the memory of all entries: keys, values, and bookkeeping by a fixed estimate.
	// Zero: 64 MiB.
	MaxBytes int64
	// Size returns the bytes that a value takes, without fixed overhead. It must be safe for
	// concurrent use. Nil: values count nothing.
	Size func(V) int
	// ExpiresAt returns when a value itself expires: from then on no copy of it answers, fresh or
	// stale. A load that brings an expired value answers those who wait for it, and nobody else.
	// The zero time means never. It must be safe for concurrent use. Nil: no value expires by
	// itself.
	ExpiresAt func(V) time.Time
	// Classify says what an error of Load or Admit means. It must be safe for concurrent use. Nil:
	// all are ClassOther.
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

	// mu is taken after the store's lock, never before it: the store is not called while mu is
	// held.
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
		size: cfg.Size, expiresAt: cfg.ExpiresAt, classify: cfg.Classify, clock: newClock(),
		spaces: make(map[string]*space[V]), workers: newWorkers(),
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

// Len returns how many names in the space have a cached version, fresh or kept for an outage.
// Remembered errors do not count. A copy that is of no more use may count for some seconds; after
// the machine was suspended, until the next load.
func (c *Cache[V]) Len(space string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.spaces[space]; s != nil {
		return s.copies
	}
	return 0
}

// Stats counts what a Cache holds and what it dropped.
type Stats struct {
	// Bytes is the size of all entries, MaxBytes its bound.
	Bytes, MaxBytes int64
	// Evictions counts the entries that made room for others since New.
	Evictions uint64
	// Rejections counts the entries that were not admitted: everything present is used more often,
	// or they are larger than MaxBytes.
	Rejections uint64
}

// Stats returns the current counts; once the Cache is closed, the last ones.
func (c *Cache[V]) Stats() Stats { return c.store.stats() }

// SetMaxBytes changes Config.MaxBytes; n of zero or less means 64 MiB. Shrinking drops entries
// before it returns, in no useful order. The counting of uses stays as fine as the first bound made
// it. On a closed Cache it does nothing.
func (c *Cache[V]) SetMaxBytes(n int64) { c.store.resize(orDefault(n), c.takeAny) }

// Close refuses later Gets with ErrClosed and answers waiting ones with it, cancels the running
// loads and waits for them, then releases the memory. It takes as long as the slowest load takes to
// notice. Later calls wait for the first and do nothing.
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
