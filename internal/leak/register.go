package leak

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// MaxAge is how long a value stays known after it was given out last; half of it at least.
	MaxAge = 24 * time.Hour
	// maxBytes bounds the memory of what is known, about. Past it, values are forgotten early.
	maxBytes = 16 << 20
	// maxOrigins is how many references to one value are remembered: the newest.
	maxOrigins = 8
	// valueBytes is about what a value costs besides the texts of its origins, most of it patterns.
	valueBytes, originBytes = 800, 64
)

// Origin is where a value came from, and for whom.
type Origin struct {
	// Connection and Project are those of the request.
	Connection, Project string
	// Path and Key are the reference, as the request has it.
	Path, Key string
}

// value is one that was given out. The value itself is not in it.
type value struct {
	origins []Origin // guarded by Register.mu; the slice is replaced, never changed
}

// generation holds what was given out in a period. Register.mu guards it.
type generation struct {
	began   time.Time
	bytes   int
	values  map[uint64]*value    // by the hash of their text
	anchors map[uint64][]pattern // the slices only grow
}

func newGeneration(began time.Time) *generation {
	return &generation{
		began: began, values: map[uint64]*value{}, anchors: map[uint64][]pattern{},
	}
}

// Register knows by hash which values were given out. It is safe for concurrent use.
//
// There are two generations. A value that is given out is in the young one. When that is old or
// large it becomes the old one, and what was in the old one alone is forgotten.
type Register struct {
	keys   *keys
	filter atomic.Pointer[filter] // of the anchors of both generations

	mu         sync.RWMutex
	young, old *generation // guarded by mu
}

// NewRegister makes a Register that knows nothing.
func NewRegister() *Register {
	now := time.Now()
	r := &Register{keys: newKeys(), young: newGeneration(now), old: newGeneration(now)}
	r.filter.Store(&filter{})
	return r
}

// Add says that a value was given out. Blank space around it does not count. Values that are
// shorter than Least, or that have fewer than five different bytes, are not looked for.
func (r *Register) Add(text string, from Origin) {
	text = strings.TrimSpace(text)
	if !searchable(text) {
		return
	}
	sum, now := maphash.String(r.keys.seed, text), time.Now()
	if r.isFresh(sum, from, now) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(now)
	r.learn(sum, text, from)
}

// isFresh reports whether there is nothing to learn: the usual case, in which readers do not wait
// for each other.
func (r *Register) isFresh(sum uint64, from Origin, now time.Time) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known := r.young.values[sum]
	return known != nil && slices.Contains(known.origins, from) && now.Sub(r.young.began) < MaxAge/2
}

// learn must be called with mu held.
func (r *Register) learn(sum uint64, text string, from Origin) {
	known := r.young.values[sum]
	if known == nil {
		if known = r.old.values[sum]; known == nil {
			known = &value{}
		}
		r.young.values[sum] = known
		r.young.bytes += valueBytes
		filter := r.filter.Load()
		r.keys.patternsOf(known, text, func(anchor uint64, p pattern) {
			r.young.add(anchor, p)
			filter.add(anchor)
		})
	}
	if slices.Contains(known.origins, from) {
		return
	}
	r.young.bytes += originBytes + len(from.Connection+from.Project+from.Path+from.Key)
	kept := known.origins[max(0, len(known.origins)+1-maxOrigins):]
	known.origins = append(slices.Clone(kept), from)
}

func (g *generation) add(anchor uint64, p pattern) {
	g.anchors[anchor] = append(g.anchors[anchor], p)
}

// forget forgets what is due.
func (r *Register) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age(now)
}

// age forgets what is due. It must be called with mu held.
func (r *Register) age(now time.Time) {
	lasted := now.Sub(r.young.began)
	if lasted < MaxAge/2 && r.young.bytes < maxBytes/2 {
		return
	}
	r.old = r.young
	if lasted >= MaxAge {
		r.old = newGeneration(now)
	}
	r.young = newGeneration(now)
	next := &filter{}
	for anchor := range r.old.anchors {
		next.add(anchor)
	}
	r.filter.Store(next)
}

// patterns returns those that begin with the anchor. Nobody may change them.
func (r *Register) patterns(anchor uint64) []pattern {
	r.mu.RLock()
	defer r.mu.RUnlock()
	young, old := r.young.anchors[anchor], r.old.anchors[anchor]
	switch {
	case len(old) == 0:
		return young
	case len(young) == 0:
		return old
	}
	return slices.Concat(young, old)
}

// origins returns where the value came from. Nobody may change them.
func (r *Register) origins(of *value) []Origin {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return of.origins
}

// filter says of nearly every hash that is no anchor that it is none, without a lock.
type filter [1 << 16]uint64

func (f *filter) add(hash uint64) { atomic.OrUint64(&f[hash>>48], 1<<(hash>>42&63)) }

func (f *filter) has(hash uint64) bool {
	return atomic.LoadUint64(&f[hash>>48])&(1<<(hash>>42&63)) != 0
}
