package audit

import (
	"sync"
	"time"
)

const (
	// refusalPeriod is how long the refusals of one caller are counted together.
	refusalPeriod = time.Minute
	// maxRefused bounds the callers, methods and reasons that are counted at once.
	maxRefused = 1024
)

// refusedKey is what refusals must have in common to be one line.
type refusedKey struct {
	uid             uint32
	method, outcome string
}

// refusedSince counts the refusals since the last line.
type refusedSince struct {
	last  Entry
	since time.Time
	count uint64 // 0: none since the last line
}

// refusals makes few lines of many refusals: who is refused would otherwise decide how fast the
// file grows. The first refusal of a user, method and reason is a line at once. Those of the next
// minute are one line, which says how many. It is safe for concurrent use.
type refusals struct {
	mu      sync.Mutex
	counted map[refusedKey]*refusedSince // guarded by mu
}

// add counts so many refusals in. It reports whether the entry is a line of its own, and whether it
// was counted at all.
func (r *refusals) add(e *Entry, times uint64) (isLine, counted bool) {
	key := refusedKey{e.UID, e.Method, e.Outcome}
	r.mu.Lock()
	defer r.mu.Unlock()
	held := r.counted[key]
	switch {
	case held == nil && len(r.counted) >= maxRefused:
		return false, false
	case held == nil:
		r.counted[key] = &refusedSince{}
		return true, true
	case held.count == 0:
		held.since = e.Time
	}
	held.last = *e
	held.count += times
	return false, true
}

// take returns the lines of the minute that has passed, and forgets whom nothing was refused.
func (r *refusals) take() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []Entry
	for key, held := range r.counted {
		if held.count == 0 {
			delete(r.counted, key)
			continue
		}
		line := held.last
		line.Since, line.Count = held.since, held.count
		lines = append(lines, line)
		held.count = 0
	}
	return lines
}
