package cache

import "context"

// Get answers the lookup from the cache or by a load. Errors: the load's own, or the same one
// remembered; Admit's; ctx's when it ends while the Get waits (the load continues); ErrOverloaded;
// ErrClosed; ErrPanicked. A cached answer is returned whatever the state of ctx, without an
// allocation or a lock shared with loads.
func (c *Cache[V]) Get(ctx context.Context, l Lookup[V]) (Result[V], error) {
	arrival := c.clock()
	e, open := c.fresh(ctx, &l, arrival)
	switch {
	case !open:
		return Result[V]{}, ErrClosed
	case e == nil:
		return c.miss(ctx, l, arrival)
	}
	return e.answer(SourceCache, &l.Policy)
}

// GetCached is Get for a caller that cannot wait now. Where Get would wait for a load, or fail, it
// returns false and does nothing. A remembered absence is an answer, and comes with its error.
func (c *Cache[V]) GetCached(ctx context.Context, l Lookup[V]) (Result[V], bool, error) {
	e, _ := c.fresh(ctx, &l, c.clock())
	if e == nil {
		return Result[V]{}, false, nil
	}
	found, err := e.answer(SourceCache, &l.Policy)
	return found, true, err
}

// fresh returns the entry that answers the lookup at once, nil when there is none; and whether the
// cache is open.
func (c *Cache[V]) fresh(ctx context.Context, l *Lookup[V],
	arrival instant) (e *entry[V], open bool) {
	e, open = c.store.get(l.Key)
	if !open || e == nil || !e.isFresh(arrival, l) {
		return nil, open
	}
	if e.isRefreshDue(arrival, &l.Policy) {
		c.refresh(ctx, *l, e, arrival)
	}
	return e, true
}

// miss answers what the store could not.
func (c *Cache[V]) miss(ctx context.Context, l Lookup[V], arrival instant) (Result[V], error) {
	var refusal error
	if l.Admit != nil {
		refusal = l.Admit(l.Key)
	}
	f, e, err := c.join(ctx, l, arrival, refusal)
	switch {
	case e != nil:
		return e.answer(SourceCache, &l.Policy)
	case err != nil:
		return Result[V]{}, err
	case f == nil:
		return c.refused(&l, refusal)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		c.leave(f)
		return Result[V]{}, ctx.Err()
	}
	if f.outcome.err != nil {
		return answerFailure(f.outcome, f.standIn, c.clock(), &l)
	}
	return f.outcome.entry.answer(SourceLoad, &l.Policy)
}

// join returns the flight to wait for, with the caller as a waiter; or the fresh entry that the
// store does not have yet; or nothing, when a flight is needed and Admit refused the caller.
func (c *Cache[V]) join(
	ctx context.Context, l Lookup[V], arrival instant, refusal error,
) (*flight[V], *entry[V], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	// A value just loaded is in the index before it is in the store.
	if e := c.spaces[l.Key.Space].entry(l.Key); e != nil && e.isFresh(arrival, &l) {
		return nil, e, nil
	}
	if err := ctx.Err(); err != nil || refusal != nil {
		return nil, nil, err
	}
	s := c.spaceOf(l.Key.Space)
	f := s.flights[l.Key].find(arrival, &l)
	if s.isFull(l.Policy.MaxWaiting, f) {
		return nil, nil, ErrOverloaded
	}
	if f == nil {
		f = newFlight(ctx, s, l)
		c.launch(f, l.Admit)
	} else {
		f.joined(ctx)
	}
	f.join()
	return f, nil, nil
}

// refused answers a caller whom Admit refused with err.
func (c *Cache[V]) refused(l *Lookup[V], err error) (Result[V], error) {
	now := c.clock()
	o := c.failure(ownKey(l.Key), err, now, &l.Policy)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Result[V]{}, ErrClosed
	}
	s := c.spaceOf(l.Key.Space)
	replaced := s.settle(l.Key, o, now)
	standIn := s.entry(l.Key)
	c.release(s)
	c.mu.Unlock()

	c.publish(o, replaced)
	return answerFailure(o, standIn, now, l)
}

// answerFailure returns the outcome's error or, in an outage, the entry known of the key if it may
// stand in.
func answerFailure[V any](o outcome[V], standIn *entry[V], now instant,
	l *Lookup[V]) (Result[V], error) {
	if o.class == ClassOutage && standIn != nil && standIn.isServable(now, l) {
		return standIn.answer(SourceStale, &l.Policy)
	}
	return Result[V]{}, o.err
}
