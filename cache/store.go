package cache

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
)

const (
	// laneCount spreads readers over locks, so that they do not fight for one cache line.
	laneCount = 64
	// removeChunk bounds how many entries are removed before a waiting writer gets its turn.
	removeChunk = 2048
	// clockLeap is how far the clocks must move apart before it matters: ristretto sorts expiries
	// into buckets of five seconds.
	clockLeap = 5 * time.Second
	// bytesPerCounter sizes ristretto's sketch and filter: about three counters, at 4 bytes, for
	// each entry of the usual size. Two entries then share all four of their counters one time in a
	// hundred.
	bytesPerCounter = 256
	minCounters     = 1 << 12
	maxCounters     = 1 << 24
)

// store holds entries in ristretto, which decides what stays when memory is short. Ristretto knows
// entries by hash alone. Its second hash, for telling collisions apart, is left out: its policy
// goes by the first one, so two keys that share it would spoil each other's accounting. Here one
// replaces the other, and get compares the whole key.
//
// Ristretto applies Set later, and refuses a second Set of a new key while the first is on its way.
// So writers take turns and wait until their write is applied: whenever mu is free, nothing new is
// on its way.
type store[V any] struct {
	cache *ristretto.Cache[uint64, *entry[V]]
	hash  func(Key) uint64 // replaced by the collision test only
	lanes [laneCount]lane

	// mu is held by every writer. No reader takes it, and nobody takes it while holding Cache.mu.
	mu     sync.Mutex
	closed bool          // guarded by mu
	last   Stats         // guarded by mu; set when closed is
	skew   time.Duration // guarded by mu; of the clocks by which the entries leave

	onExit func(*entry[V])
	// set by the writer while it replaces an entry by itself, which is no exit
	moving atomic.Pointer[entry[V]]

	evictions, rejections atomic.Uint64

	release sync.Once // closes ristretto
}

// lane keeps readers out of a ristretto that is being closed, whose Get would panic.
type lane struct {
	mu     sync.RWMutex
	closed bool     // guarded by mu
	_      [96]byte // keeps lanes on cache lines of their own
}

// newStore returns an empty store. It calls onExit with every entry that leaves, for whatever
// reason, on a goroutine that may hold mu.
func newStore[V any](maxBytes int64, skew time.Duration,
	onExit func(*entry[V])) (*store[V], error) {
	s := &store[V]{skew: skew, onExit: onExit}
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *entry[V]]{
		NumCounters:        min(max(maxBytes/bytesPerCounter, minCounters), maxCounters),
		MaxCost:            maxBytes,
		BufferItems:        64,
		IgnoreInternalCost: true,
		KeyToHash:          func(hash uint64) (uint64, uint64) { return hash, 0 },
		OnEvict: func(item *ristretto.Item[*entry[V]]) {
			// only what made room: what has expired, or is cleared at the end, says when
			if item.Expiration.IsZero() {
				s.evictions.Add(1)
			}
		},
		OnReject: func(*ristretto.Item[*entry[V]]) { s.rejections.Add(1) },
		OnExit: func(e *entry[V]) {
			// ristretto also reports the exit of what was not there
			if e != nil && e != s.moving.Load() {
				onExit(e)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	seed := maphash.MakeSeed()
	s.cache, s.hash = cache, func(k Key) uint64 { return maphash.Comparable(seed, k) }
	return s, nil
}

// stats returns the present numbers, or the last ones.
func (s *store[V]) stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statsLocked()
}

// statsLocked must be called with mu held.
func (s *store[V]) statsLocked() Stats {
	if s.closed {
		return s.last
	}
	bound := s.cache.MaxCost()
	return Stats{
		Bytes: bound - s.cache.RemainingCost(), MaxBytes: bound,
		Evictions: s.evictions.Load(), Rejections: s.rejections.Load(),
	}
}

// get returns the entry of the key, nil when there is none, and whether reads are still allowed.
func (s *store[V]) get(key Key) (e *entry[V], open bool) {
	hash := s.hash(key)
	l := &s.lanes[hash%laneCount]
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, false
	}
	if e, _ = s.cache.Get(hash); e == nil || e.key() != key {
		return nil, true
	}
	return e, true
}

