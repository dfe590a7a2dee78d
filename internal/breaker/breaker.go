// Package breaker is a circuit breaker for many kinds of calls to one service. What fails alone
// stays alone: a key that fails is retried at its own pace and does not hold up the others; neither
// does a group of keys that fail together. A failure that means the whole service is out opens the
// circuit for all, and the first good answer closes it.
//
// The usual breaker has one circuit for a service. But a quota on one mount, or one broken path,
// would then take every other secret away, which is worse than the outage.
package breaker

import (
	"maps"
	"sync"
	"time"
)

const (
	// doubtFor is how long after a good answer a failure of the whole service counts as the key's
	// alone, because others may still be served.
	doubtFor = 2 * time.Second
	// manyKeys is how many keys of a group must fail in a row, without a good answer between,
	// before that counts as a failure of the group. Groups that fail together stay apart: one of
	// them may recover before the others.
	manyKeys = 5
	// maxKeys and maxGroups bound the memory: keys come from callers.
	maxKeys, maxGroups = 1024, 256
)

// Key identifies what a call is about.
type Key struct {
	// Group is shared by keys that may fail together; Name is the key's own.
	Group, Name string
}

// Outcome is how a call ended.
type Outcome int

const (
	// Succeeded means that the service did what it was asked, or refused to: it works.
	Succeeded Outcome = iota + 1
	// Failed means that the service answered with a failure that may be the key's, its group's or
	// everybody's.
	Failed
	// FailedAll means that the service answered that it serves nobody.
	FailedAll
	// Silent means that no answer came, and not because of the key: there was no connection, for
	// example.
	Silent
	// TimedOut means that no answer came in time, or only part of one. The key may be the cause.
	TimedOut
	// Abandoned means that the caller gave up first. It says nothing about the service.
	Abandoned
)

// Result is what a call's Done reports to the Breaker.
type Result struct {
	Outcome Outcome
	// Err is the failure, for the callers who are refused because of it. The Breaker does not look
	// at it otherwise.
	Err error
	// Alone means that the failure says nothing about other keys, whatever it is.
	Alone bool
	// RetryAfter is how long the service asks to be left alone; it is honoured up to 8 s. Zero: it
	// did not say.
	RetryAfter time.Duration
}

// OpenError is the error of a refused call.
type OpenError struct {
	// Err is the failure that opened the circuit.
	Err error
	// RetryAfter is how long until a call may be let through.
	RetryAfter time.Duration
	// Trial is closed at the end of a call that may close the circuit, and that is worth waiting
	// for, because the service does answer. Nil: there is none.
	Trial <-chan struct{}
	// Soon means that the service does answer, and that RetryAfter is short enough to wait for.
	Soon bool
}

// Error returns the text of Err.
func (e *OpenError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *OpenError) Unwrap() error { return e.Err }

// Breaker is safe for concurrent use. Make one with New.
type Breaker struct {
	changed func()

	mu     sync.Mutex
	all    circuit             // guarded by mu, as is all that follows
	groups map[string]*circuit // those that have failing keys
	keys   map[Key]*circuit    // those that fail
	// answered is when the last answer came, whatever it said, and served when the last good one
	// did.
	answered, served time.Time
	// failure is the last call's, nil when it succeeded; failedAt is when it failed.
	failure  error
	failedAt time.Time
}

// New returns a Breaker that lets everything through. changed is called after a circuit has opened
// or closed, with no lock held; it must return at once. Nil is allowed.
func New(changed func()) *Breaker {
	if changed == nil {
		changed = func() {}
	}
	return &Breaker{changed: changed, groups: map[string]*circuit{}, keys: map[Key]*circuit{}}
}

// Call is a call that was let through. Call its Done once.
type Call struct {
	breaker *Breaker
	key     Key
	began   time.Time
	trials  [2]*trial // that end with the call; nil where it is none
}

// Began is when the call was let through.
func (c Call) Began() time.Time { return c.began }

// Allow lets a call with the key through, or returns an *OpenError.
func (b *Breaker) Allow(key Key) (Call, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	one, group := b.keys[key], b.groups[key.Group]
	if err := b.refusal(one, group, now); err != nil {
		return Call{}, err
	}
	call := Call{breaker: b, key: key, began: now}
	if one != nil {
		one.healthy.take(now)
	}
	call.trials[0] = group.take(now, one)
	call.trials[1] = b.all.take(now, failing(one, group))
	return call, nil
}

// Check returns what Allow would return now, except for a call that may wait for its turn. It lets
// nothing through.
func (b *Breaker) Check(key Key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refusal(b.keys[key], b.groups[key.Group], time.Now()); err != nil &&
		err.Trial == nil && !err.Soon {
		return err
	}
	return nil
}

// refusal must be called with mu held. One and group may be nil.
func (b *Breaker) refusal(one, group *circuit, now time.Time) *OpenError {
	if err := one.refusal(now, nil); err != nil {
		return err
	}
	if err := group.refusal(now, one); err != nil {
		return err
	}
	return b.all.refusal(now, failing(one, group))
}

// failing returns the failing circuits of a key and of its group; nil for those that are closed.
func failing(one, group *circuit) *circuit {
	if one == nil && group.isOpen() {
		return group
	}
	return one
}

// Done reports to the Breaker how the call ended.
func (c Call) Done(r Result) {
	if c.breaker.settle(c, r) {
		c.breaker.changed()
	}
}

