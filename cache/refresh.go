package cache

import "context"

// refresh loads the entry's key in the background, unless a refresh is running, failed a moment
// ago, or has no room.
func (c *Cache[V]) refresh(ctx context.Context, l Lookup[V], e *entry[V], arrival instant) {
	if !e.claimRefresh(arrival) {
		return
	}
	if l.Admit != nil && l.Admit(l.Key) != nil || !c.launchRefresh(ctx, l, e) {
		e.postponeRefresh(c.clock())
	}
}

// launchRefresh begins a flight without waiters. Its outcome releases or replaces the entry.
func (c *Cache[V]) launchRefresh(ctx context.Context, l Lookup[V], e *entry[V]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.spaces[l.Key.Space]
	if c.closed || s.entry(l.Key) != e || s.flights[l.Key].isBusy() ||
		s.isFull(l.Policy.MaxWaiting, nil) {
		return false
	}
	c.launch(newFlight(ctx, s, l), nil)
	if l.Refreshing != nil {
		l.Refreshing()
	}
	return true
}
