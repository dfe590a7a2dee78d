package cache

import "iter"

// space is the index of one Key.Space: its entries, its flights, and how many callers wait. It
// exists while it has any of them. Cache.mu guards all of it, except that DropSpace takes the old
// index away for itself.
type space[V any] struct {
	generation *generation // never nil
	index      index[V]
	copies     int // names that have a copy

	flights map[Key]*flights[V] // those that new callers may meet
	// every flight that has begun and not finished, fenced ones too
	running    map[*flight[V]]struct{}
	waiting    int // callers
	unattended int // running flights with no waiter
}

// index holds the entries of a space. Most names have one entry, of version 0, and pay for no map
// of their own.
type index[V any] struct {
	zero   map[string]*entry[V]    // those of version 0, by Key.Name
	others map[string]*versions[V] // the others, by Key.Name
}

// versions are the entries of one name. They exist while there is one.
type versions[V any] struct {
	entries map[uint32]*entry[V] // by Key.Version, which is not 0
	copies  int                  // entries that are copies
}

func newIndex[V any]() index[V] {
	return index[V]{zero: make(map[string]*entry[V]), others: make(map[string]*versions[V])}
}

func (x *index[V]) add(e *entry[V]) {
	if e.version == 0 {
		x.zero[e.name] = e
		return
	}
	v := x.others[e.name]
	if v == nil {
		v = &versions[V]{entries: make(map[uint32]*entry[V], 1)}
		x.others[e.name] = v
	}
	v.entries[e.version] = e
	if e.isCopy() {
		v.copies++
	}
}

func (x *index[V]) remove(e *entry[V]) {
	if e.version == 0 {
		delete(x.zero, e.name)
		return
	}
	v := x.others[e.name]
	if e.isCopy() {
		v.copies--
	}
	if delete(v.entries, e.version); len(v.entries) == 0 {
		delete(x.others, e.name)
	}
}

// of yields the entries of a name. They may be removed meanwhile.
func (x *index[V]) of(name string) iter.Seq[*entry[V]] {
	return func(yield func(*entry[V]) bool) {
		if e := x.zero[name]; e != nil && !yield(e) {
			return
		}
		v := x.others[name]
		if v == nil {
			return
		}
		for _, e := range v.entries {
			if !yield(e) {
				return
			}
		}
	}
}

// all yields every entry. They may be removed meanwhile.
func (x *index[V]) all(yield func(*entry[V]) bool) {
	for _, e := range x.zero {
		if !yield(e) {
			return
		}
	}
	for _, v := range x.others {
		for _, e := range v.entries {
			if !yield(e) {
				return
			}
		}
	}
}

// hasCopy reports whether any entry of the name is a copy.
func (x *index[V]) hasCopy(name string) bool {
	if e := x.zero[name]; e != nil && e.isCopy() {
		return true
	}
	v := x.others[name]
	return v != nil && v.copies > 0
}

// len is about how many entries there are: names with several count once or twice.
func (x *index[V]) len() int { return len(x.zero) + len(x.others) }

// names yields every name that has a flight or an entry; a name may come several times. The flights
// come first, because a flight that ends meanwhile leaves an entry, which is then still to come.
func (s *space[V]) names(yield func(string) bool) {
	for key := range s.flights {
		if !yield(key.Name) {
			return
		}
	}
	for name := range s.index.zero {
		if !yield(name) {
			return
		}
	}
	for name := range s.index.others {
		if !yield(name) {
			return
		}
	}
}

func newSpace[V any](name string) *space[V] {
	return &space[V]{
		generation: &generation{space: name}, index: newIndex[V](),
		flights: make(map[Key]*flights[V]), running: make(map[*flight[V]]struct{}),
	}
}

func (s *space[V]) name() string { return s.generation.space }

// spaceOf returns the space, and makes it first if necessary. mu must be held.
func (c *Cache[V]) spaceOf(name string) *space[V] {
	s := c.spaces[name]
	if s == nil {
		s = newSpace[V](name)
		c.spaces[name] = s
	}
	return s
}

// release forgets a space in which nothing is left. mu must be held.
func (c *Cache[V]) release(s *space[V]) {
	empty := s.index.len() == 0 && len(s.flights) == 0 && len(s.running) == 0 && s.waiting == 0
	if empty && c.spaces[s.name()] == s {
		delete(c.spaces, s.name())
	}
}

// entry returns what is known of the key; nil when nothing is. A nil space knows nothing.
func (s *space[V]) entry(key Key) *entry[V] {
	if s == nil {
		return nil
	}
	if key.Version == 0 {
		return s.index.zero[key.Name]
	}
	if v := s.index.others[key.Name]; v != nil {
		return v.entries[key.Version]
	}
	return nil
}

// setEntry makes e, which may be nil, what is known of the key. It drops and returns the entry that
// was there.
func (s *space[V]) setEntry(key Key, e *entry[V]) (replaced *entry[V]) {
	if replaced = s.entry(key); replaced != nil {
		replaced.dropped.Store(true)
		s.index.remove(replaced)
	}
	hasAnother := s.index.hasCopy(key.Name)
	if replaced.isCopy() && !hasAnother {
		s.copies--
	}
	if e.isCopy() && !hasAnother {
		s.copies++
	}
	if e != nil {
		e.generation = s.generation
		s.index.add(e)
	}
	return replaced
}

// isFull reports whether MaxWaiting leaves no room for one more caller, who would wait for f or,
// when f is nil, for a new flight.
func (s *space[V]) isFull(maxWaiting int, f *flight[V]) bool {
	more := 1
	if f != nil && f.isUnattended() {
		more = 0 // takes the place that the flight holds
	}
	return maxWaiting > 0 && s.waiting+s.unattended+more > maxWaiting
}

// forget removes an entry that has left the store from the index.
func (c *Cache[V]) forget(e *entry[V]) {
	if e.isDropped() {
		return // and so not in the index
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := e.key()
	if s := c.spaces[key.Space]; s.entry(key) == e {
		s.setEntry(key, nil)
		c.release(s)
	}
	e.dropped.Store(true)
}

// takeAny drops entries, in any order, until they add up to the given cost, and returns them.
func (c *Cache[V]) takeAny(bytes int64) (taken []*entry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spaces {
		for e := range s.index.all {
			if bytes <= 0 {
				return taken
			}
			bytes -= int64(e.cost)
			taken = append(taken, s.setEntry(e.key(), nil))
		}
		c.release(s)
	}
	return taken
}
