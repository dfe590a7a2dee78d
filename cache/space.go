package cache

// space is the index of one Key.Space: every entry and every flight in it, and how many wait. It exists while there is
// any of them. All of it is guarded by Cache.mu, except that a map taken out by DropSpace belongs to the taker.
type space[V any] struct {
	name       string
	generation *generation
	records    map[string]*record[V] // by Key.Name
	copies     int                   // records that hold a copy

	running    map[*flight[V]]struct{} // every flight that has begun and not finished, fenced ones too
	waiting    int                     // callers
	unattended int                     // running flights with no waiter
}

// record is what the index holds of one name. It exists while it holds something.
type record[V any] struct {
	entries map[uint32]*entry[V]  // by Key.Version
	flights map[uint32]*flight[V] // those that may answer new callers, by Key.Version; nil until there is one
	copies  int                   // entries that are copies
}

func newSpace[V any](name string) *space[V] {
	return &space[V]{
		name: name, generation: new(generation),
		records: make(map[string]*record[V]), running: make(map[*flight[V]]struct{}),
	}
}

// spaceOf returns the space, made when there is none. mu must be held.
func (c *Cache[V]) spaceOf(name string) *space[V] {
	s := c.spaces[name]
	if s == nil {
		s = newSpace[V](name)
		c.spaces[name] = s
	}
	return s
}

// tidy lets go of a space in which nothing is left. mu must be held.
func (c *Cache[V]) tidy(s *space[V]) {
	if len(s.records) == 0 && len(s.running) == 0 && s.waiting == 0 && c.spaces[s.name] == s {
		delete(c.spaces, s.name)
	}
}

// entry returns what is known of the key; nil when nothing is. A nil space knows nothing.
func (s *space[V]) entry(key Key) *entry[V] {
	if s == nil {
		return nil
	}
	if r := s.records[key.Name]; r != nil {
		return r.entries[key.Version]
	}
	return nil
}

// flight returns the running flight that may answer new callers; nil when there is none.
func (s *space[V]) flight(key Key) *flight[V] {
	if r := s.records[key.Name]; r != nil {
		return r.flights[key.Version]
	}
	return nil
}

// setEntry makes e, which may be nil, what is known of the key. The entry that it replaces is dropped and returned.
func (s *space[V]) setEntry(key Key, e *entry[V]) (replaced *entry[V]) {
	replaced = s.entry(key)
	if replaced == nil && e == nil {
		return nil
	}
	r := s.record(key.Name)
	had := r.copies > 0
	if replaced != nil {
		replaced.dropped.Store(true)
		delete(r.entries, key.Version)
		if replaced.isCopy() {
			r.copies--
		}
	}
	if e != nil {
		e.generation = s.generation
		r.entries[key.Version] = e
		if e.isCopy() {
			r.copies++
		}
	}
	if has := r.copies > 0; has && !had {
		s.copies++
	} else if had && !has {
		s.copies--
	}
	s.release(key.Name, r)
	return replaced
}

// setFlight makes f, which may be nil, the flight that new callers find.
func (s *space[V]) setFlight(key Key, f *flight[V]) {
	if f == nil && s.flight(key) == nil {
		return
	}
	r := s.record(key.Name)
	if f == nil {
		delete(r.flights, key.Version)
		s.release(key.Name, r)
		return
	}
	if r.flights == nil {
		r.flights = make(map[uint32]*flight[V], 1)
	}
	r.flights[key.Version] = f
}

func (s *space[V]) record(name string) *record[V] {
	r := s.records[name]
	if r == nil {
		r = &record[V]{entries: make(map[uint32]*entry[V], 1)}
		s.records[name] = r
	}
	return r
}

func (s *space[V]) release(name string, r *record[V]) {
	if len(r.flights) == 0 {
		r.flights = nil
		if len(r.entries) == 0 {
			delete(s.records, name)
		}
	}
}

// isFull reports whether one more caller, who would wait for f or, when f is nil, for a new flight, is too many.
func (s *space[V]) isFull(maxWaiting int, f *flight[V]) bool {
	more := 1
	if f != nil && f.isUnattended() {
		more = 0 // takes the place that the flight holds
	}
	return maxWaiting > 0 && s.waiting+s.unattended+more > maxWaiting
}

// forget takes an entry that has left the store out of the index.
func (c *Cache[V]) forget(e *entry[V]) {
	if e.isDropped() {
		return // and so not in the index
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.spaces[e.key.Space]; s.entry(e.key) == e {
		s.setEntry(e.key, nil)
		c.tidy(s)
	}
	e.dropped.Store(true)
}

// takeAny drops entries that cost so many bytes in sum, whichever come first, and returns them.
func (c *Cache[V]) takeAny(bytes int64) (taken []*entry[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spaces {
		for _, r := range s.records {
			for _, e := range r.entries {
				if bytes <= 0 {
					return taken
				}
				bytes -= e.cost
				taken = append(taken, s.setEntry(e.key, nil))
			}
		}
		c.tidy(s)
	}
	return taken
}
