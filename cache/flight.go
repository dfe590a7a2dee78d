package cache

import (
	"context"
	"fmt"
	"strings"
)

// flight is one load. It continues when all its callers have left, since the next one wants its
// result.
type flight[V any] struct {
	space  *space[V]
	key    Key
	policy Policy // of the Get that caused it
	load   func() (V, error)
	joined func(waiter context.Context) // tells that a Get waits which did not cause the flight
	cancel context.CancelFunc           // ends what load runs under

	// Guarded by Cache.mu. began is set before the flight's goroutine starts, and never changes.
	began   instant
	running bool // has begun; before that it is queued
	fenced  bool // a drop came after it began: it answers its waiters and leaves no trace
	// its waiters have their outcome; it still runs when a flight that began later has ended first
	completed bool
	waiters   int

	// done is closed when what follows is set for good.
	done    chan struct{}
	outcome outcome[V]
	// during an outage: what was known of the key when the flight ended; may be nil
	standIn *entry[V]
}

// outcome is what became of a load, or of the attempt to be admitted to one.
type outcome[V any] struct {
	entry *entry[V] // the value or the absence to keep; nil when there is neither
	err   error
	class Class // of err
}

// isFinal reports whether the outcome says what exists in truth. An outage, for example, does not.
func (o *outcome[V]) isFinal() bool {
	return o.err == nil || o.class == ClassAbsent || o.class == ClassDenied
}

// newFlight returns a flight that has not begun.
func newFlight[V any](ctx context.Context, s *space[V], l Lookup[V]) *flight[V] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // fly, leave or depart calls cancel
	load, joined, key := l.Load, l.Joined, ownKey(l.Key)
	f := &flight[V]{
		space: s, key: key, policy: l.Policy,
		load: func() (V, error) { return load(ctx, key) }, joined: func(context.Context) {},
		cancel: cancel, done: make(chan struct{}),
	}
	if joined != nil {
		f.joined = func(waiter context.Context) { joined(waiter, ctx) }
	}
	return f
}

// ownKey returns the key with its own copy of the name: the caller's may be part of a larger text,
// which should not stay in memory.
func ownKey(key Key) Key {
	key.Name = strings.Clone(key.Name)
	return key
}

// readmit makes a queued flight ask Admit again when its turn comes: by then there may be an
// outage.
func (f *flight[V]) readmit(admit func(Key) error) {
	if admit == nil {
		return
	}
	load := f.load
	f.load = func() (V, error) {
		if err := admit(f.key); err != nil {
			var none V
			return none, err
		}
		return load()
	}
}

// mayAnswer reports whether the running flight is recent enough for a Get that began at arrival. A
// completed flight will bring something older than what is known.
func (f *flight[V]) mayAnswer(arrival instant, l *Lookup[V]) bool {
	bound := tighten(l.Policy.TTL, l.MaxAge)
	return !f.completed && bound > 0 && arrival.since(f.began) <= bound
}

func (f *flight[V]) isUnattended() bool { return f.running && f.waiters == 0 }

// begin starts the flight's load on a goroutine that Close waits for. mu must be held, and the
// Cache be open.
func (c *Cache[V]) begin(f *flight[V]) {
	f.began = c.clock()
	f.running = true
	f.space.running[f] = struct{}{}
	if f.waiters == 0 {
		f.space.unattended++
	}
	c.background.Add(1)
	c.workers.run(func() {
		defer c.background.Done()
		o := outcome[V]{err: ErrPanicked} // stands when Load ends the goroutine
		defer func() { c.finish(f, o) }()
		o = c.fly(f)
	})
}

// fly runs the load, returns its outcome, and keeps its panics from the process.
func (c *Cache[V]) fly(f *flight[V]) (o outcome[V]) {
	defer f.cancel()
	defer func() {
		if p := recover(); p != nil {
			o = outcome[V]{err: fmt.Errorf("%w with a %T", ErrPanicked, p)}
		}
	}()
	value, err := f.load()
	if err != nil {
		return c.failure(f.key, err, f.began, &f.policy)
	}
	return outcome[V]{entry: newCopy(f.key, value, c.size(value), f.began, c.expiresAt(value),
		&f.policy)}
}

// failure is the outcome of a load that began at began and ended in err.
func (c *Cache[V]) failure(key Key, err error, began instant, p *Policy) outcome[V] {
	o := outcome[V]{err: err, class: c.classify(err)}
	if o.class == ClassAbsent || o.class == ClassDenied {
		o.entry = newAbsence[V](key, &absence{err, o.class == ClassDenied}, began, p)
	}
	return o
}

// finish hands the outcome to the waiters. It also hands it to the index and the store, unless
// there was a drop or a later flight knows better.
func (c *Cache[V]) finish(f *flight[V], o outcome[V]) {
	c.mu.Lock()
	s := f.space
	if c.closed && o.err != nil {
		o = outcome[V]{err: ErrClosed}
	}
	keep := !f.fenced && !f.completed
	var replaced *entry[V]
	if keep {
		replaced = s.settle(f.key, o, c.clock())
	}
	if !f.fenced {
		c.depart(f, o)
	}
	if o.class == ClassOutage {
		f.standIn = s.entry(f.key)
	}
	delete(s.running, f)
	if f.waiters == 0 {
		s.unattended--
	}
	if !f.completed {
		f.complete(o)
	}
	c.release(s)
	c.mu.Unlock()

	if keep {
		c.publish(o, replaced)
	}
}

// complete answers the waiters. mu must be held.
func (f *flight[V]) complete(o outcome[V]) {
	f.completed = true
	f.outcome = o
	f.space.waiting -= f.waiters
	close(f.done)
}

// overtake answers those who wait for a running flight with what one that began later has found.
// The flight's own result is then of no use. mu must be held.
func (f *flight[V]) overtake(o outcome[V]) {
	if f.completed {
		return
	}
	f.complete(o)
	if f.waiters > 0 {
		f.waiters = 0
		f.space.unattended++
	}
}

// join adds a waiter. mu must be held.
func (f *flight[V]) join() {
	if f.isUnattended() {
		f.space.unattended--
	}
	f.waiters++
	f.space.waiting++
}

// leave removes a waiter. A running flight continues; a queued one without waiters is called off.
func (c *Cache[V]) leave(f *flight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.completed {
		return
	}
	f.waiters--
	f.space.waiting--
	switch {
	case f.waiters > 0:
	case f.running:
		f.space.unattended++
	default:
		f.space.flights[f.key].queued = nil
		f.cancel()
	}
}

// settle makes the outcome what is known of the key, and returns the entry that it replaces. mu
// must be held.
func (s *space[V]) settle(key Key, o outcome[V], now instant) (replaced *entry[V]) {
	if !o.isFinal() {
		if kept := s.entry(key); kept != nil {
			kept.postponeRefresh(now)
		}
		return nil
	}
	if o.entry != nil && o.entry.left(now) <= 0 {
		return s.setEntry(key, nil)
	}
	return s.setEntry(key, o.entry)
}

// publish brings the store in line with what settle has put into the index. mu must not be held.
func (c *Cache[V]) publish(o outcome[V], replaced *entry[V]) {
	if o.entry != nil && o.entry.generation != nil { // settle has put it into the index
		if c.store.put(o.entry, c.clock()) {
			return // in the replaced one's place
		}
		c.forget(o.entry)
	}
	if replaced != nil {
		c.store.remove([]*entry[V]{replaced})
	}
}
