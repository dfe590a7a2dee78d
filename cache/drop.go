package cache

import (
	"iter"
	"slices"
)

// dropChunk is how many names DropMatching looks at before it lets go of the lock for a moment.
const dropChunk = 1024

// Drop drops every version of the name, and what is remembered of its absence. It returns 1 when a
// version was cached, else 0: remembered absence does not count. A Get that begins after Drop has
// returned is never answered from a load that began before; a running load goes on for those who
// wait for it. On a closed Cache it does nothing.
func (c *Cache[V]) Drop(space, name string) int {
	count, dropped := c.dropNames(c.openSpace(space), []string{name}, nil)
	c.giveBack(len(dropped), slices.Values(dropped))
	return count
}

// DropMatching is Drop for every name in the space for which match returns true. It returns how
// many of them were cached. It calls match from its own goroutine, with no lock held, at least once
// for each name that is cached or being loaded when it begins.
func (c *Cache[V]) DropMatching(space string, match func(name string) bool) int {
	s := c.openSpace(space)
	if s == nil {
		return 0
	}
	count := 0
	var dropped []*entry[V]
	c.eachName(s, func(names []string) {
		matching := names[:0]
		for _, name := range names {
			if match(name) {
				matching = append(matching, name)
			}
		}
		var n int
		n, dropped = c.dropNames(s, matching, dropped)
		count += n
	})
	c.giveBack(len(dropped), slices.Values(dropped))
	return count
}

// DropSpace is Drop for every name in the space. It returns how many of them were cached. It takes
// no longer when they are many: their memory is returned in the background.
func (c *Cache[V]) DropSpace(space string) int {
	c.mu.Lock()
	s := c.spaces[space]
	if s == nil || c.closed {
		c.mu.Unlock()
		return 0
	}
	s.generation.dropped.Store(true) // from now on no entry of the space answers anybody
	count, dropped := s.copies, s.index
	s.generation, s.index, s.copies = &generation{space: space}, newIndex[V](), 0
	for key, fs := range s.flights {
		c.fence(s, key, fs)
	}
	c.release(s)
	c.mu.Unlock()

	c.giveBack(dropped.len(), dropped.all)
	return count
}

// giveBack returns the memory of about n dropped entries. It returns the memory of many in the
// background; until then they still count against MaxBytes.
func (c *Cache[V]) giveBack(n int, dropped iter.Seq[*entry[V]]) {
	if n <= removeChunk {
		c.store.remove(slices.Collect(dropped))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.background.Go(func() { c.store.removeAll(dropped) })
	}
}

// openSpace returns the space; nil when there is none or the Cache is closed.
func (c *Cache[V]) openSpace(name string) *space[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	return c.spaces[name]
}

// eachName calls visit, without mu, with chunks of the names in the space; a name may come several
// times. It leaves out no name that has an entry all along, and none that is being loaded when it
// begins. visit may change the slice.
func (c *Cache[V]) eachName(s *space[V], visit func(names []string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	chunk := make([]string, 0, dropChunk)
	// Others may change the maps while visit runs. The language defines that for a range loop,
	// given the lock.
	for name := range s.names {
		if chunk = append(chunk, name); len(chunk) == dropChunk {
			c.unlocked(func() { visit(chunk) })
			chunk = chunk[:0]
		}
	}
	c.unlocked(func() { visit(chunk) })
}

// unlocked runs f with mu released, even if f panics.
func (c *Cache[V]) unlocked(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

// dropNames drops the names from the index and fences their flights. It returns how many of them
// were cached, and dropped with their entries appended. s may be nil.
func (c *Cache[V]) dropNames(s *space[V], names []string, dropped []*entry[V]) (int, []*entry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == nil || c.closed {
		return 0, dropped
	}
	c.fenceNames(s, names)
	count := 0
	for _, name := range names {
		if s.index.hasCopy(name) {
			count++
		}
		for e := range s.index.of(name) {
			dropped = append(dropped, s.setEntry(e.key(), nil))
		}
	}
	c.release(s)
	return count, dropped
}

// fenceNames fences the flights of the names, in every version. mu must be held, and the Cache be
// open.
func (c *Cache[V]) fenceNames(s *space[V], names []string) {
	if len(s.flights) == 0 {
		return
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	for key, fs := range s.flights {
		if wanted[key.Name] {
			c.fence(s, key, fs)
		}
	}
}
