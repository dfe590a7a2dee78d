package client

import (
	"sync"
	"time"
)

const (
	defaultNearAge = 5 * time.Second
	// maxNear bounds how many answers are kept.
	maxNear = 10_000
)

// nearCache keeps answers in this process. A nil one keeps none. It is safe for concurrent use.
type nearCache struct {
	age time.Duration

	mu      sync.RWMutex
	kept    map[lookup]kept // guarded by mu
	dropped uint64          // how often all was dropped; guarded by mu
}

type kept struct {
	secret *Secret
	at     time.Time // with a monotonic part: when it came
}

func newNearCache(age time.Duration) *nearCache {
	if age <= 0 {
		age = defaultNearAge
	}
	return &nearCache{age: age, kept: map[lookup]kept{}}
}

// get returns a kept answer that may serve this lookup; nil when there is none.
func (n *nearCache) get(l lookup) *Secret {
	if n == nil || l.maxAge.set {
		return nil
	}
	n.mu.RLock()
	one, ok := n.kept[l]
	n.mu.RUnlock()
	if !ok || !one.isFresh(n.age) {
		return nil
	}
	return one.secret
}

// isFresh uses both clocks: the monotonic one stands still while a machine sleeps, the wall clock
// may be set.
func (k kept) isFresh(age time.Duration) bool {
	now := time.Now()
	return now.Sub(k.at) < age && now.Round(0).Sub(k.at.Round(0)) < age &&
		now.Before(k.secret.ExpiresAt)
}

// generation marks when an answer was asked for, for keep.
func (n *nearCache) generation() uint64 {
	if n == nil {
		return 0
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.dropped
}

// keep keeps an answer, unless it is stale or something was dropped since it was asked for.
func (n *nearCache) keep(l lookup, secret *Secret, generation uint64) {
	if n == nil || secret.Source == Stale {
		return
	}
	l.maxAge = bound{} // a fresh answer is good for everybody
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dropped != generation {
		return
	}
	if _, known := n.kept[l]; !known && len(n.kept) >= maxNear {
		n.makeRoom()
	}
	n.kept[l] = kept{secret, time.Now()}
}

// makeRoom drops what is too old, and half of the rest if that is not enough. The caller holds mu.
func (n *nearCache) makeRoom() {
	for l, one := range n.kept {
		if !one.isFresh(n.age) {
			delete(n.kept, l)
		}
	}
	for l := range n.kept {
		if len(n.kept) <= maxNear/2 {
			return
		}
		delete(n.kept, l)
	}
}

// drop forgets everything.
func (n *nearCache) drop() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropped++
	clear(n.kept)
}
