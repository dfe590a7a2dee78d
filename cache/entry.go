package cache

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// maxJitter is the share of the ttl by which a copy may expire early.
	maxJitter = 0.1
	// refreshPause is how long an entry is left alone after a load of its key failed.
	refreshPause = time.Second
	// refreshing is an entry's nextRefresh while its refresh runs.
	refreshing = int64(math.MaxInt64)
	// entryOverhead is what an entry costs beside its key and its value, here, in the index and in ristretto, in
	// bytes. TestMemoryStaysWithinTheBound holds it against the heap.
	entryOverhead = 800
)

// generation is shared by the entries that a space took in between two DropSpace calls. It drops them all at once,
// however many they are.
type generation struct{ dropped atomic.Bool }

// entry is what is known of a key: a copy of its value, or the error that says it is absent. All fields but the
// atomic ones are set before it is published and never change: what answers readers is never overwritten.
type entry[V any] struct {
	key        Key // whole: a hash collision is told apart by comparing it
	hash       uint64
	value      V
	absence    error // nil in a copy
	fetchedAt  time.Time
	jitter     float64
	retention  time.Duration // from fetchedAt on; then it is of no use to anybody
	cost       int64
	generation *generation // nil until it enters the index

	dropped     atomic.Bool
	nextRefresh atomic.Int64 // the age, in nanoseconds, before which no refresh begins
}

// newCopy returns the entry of a value that a load began at fetchedAt has brought.
func newCopy[V any](key Key, hash uint64, value V, size int, fetchedAt time.Time, p Policy) *entry[V] {
	return &entry[V]{
		key: key, hash: hash, value: value, fetchedAt: fetchedAt,
		jitter:    rand.Float64() * maxJitter, //nolint:gosec // spreads load, guards nothing
		retention: addSaturating(max(p.TTL, 0), max(p.MaxStale, 0)),
		cost:      cost(key) + int64(max(size, 0)),
	}
}

// newAbsence returns the entry that remembers an error.
func newAbsence[V any](key Key, hash uint64, err error, fetchedAt time.Time, p Policy) *entry[V] {
	return &entry[V]{
		key: key, hash: hash, absence: err, fetchedAt: fetchedAt, retention: max(p.NegativeTTL, 0), cost: cost(key),
	}
}

func cost(key Key) int64 { return int64(entryOverhead + len(key.Space) + len(key.Name)) }

func addSaturating(a, b time.Duration) time.Duration {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxInt64
}

// isDropped reports whether the entry may answer nobody any more.
func (e *entry[V]) isDropped() bool {
	return e.dropped.Load() || (e.generation != nil && e.generation.dropped.Load())
}

func (e *entry[V]) isCopy() bool { return e.absence == nil }

// lifetime is the age at which the entry stops being fresh by the policy.
func (e *entry[V]) lifetime(p *Policy) time.Duration {
	if !e.isCopy() {
		return p.NegativeTTL
	}
	return p.TTL - time.Duration(e.jitter*float64(p.TTL))
}

// isFresh reports whether the entry answers a Get that began at arrival as it is.
func (e *entry[V]) isFresh(arrival time.Time, l *Lookup[V]) bool {
	bound := tighten(e.lifetime(&l.Policy), l.MaxAge)
	// Within one tick of the clock an age is zero though the load began before the Get: zero is never fresh.
	return bound > 0 && arrival.Sub(e.fetchedAt) <= bound && !e.isDropped()
}

// isServable reports whether the entry may stand in for a value during an outage.
func (e *entry[V]) isServable(now time.Time, l *Lookup[V]) bool {
	maxStale := tighten(l.Policy.MaxStale, l.MaxStale)
	age := now.Sub(e.fetchedAt)
	return e.isCopy() && maxStale > 0 && age-max(l.Policy.TTL, 0) <= maxStale && !e.isDropped()
}

// isRefreshDue reports whether a hit on the entry should start a load in the background.
func (e *entry[V]) isRefreshDue(now time.Time, p *Policy) bool {
	window := min(p.RefreshAhead, p.TTL/4)
	age := now.Sub(e.fetchedAt)
	return window > 0 && e.isCopy() && age >= e.lifetime(p)-window && int64(age) >= e.nextRefresh.Load()
}

// claimRefresh reports whether the caller, who found a refresh due, is the one to do it.
func (e *entry[V]) claimRefresh(now time.Time) bool {
	next := e.nextRefresh.Load()
	return int64(now.Sub(e.fetchedAt)) >= next && e.nextRefresh.CompareAndSwap(next, refreshing)
}

// postponeRefresh ends a claim and keeps the entry alone for a while.
func (e *entry[V]) postponeRefresh(now time.Time) {
	e.nextRefresh.Store(int64(now.Sub(e.fetchedAt) + refreshPause))
}

// answer returns the entry to a caller: its value, or the error that it remembers.
func (e *entry[V]) answer(source Source, p *Policy) (Result[V], error) {
	if !e.isCopy() {
		return Result[V]{}, e.absence
	}
	return Result[V]{
		Value: e.value, FetchedAt: e.fetchedAt, ExpiresAt: e.fetchedAt.Add(e.lifetime(p)), Source: source,
	}, nil
}

// tighten returns the smaller of the policy's bound and the caller's, where there is one.
func tighten(bound time.Duration, callers *time.Duration) time.Duration {
	if callers == nil {
		return bound
	}
	return min(bound, *callers)
}
