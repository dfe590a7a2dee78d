package cache

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// flight is one load. At most one per key is found by new callers (record.flights), with at most one queued behind it
// for callers who need a load that begins after they arrived. A flight goes on when all its callers have left.
type flight[V any] struct {
	space  *space[V]
	key    Key
	policy Policy // of the Get that caused it
	load   func() (V, error)
	joined func(waiter context.Context) // tells that a Get waits which did not cause the flight
	cancel context.CancelFunc           // ends what load runs under

	// Guarded by Cache.mu. began is set before the flight's goroutine starts, and never changes.
	began    time.Time
	running  bool // has begun; until then it is queued, as the next of the flight that new callers find
	finished bool
	fenced   bool // a drop came after it was asked for: it answers its waiters and leaves no trace
	waiters  int
	next     *flight[V]

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

// newFlight returns a flight that has not begun.
func newFlight[V any](ctx context.Context, s *space[V], l Lookup[V]) *flight[V] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // fly, leave or beginNext calls cancel
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
func (f *flight[V]) readmit(admit func() error) {
	if admit == nil {
		return
	}
	load := f.load
	f.load = func() (V, error) {
		if err := admit(); err != nil {
			var none V
			return none, err
		}
		return load()
	}
}

// mayAnswer reports whether the running flight is recent enough for a Get that began at arrival.
func (f *flight[V]) mayAnswer(arrival time.Time, l *Lookup[V]) bool {
	bound := tighten(l.Policy.TTL, l.MaxAge)
	return bound > 0 && arrival.Sub(f.began) <= bound
}

func (f *flight[V]) isUnattended() bool { return f.running && f.waiters == 0 }

// begin starts the flight's load on a goroutine that Close waits for. mu must be held, and the Cache be open.
func (c *Cache[V]) begin(f *flight[V]) {
	f.began = time.Now()
	f.running = true
	f.space.running[f] = struct{}{}
	if f.waiters == 0 {
		f.space.unattended++
	}
	c.background.Go(func() {
		defer c.finish(f) // even when Load ends the goroutine
		c.fly(f)
	})
}

// fly runs the load and keeps its panics from the process.
func (c *Cache[V]) fly(f *flight[V]) {
	f.outcome.err = ErrPanicked // stands when Load ends the goroutine
	defer f.cancel()
	defer func() {
		if p := recover(); p != nil {
			f.outcome = outcome[V]{err: fmt.Errorf("%w with a %T", ErrPanicked, p)}
		}
	}()
	value, err := f.load()
	if err != nil {
		f.outcome = c.failure(f.key, err, f.began)
		return
	}
	f.outcome = outcome[V]{entry: newCopy(f.key, value, c.size(value), f.began)}
}

// failure is the outcome of a load that began at began and ended in err.
func (c *Cache[V]) failure(key Key, err error, began time.Time) outcome[V] {
	o := outcome[V]{err: err, class: c.classify(err)}
	if o.class == ClassAbsent {
		o.entry = newAbsence[V](key, err, began)
	}
	return o
}

// finish hands the outcome to the waiters and, unless the flight is fenced, to the index and the store.
func (c *Cache[V]) finish(f *flight[V]) {
	c.mu.Lock()
	s := f.space
	if c.closed && f.outcome.err != nil {
		f.outcome = outcome[V]{err: ErrClosed}
	}
	var replaced *entry[V]
	if !f.fenced {
		replaced = s.settle(f.key, f.outcome, &f.policy)
		c.beginNext(f)
	}
	if f.outcome.class == ClassOutage {
		f.standIn = s.entry(f.key)
	}
	delete(s.running, f)
	if f.waiters == 0 {
		s.unattended--
	}
	f.land()
	c.tidy(s)
	fenced := f.fenced
	c.mu.Unlock()

	if !fenced {
		c.publish(f.outcome, replaced, &f.policy)
	}
}

// land ends the flight for its waiters. mu must be held.
func (f *flight[V]) land() {
	f.finished = true
	f.space.waiting -= f.waiters
	close(f.done)
}

// beginNext gives the place of a flight that has ended to the one queued behind it. mu must be held.
func (c *Cache[V]) beginNext(f *flight[V]) {
	next := f.next
	f.next = nil
	if next != nil && c.closed {
		next.cancel()
		next.outcome = outcome[V]{err: ErrClosed}
		next.land()
		next = nil
	}
	f.space.setFlight(f.key, next)
	if next != nil {
		c.begin(next)
	}
}

// fence keeps the flight, and the one queued behind it, from everybody who arrives later. The queued one begins at
// once: nobody is left whom it would have to follow. mu must be held, and the Cache be open.
func (c *Cache[V]) fence(f *flight[V]) {
	f.fenced = true
	f.space.setFlight(f.key, nil)
	if next := f.next; next != nil {
		f.next = nil
		next.fenced = true
		c.begin(next)
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
	if f.finished {
		return
	}
	f.waiters--
	f.space.waiting--
	switch {
	case f.waiters > 0:
	case f.running:
		f.space.unattended++
	default:
		f.space.flight(f.key).next = nil
		f.cancel()
	}
}

// settle makes the outcome what is known of the key, and returns the entry that it replaced. mu must be held.
func (s *space[V]) settle(key Key, o outcome[V], p *Policy) (replaced *entry[V]) {
	if o.err != nil && o.class != ClassAbsent && o.class != ClassDenied {
		if kept := s.entry(key); kept != nil {
			kept.postponeRefresh(time.Now())
		}
		return nil
	}
	if o.entry != nil && o.entry.retention(p) <= 0 {
		return s.setEntry(key, nil)
	}
	return s.setEntry(key, o.entry)
}

// publish brings the store in line with what settle has put into the index. mu must not be held.
func (c *Cache[V]) publish(o outcome[V], replaced *entry[V], p *Policy) {
	if o.entry != nil && o.entry.retention(p) > 0 {
		if c.store.put(o.entry, o.entry.retention(p)) {
			return // in place of the replaced one
		}
		c.forget(o.entry)
	}
	if replaced != nil {
		c.store.remove([]*entry[V]{replaced})
	}
}