// put adds the entry, unless it was dropped meanwhile, and keeps it until it is as old as its
// retention. When it returns true, the entry is visible or has left through onExit. False means
// that it was not even tried.
func (s *store[V]) put(e *entry[V], now instant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.followClock(now)
	left := e.left(now)
	if e.isDropped() || left <= 0 {
		return false
	}
	hash := s.hash(e.key())
	if held, _ := s.cache.Get(hash); held == nil || held.cost < e.cost {
		// Ristretto evicts to make room for what is new, not for what replaces something smaller.
		s.cache.Del(hash)
	}
	tried := s.cache.SetWithTTL(hash, e, int64(e.cost), left)
	// what takes the place of another entry is there at once
	if held, _ := s.cache.Get(hash); held != e {
		s.cache.Wait()
	}
	return tried
}

// remove gives back the memory of dropped entries. What replaced one of them stays. It reports
// false when the store is closed.
func (s *store[V]) remove(entries []*entry[V]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.removeLocked(entries)
	return true
}

// removeAll is remove, with a pause for other writers every so often.
func (s *store[V]) removeAll(entries iter.Seq[*entry[V]]) {
	chunk := make([]*entry[V], 0, removeChunk)
	for e := range entries {
		if chunk = append(chunk, e); len(chunk) < removeChunk {
			continue
		}
		if !s.remove(chunk) {
			return
		}
		chunk = chunk[:0]
	}
	s.remove(chunk)
}

func (s *store[V]) removeLocked(entries []*entry[V]) {
	for _, e := range entries {
		hash := s.hash(e.key())
		if held, _ := s.cache.Get(hash); held == e {
			s.cache.Del(hash)
		}
	}
	s.cache.Wait()
}

// followClock makes the entries leave in time after the wall clock was set or the machine
// suspended. Ristretto uses both clocks: it looks at an entry once, when the wall clock says so,
// and removes it only if the monotonic clock agrees. So after a leap ahead the entries from before
// would stay for ever, and after a leap back for as long as the leap. mu must be held.
func (s *store[V]) followClock(now instant) {
	if leap := now.skew() - s.skew; leap.Abs() < clockLeap {
		return // what ristretto's own precision covers
	}
	s.skew = now.skew()
	var held []*entry[V]
	s.cache.IterValues(func(e *entry[V]) bool {
		held = append(held, e)
		return false
	})
	for _, e := range held {
		if left := e.left(now); left > 0 {
			s.retime(e, left)
		} else {
			s.cache.Del(s.hash(e.key()))
		}
	}
	s.cache.Wait()
}

// retime makes an entry of ristretto's leave when left has passed. mu must be held.
func (s *store[V]) retime(e *entry[V], left time.Duration) {
	hash := s.hash(e.key())
	s.moving.Store(e)
	s.cache.SetWithTTL(hash, e, int64(e.cost), left)
	s.moving.Store(nil)
	if held, _ := s.cache.Get(hash); held != e { // it has expired just now
		s.onExit(e)
	}
}

// resize changes the bound. Ristretto itself would shrink only at the next Set, so take is called
// to drop entries of the given cost, until it has none or the rest fits.
func (s *store[V]) resize(maxBytes int64, take func(bytes int64) []*entry[V]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.cache.UpdateMaxCost(maxBytes)
	for {
		excess := -s.cache.RemainingCost()
		if excess <= 0 {
			return
		}
		victims := take(excess)
		if len(victims) == 0 {
			return
		}
		s.evictions.Add(uint64(len(victims)))
		s.removeLocked(victims)
	}
}

// refuse makes every later read and write do nothing.
func (s *store[V]) refuse() {
	for i := range s.lanes {
		l := &s.lanes[i]
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
	}
	s.mu.Lock()
	s.last = s.statsLocked()
	s.closed = true
	s.mu.Unlock()
}

// close releases everything. refuse must have been called. Later calls wait for the first and do
// nothing.
func (s *store[V]) close() { s.release.Do(s.cache.Close) }
