package cache

import (
	"context"
	"fmt"
	"strings"
)

// flight is one load. It goes on when all its callers have left.
type flight[V any] struct {
	space  *space[V]
	key    Key
	policy Policy // of the Get that caused it
	load   func() (V, error)
	joined func(waiter context.Context) // tells that a Get waits which did not cause the flight
	cancel context.CancelFunc           // ends what load runs under

	// Guarded by Cache.mu. began is set before the flight's goroutine starts, and never changes.
	began   instant
	running bool // has begun; until then it is queued
	fenced  bool // a drop came after it began: it answers its waiters and leaves no trace
	landed  bool // its waiters have their outcome; it still runs when a flight that began later has ended first
	waiters int

	// done is closed when what follows is set for good.
	done    chan struct{}
	outcome outcome[V]
	standIn *entry[V] // during an outage: what was known of the key when the flight ended; may be nil
}

// outcome is what became of a load, or of the attempt to be admitted to one.
type outcome[V any] struct {
	entry *entry[V] // the value or the absence to keep; nil when there is neither
	err   error
	class Class // of err
}

// isFinal reports whether the outcome says what there is. An outage, for example, does not.
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

// ownKey returns the key with a name of its own: a caller's may be a part of a text that is better not kept.
func ownKey(key Key) Key {
	key.Name = strings.Clone(key.Name)
	return key
}

// readmit makes a flight that has to queue ask Admit again when its turn comes: by then there may be an outage.
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

// mayAnswer reports whether the running flight is recent enough for a Get that began at arrival. What a flight that has
// landed will bring is older than what is known.
func (f *flight[V]) mayAnswer(arrival instant, l *Lookup[V]) bool {
	bound := tighten(l.Policy.TTL, l.MaxAge)
	return !f.landed && bound > 0 && arrival.since(f.began) <= bound
}

func (f *flight[V]) isUnattended() bool { return f.running && f.waiters == 0 }

// begin starts the flight's load on a goroutine that Close waits for. mu must be held, and the Cache be open.
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

// fly runs the load, returns what became of it, and keeps its panics from the process.
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
	return outcome[V]{entry: newCopy(f.key, value, c.size(value), f.began, c.expiresAt(value), &f.policy)}
}

// failure is the outcome of a load that began at began and ended in err.
func (c *Cache[V]) failure(key Key, err error, began instant, p *Policy) outcome[V] {
	o := outcome[V]{err: err, class: c.classify(err)}
	if o.class == ClassAbsent || o.class == ClassDenied {
		o.entry = newAbsence[V](key, &absence{err, o.class == ClassDenied}, began, p)
	}
	return o
}

// finish hands the outcome to the waiters and, unless there was a drop or a later flight has said more, to the index and
// the store.
func (c *Cache[V]) finish(f *flight[V], o outcome[V]) {
	c.mu.Lock()
	s := f.space
	if c.closed && o.err != nil {
		o = outcome[V]{err: ErrClosed}
	}
	keep := !f.fenced && !f.landed
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
	if !f.landed {
		f.land(o)
	}
	c.tidy(s)
	c.mu.Unlock()

	if keep {
		c.publish(o, replaced)
	}
}

// land answers the waiters. mu must be held.
func (f *flight[V]) land(o outcome[V]) {
	f.landed = true
	f.outcome = o
	f.space.waiting -= f.waiters
	close(f.done)
}

// overtake answers those who wait for a running flight with what one that began later has found. What the flight itself
// will find is of no use to anybody. mu must be held.
func (f *flight[V]) overtake(o outcome[V]) {
	if f.landed {
		return
	}
	f.land(o)
	if f.waiters > 0 {
		f.waiters = 0
		f.space.unattended++
	}
}

// board adds a waiter. mu must be held.
func (f *flight[V]) board() {
	if f.isUnattended() {
		f.space.unattended--
	}
	f.waiters++
	f.space.waiting++
}

// leave takes a waiter off the flight, which goes on if it is running and is called off if it is queued for nobody.
func (c *Cache[V]) leave(f *flight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.landed {
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

// settle makes the outcome what is known of the key, and returns the entry that it replaced. mu must be held.
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
			return // in place of the replaced one
		}
		c.forget(o.entry)
	}
	if replaced != nil {
		c.store.remove([]*entry[V]{replaced})
	}
}
