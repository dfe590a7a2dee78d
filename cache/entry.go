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
	// bytes: with maps that have churned, which take up to a third more than fresh ones. TestMemoryStaysWithinTheBound
	// holds it against the heap.
	entryOverhead = 512
)

// generation is shared by the entries that a space took in between two DropSpace calls. It drops them all at once,
// however many they are.
type generation struct {
	space   string // Key.Space of its entries
	dropped atomic.Bool
}

// absence is the error that says that a key's value does not exist.
type absence struct{ err error }

// entry is what is known of a key: a copy of its value, or the error that says it is absent. All fields but the
// atomic ones are set before it is published and never change: what answers readers is never overwritten. There may be
// millions: with a pointer for its value it fills an allocation of 96 bytes.
type entry[V any] struct {
	name        string
	value       V
	absence     *absence // nil in a copy
	fetchedAt   time.Time
	generation  *generation  // nil until it enters the index
	nextRefresh atomic.Int64 // the age, in nanoseconds, before which no refresh begins
	version     uint32
	cost        uint32
	jitter      float32
	dropped     atomic.Bool
}

// newCopy returns the entry of a value that a load began at fetchedAt has brought.
func newCopy[V any](key Key, value V, size int, fetchedAt time.Time) *entry[V] {
	return &entry[V]{
		name: key.Name, version: key.Version, value: value, fetchedAt: fetchedAt,
		jitter: rand.Float32() * maxJitter, //nolint:gosec // spreads load, guards nothing
		cost:   cost(key, size),
	}
}

// newAbsence returns the entry that remembers an error.
func newAbsence[V any](key Key, err error, fetchedAt time.Time) *entry[V] {
	return &entry[V]{
		name: key.Name, version: key.Version, absence: &absence{err}, fetchedAt: fetchedAt, cost: cost(key, 0),
	}
}

// retention is how long, from fetchedAt on, the entry is of use to anybody by the policy.
func (e *entry[V]) retention(p *Policy) time.Duration {
	if !e.isCopy() {
		return max(p.NegativeTTL, 0)
	}
	return addSaturating(max(p.TTL, 0), max(p.MaxStale, 0))
}

// cost is what an entry counts, with a value of size bytes; more than 4 GiB count as 4 GiB.
func cost(key Key, size int) uint32 {
	return uint32(min(int64(entryOverhead+len(key.Space)+len(key.Name))+int64(max(size, 0)), math.MaxUint32)) // #nosec G115 -- bounded
}

// key returns the whole key, by which a hash collision is told apart. The entry must have entered the index.
func (e *entry[V]) key() Key { return Key{Space: e.generation.space, Name: e.name, Version: e.version} }

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
	return p.TTL - time.Duration(float64(e.jitter)*float64(p.TTL))
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
		return Result[V]{Source: source}, e.absence.err
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
