package cache

import "time"

// instant is one reading of two clocks. The wall clock runs on while the machine is suspended, but
// may be set back. The monotonic clock is never set, but stands still while the machine is
// suspended.
type instant struct {
	wall int64         // nanoseconds since 1970
	mono time.Duration // since the Cache was made
}

// since returns how much time passed from then to i, by the clock that saw more of it. So neither a
// suspended machine nor a clock that was set back makes anything younger. Everything that the Cache
// does by age uses this.
func (i instant) since(then instant) time.Duration {
	return max(i.mono-then.mono, time.Duration(i.wall-then.wall))
}

// time returns what the wall clock said.
func (i instant) time() time.Time { return time.Unix(0, i.wall) }

// skew is how far the wall clock is ahead of the monotonic one. It changes when the wall clock is
// set, and when the machine was suspended.
func (i instant) skew() time.Duration { return time.Duration(i.wall) - i.mono }

// newClock returns a function that reads both clocks.
func newClock() func() instant {
	start := time.Now()
	return func() instant {
		now := time.Now()
		return instant{wall: now.UnixNano(), mono: now.Sub(start)}
	}
}
