package cache

import "slices"

// maxRunning bounds the running loads of a key. The second is for callers for whom the first began
// too early and may hang.
const maxRunning = 2

// flights are the flights of one key that new callers may join. They exist while one of them runs.
// A drop removes the running ones: later callers must not wait for them, so they no longer count
// against maxRunning. Cache.mu guards all of it.
type flights[V any] struct {
	running []*flight[V] // in the order in which they began
	// begins when one of the running has ended; nil unless maxRunning of them run
	queued *flight[V]
	places [maxRunning]*flight[V] // what running is kept in
}

// find returns the flight that a Get which began at arrival may wait for; nil when a new one is
// needed.
func (fs *flights[V]) find(arrival instant, l *Lookup[V]) *flight[V] {
	if fs == nil {
		return nil
	}
	if newest := fs.running[len(fs.running)-1]; newest.mayAnswer(arrival, l) {
		return newest
	}
	return fs.queued
}

// isBusy reports whether a refresh has no place, or is already running.
func (fs *flights[V]) isBusy() bool {
	return fs != nil && (len(fs.running) == maxRunning || !fs.running[0].completed)
}

// launch begins a new flight, or queues it when maxRunning of its key run. mu must be held, and the
// Cache be open.
func (c *Cache[V]) launch(f *flight[V], admit func(Key) error) {
	fs := f.space.flights[f.key]
	switch {
	case fs == nil:
		fs = &flights[V]{}
		fs.running = fs.places[:0]
		f.space.flights[f.key] = fs
	case len(fs.running) == maxRunning:
		f.readmit(admit)
		fs.queued = f
		return
	}
	fs.running = append(fs.running, f)
	c.begin(f)
}

// depart removes a flight that ended with o and is not fenced. What o found answers all who wait
// for earlier flights. The queued one begins. mu must be held.
func (c *Cache[V]) depart(f *flight[V], o outcome[V]) {
	fs := f.space.flights[f.key]
	place := slices.Index(fs.running, f)
	if o.isFinal() && !f.completed {
		for _, earlier := range fs.running[:place] {
			earlier.overtake(o)
		}
	}
	fs.running = slices.Delete(fs.running, place, place+1)
	c.beginQueued(f.space, f.key, fs)
}

// fence hides the running flights of a key from later callers. The queued one has not begun, so it
// is not affected, and begins at once. mu must be held, and the Cache be open.
func (c *Cache[V]) fence(s *space[V], key Key, fs *flights[V]) {
	for _, f := range fs.running {
		f.fenced = true
	}
	fs.running = fs.places[:0]
	c.beginQueued(s, key, fs)
}

// beginQueued begins the queued flight, which now has a place, and forgets flights when none is
// left. mu must be held.
func (c *Cache[V]) beginQueued(s *space[V], key Key, fs *flights[V]) {
	next := fs.queued
	fs.queued = nil
	switch {
	case next == nil:
	case c.closed:
		next.cancel()
		next.complete(outcome[V]{err: ErrClosed})
	default:
		fs.running = append(fs.running, next)
		c.begin(next)
	}
	if len(fs.running) == 0 {
		delete(s.flights, key)
	}
}