// settle applies the result. It reports whether a circuit opened or closed, or calls began to fail
// or to succeed.
func (b *Breaker) settle(c Call, r Result) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range c.trials {
		one.end()
	}
	switch r.Outcome {
	case Abandoned:
		return false
	case Succeeded:
		return b.succeed(c.key, time.Now())
	case Silent, TimedOut:
		return b.unanswered(c, r, time.Now())
	default:
		return b.answeredBadly(c, r, time.Now())
	}
}

// unanswered must be called with mu held.
func (b *Breaker) unanswered(c Call, r Result, now time.Time) (changed bool) {
	changed = b.noteFailure(r.Err, now)
	switch {
	case r.Alone, b.answered.After(c.began): // somebody else got an answer since the call began
		b.openKey(c.key, r, now)
		return changed
	case b.servedLately(now):
		b.openKey(c.key, r, now)
		return b.openGroup(c.key, r, now) || changed
	case r.Outcome == TimedOut:
		b.openKey(c.key, r, now)
	}
	return b.all.open(r, now) || changed
}

// answeredBadly must be called with mu held.
func (b *Breaker) answeredBadly(c Call, r Result, now time.Time) (changed bool) {
	changed = b.noteFailure(r.Err, now)
	b.answered = now
	if group := b.groups[c.key.Group]; group.isOpen() && group.silent {
		b.closeGroup(c.key.Group)
	}
	if b.all.silent && b.all.isOpen() {
		b.closeAll()
		changed = true
	}
	if r.Outcome == FailedAll && !r.Alone && !b.servedLately(now) {
		return b.all.open(r, now) || changed
	}
	b.openKey(c.key, r, now)
	if r.Alone || r.Outcome == FailedAll && b.served.After(c.began) {
		return changed
	}
	return b.openGroup(c.key, r, now) || changed
}

// servedLately reports whether a good answer came a moment ago, so that others may still be served.
// mu must be held.
func (b *Breaker) servedLately(now time.Time) bool { return now.Sub(b.served) < doubtFor }

// openGroup opens the circuit of a group in which many keys fail. mu must be held.
func (b *Breaker) openGroup(key Key, r Result, now time.Time) (changed bool) {
	group := b.groups[key.Group]
	if group == nil {
		makeRoom(b.groups, maxGroups)
		group = &circuit{}
		b.groups[key.Group] = group
	}
	if !group.fails(key.Name, manyKeys) {
		return false
	}
	r.RetryAfter = 0 // it was the key's
	return group.openForMany(r, now)
}

// succeed must be called with mu held.
func (b *Breaker) succeed(key Key, now time.Time) (changed bool) {
	changed = b.failure != nil || b.all.isOpen()
	b.answered, b.served, b.failure = now, now, nil
	delete(b.keys, key)
	if group := b.groups[key.Group]; group.isOpen() && group.general {
		b.closeGroup(key.Group)
	}
	delete(b.groups, key.Group)
	b.closeAll()
	return changed
}

// closeGroup closes the circuit of a group whose keys failed together. Keys that failed as the
// others did may be tried at once. mu must be held.
func (b *Breaker) closeGroup(name string) {
	delete(b.groups, name)
	for key, one := range b.keys {
		if key.Group == name && one.general {
			delete(b.keys, key)
		}
	}
}

// closeAll closes the circuit of the whole service. Whatever failed as everything did may be tried
// at once. mu must be held.
func (b *Breaker) closeAll() {
	if b.all.isOpen() {
		for key, one := range b.keys {
			if one.general {
				delete(b.keys, key)
			}
		}
		maps.DeleteFunc(b.groups, func(_ string, group *circuit) bool { return group.general })
	}
	b.all = circuit{}
}

// openKey must be called with mu held.
func (b *Breaker) openKey(key Key, r Result, now time.Time) {
	one := b.keys[key]
	if one == nil {
		makeRoom(b.keys, maxKeys)
		one = &circuit{}
		b.keys[key] = one
	}
	if one.open(r, now) && !one.healthy.next.After(now) {
		one.healthy.take(now) // it has just been tried
	}
}

// makeRoom forgets any one key or group when there are too many.
func makeRoom[K comparable, V any](from map[K]V, most int) {
	if len(from) < most {
		return
	}
	for key := range from {
		delete(from, key)
		return
	}
}

// noteFailure records a failure and reports whether it is the first after a success. mu must be
// held.
func (b *Breaker) noteFailure(err error, now time.Time) (first bool) {
	first = b.failure == nil
	b.failure, b.failedAt = err, now
	return first
}

// Failure returns when the last call failed, and why; nil when it succeeded.
func (b *Breaker) Failure() (at time.Time, failure error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failedAt, b.failure
}

// Alive notes that the service answers, though it may not serve: those who have failed get their
// turns soon, so that the one that would succeed need not wait for all that hang. Nothing closes.
func (b *Breaker) Alive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all.isOpen() {
		b.all.hurry(time.Now())
	}
}

// Recovered records that the service said it is well in another way than by a call that was let
// through. The circuits of keys and groups stay.
func (b *Breaker) Recovered() {
	b.mu.Lock()
	changed := b.succeed(Key{}, time.Now())
	b.mu.Unlock()
	if changed {
		b.changed()
	}
}
