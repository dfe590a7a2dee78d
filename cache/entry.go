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
	// refreshPause is how long an entry is not refreshed after a load of its key failed.
	refreshPause = time.Second
	// deniedFor is how long a denial is remembered.
	deniedFor = time.Second
	// refreshing is an entry's nextRefresh while its refresh runs.
	refreshing = int64(math.MaxInt64)
	// never is the age at which an entry ends whose value does not expire.
	never = time.Duration(math.MaxInt64)
	// entryOverhead is what an entry costs beside its key and its value, in bytes, here, in the
	// index and in ristretto. It assumes maps that have churned, which take up to a third more than
	// fresh ones. TestMemoryStaysWithinTheBound checks it against the heap.
	entryOverhead = 512
)

// generation is shared by the entries that a space admitted between two DropSpace calls, so that
// one flag drops them all, however many they are.
type generation struct {
	space   string // Key.Space of its entries
	dropped atomic.Bool
}

// absence is the error that says that a key's value does not exist, or that reading it is denied.
type absence struct {
	err      error
	isDenial bool
}

// lifetime is how long the error is remembered.
func (a *absence) lifetime(p *Policy) time.Duration {
	if a.isDenial {
		return deniedFor
	}
	return p.NegativeTTL
}

// entry is what is known of a key: a copy of its value, or the error that says it is absent or
// denied. All fields but the atomic ones are set before it is published and never change, so readers
// need no lock. There may be millions: with a pointer for its value it fills an allocation of 96
// bytes.
type entry[V any] struct {
	name      string
	value     V
	absence   *absence // nil in a copy
	fetchedAt instant
	// the age at which it ends whatever the policy says: when its value expires
	end time.Duration
	// how long, from fetchedAt on, it was of use by the policy of the Get that caused the load
	retention   time.Duration
	generation  *generation  // nil until it enters the index
	nextRefresh atomic.Int64 // the age, in nanoseconds, before which no refresh begins
	version     uint32
	cost        uint32
	jitter      float32
	dropped     atomic.Bool
}

// newCopy returns the entry for a value that expires at expiresAt and was brought by a load that
// began at fetchedAt.
func newCopy[V any](key Key, value V, size int, fetchedAt instant, expiresAt time.Time,
	p *Policy) *entry[V] {
	end := never
	if !expiresAt.IsZero() {
		end = expiresAt.Sub(fetchedAt.time())
	}
	return &entry[V]{
		name: key.Name, version: key.Version, value: value, fetchedAt: fetchedAt, end: end,
		retention: min(addSaturating(max(p.TTL, 0), max(p.MaxStale, 0)), end),
		jitter:    rand.Float32() * maxJitter, //nolint:gosec // spreads load, guards nothing
		cost:      cost(key, size),
	}
}

// newAbsence returns the entry that remembers an error.
func newAbsence[V any](key Key, remembered *absence, fetchedAt instant, p *Policy) *entry[V] {
	return &entry[V]{
		name: key.Name, version: key.Version, absence: remembered, fetchedAt: fetchedAt, end: never,
		retention: remembered.lifetime(p), cost: cost(key, 0),
	}
}

// left is how much longer the entry is of use to anybody.
func (e *entry[V]) left(now instant) time.Duration { return e.retention - now.since(e.fetchedAt) }

// cost is the size at which an entry counts, given the size of its value. More than 4 GiB count as
// 4 GiB.
func cost(key Key, size int) uint32 {
	return uint32(min(int64(entryOverhead+len(key.Space)+len(key.Name))+int64(max(size, 0)), math.MaxUint32)) // #nosec G115 -- bounded
}

// key returns the whole key, which tells hash collisions apart. The entry must have entered the
// index.
func (e *entry[V]) key() Key {
	return Key{Space: e.generation.space, Name: e.name, Version: e.version}
}

func addSaturating(a, b time.Duration) time.Duration {
	if sum := a + b; sum >= a {
		return sum
	}
	return math.MaxInt64
}

// isDropped reports whether the entry may no longer answer anybody.
func (e *entry[V]) isDropped() bool {
	return e.dropped.Load() || (e.generation != nil && e.generation.dropped.Load())
}

// isCopy reports whether there is an entry, and it is a copy of a value.
func (e *entry[V]) isCopy() bool { return e != nil && e.absence == nil }

// lifetime is the age at which the entry stops being fresh by the policy, or its value expires.
func (e *entry[V]) lifetime(p *Policy) time.Duration {
	if !e.isCopy() {
		return e.absence.lifetime(p)
	}
	return min(p.TTL-time.Duration(float64(e.jitter)*float64(p.TTL)), e.end)
}

// isFresh reports whether the entry answers a Get that began at arrival as it is.
func (e *entry[V]) isFresh(arrival instant, l *Lookup[V]) bool {
	bound, age := tighten(e.lifetime(&l.Policy), l.MaxAge), arrival.since(e.fetchedAt)
	// Within one tick of the clock an age is zero though the load began before the Get: zero is
	// never fresh.
	return bound > 0 && age <= bound && age < e.end && !e.isDropped()
}

// isServable reports whether the entry may answer in an outage.
func (e *entry[V]) isServable(now instant, l *Lookup[V]) bool {
	maxStale, age := tighten(l.Policy.MaxStale, l.MaxStale), now.since(e.fetchedAt)
	return e.isCopy() && maxStale > 0 && age-max(l.Policy.TTL, 0) <= maxStale && age < e.end &&
		!e.isDropped()
}

// isRefreshDue reports whether a hit on the entry should start a load in the background. It never
// is when the value expires before the copy would: a load would bring the same end.
func (e *entry[V]) isRefreshDue(now instant, p *Policy) bool {
	window, life := min(p.RefreshAhead, p.TTL/4), e.lifetime(p)
	age := now.since(e.fetchedAt)
	return window > 0 && e.isCopy() && life < e.end && age >= life-window &&
		int64(age) >= e.nextRefresh.Load()
}

// claimRefresh reports whether the caller, who found a refresh due, is the one to do it.
func (e *entry[V]) claimRefresh(now instant) bool {
	next := e.nextRefresh.Load()
	return int64(now.since(e.fetchedAt)) >= next && e.nextRefresh.CompareAndSwap(next, refreshing)
}

// postponeRefresh ends a claim and leaves the entry alone for a while.
func (e *entry[V]) postponeRefresh(now instant) {
	e.nextRefresh.Store(int64(now.since(e.fetchedAt) + refreshPause))
}

// answer returns the entry to a caller: its value, or the error that it remembers.
func (e *entry[V]) answer(source Source, p *Policy) (Result[V], error) {
	if !e.isCopy() {
		return Result[V]{Source: source}, e.absence.err
	}
	fetchedAt := e.fetchedAt.time()
	return Result[V]{Value: e.value, FetchedAt: fetchedAt, ExpiresAt: fetchedAt.Add(e.lifetime(p)),
		Source: source}, nil
}

// tighten returns the smaller of the policy's bound and the caller's, where there is one.
func tighten(bound time.Duration, callers *time.Duration) time.Duration {
	if callers == nil {
		return bound
	}
	return min(bound, *callers)
}
