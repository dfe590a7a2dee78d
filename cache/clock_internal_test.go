package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// leap sets the cache's wall clock ahead of the monotonic one, as a suspended machine finds it, or
// back.
func leap[V any](c *Cache[V], by time.Duration) {
	synctest.Wait() // until no flight reads the clock
	read := c.clock
	c.clock = func() instant {
		now := read()
		now.wall += int64(by)
		return now
	}
}

// passings are the ways in which time passes unseen by one of the clocks.
var passings = map[string]func(c *Cache[int], d time.Duration){
	"a suspended machine":        func(c *Cache[int], d time.Duration) { leap(c, d) },
	"a clock that was set back":  func(c *Cache[int], d time.Duration) { time.Sleep(d); leap(c, -d-time.Hour) },
	"both clocks see it, almost": func(c *Cache[int], d time.Duration) { time.Sleep(d - 1); leap(c, 1) },
}

var (
	errTestOutage = errors.New("out")
	errTestAbsent = errors.New("absent")
)

// counted is a lookup whose load returns its number, or err when it is set.
type counted struct {
	Lookup[int]
	loads int
	err   error
}

func newCounted() *counted {
	l := &counted{Lookup: lookupOf("s", "n", 0)}
	l.Load = func(context.Context, Key) (int, error) {
		l.loads++
		return l.loads, l.err
	}
	return l
}

func (l *counted) get(c *Cache[int]) (Result[int], error) {
	found, err := c.Get(context.Background(), l.Lookup)
	synctest.Wait()
	return found, err
}

func (l *counted) wants(t *testing.T, c *Cache[int], value int, source Source) {
	t.Helper()
	found, err := l.get(c)
	if err != nil || found.Value != value || found.Source != source {
		t.Fatalf("got %+v, error %v; want value %d, source %d", found, err, value, source)
	}
}

func (l *counted) wantsErr(t *testing.T, c *Cache[int], want error, loads int) {
	t.Helper()
	if _, err := l.get(c); !errors.Is(err, want) || l.loads != loads {
		t.Fatalf("got %v after %d loads, want %v after %d", err, l.loads, want, loads)
	}
}

func TestNothingGrowsYoungerByAClock(t *testing.T) {
	for name, pass := range passings {
		for what, test := range map[string]func(t *testing.T, c *Cache[int], l *counted){
			"past its ttl a copy is not fresh": func(t *testing.T, c *Cache[int], l *counted) {
				l.wants(t, c, 1, SourceLoad)
				pass(c, time.Hour+1)
				l.wants(t, c, 2, SourceLoad)
			},
			"within max_age it is": func(t *testing.T, c *Cache[int], l *counted) {
				l.MaxAge = new(10 * time.Minute)
				l.wants(t, c, 1, SourceLoad)
				pass(c, 10*time.Minute)
				l.wants(t, c, 1, SourceCache)
				pass(c, 10*time.Minute)
				l.wants(t, c, 2, SourceLoad)
			},
			"past ttl and max_stale it does not stand in": func(t *testing.T, c *Cache[int], l *counted) {
				l.wants(t, c, 1, SourceLoad)
				l.err = errTestOutage
				pass(c, 2*time.Hour)
				l.wants(t, c, 1, SourceStale)
				pass(c, time.Minute)
				l.wantsErr(t, c, errTestOutage, 3)
			},
			"past negative_ttl an absence is looked for again": func(t *testing.T, c *Cache[int], l *counted) {
				l.err = errTestAbsent
				l.wantsErr(t, c, errTestAbsent, 1)
				pass(c, testPolicy.NegativeTTL/2)
				l.wantsErr(t, c, errTestAbsent, 1)
				pass(c, testPolicy.NegativeTTL)
				l.wantsErr(t, c, errTestAbsent, 2)
			},
			"in the last part of its life it is refreshed": func(t *testing.T, c *Cache[int], l *counted) {
				l.Policy.RefreshAhead = time.Hour
				l.wants(t, c, 1, SourceLoad)
				pass(c, 50*time.Minute)
				l.wants(t, c, 1, SourceCache)
				l.wants(t, c, 2, SourceCache)
			},
			"a load that began too early is not joined": func(t *testing.T, c *Cache[int], l *counted) {
				release := make(chan struct{})
				load := l.Load
				l.Load = func(ctx context.Context, key Key) (int, error) {
					n, _ := load(ctx, key)
					select {
					case <-release:
					case <-ctx.Done():
					}
					return n, nil
				}
				for range 2 {
					go func() { _, _ = c.Get(t.Context(), l.Lookup) }()
					synctest.Wait()
				}
				if l.loads != 1 {
					t.Fatalf("%d loads, want 1", l.loads)
				}
				pass(c, time.Hour+1)
				go func() { _, _ = c.Get(t.Context(), l.Lookup) }()
				synctest.Wait()
				if l.loads != 2 {
					t.Fatalf("%d loads, want 2", l.loads)
				}
				close(release)
			},
		} {
			t.Run(name+": "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					test(t, newTestCache(t, testClasses), newCounted())
				})
			})
		}
	}
}

var testClasses = Config[int]{Classify: func(err error) Class {
	switch {
	case errors.Is(err, errTestOutage):
		return ClassOutage
	case errors.Is(err, errTestAbsent):
		return ClassAbsent
	}
	return ClassOther
}}

func TestCopiesOfNoMoreUseLeaveWhateverTheClocksDo(t *testing.T) {
	for name, pass := range passings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTestCache(t, testClasses)
				for i := range 100 {
					mustGet(t, c, lookupOf("s", fmt.Sprint(i), i))
				}
				pass(c, time.Hour)
				mustGet(t, c, lookupOf("s", "later", 1))
				if n := checkInStep(t, c); n != 101 {
					t.Fatalf("%d entries within ttl and max_stale, want 101", n)
				}
				pass(c, time.Hour+1)
				mustGet(t, c, lookupOf("s", "latest", 1))
				time.Sleep(3 * clockLeap)
				if n := checkInStep(t, c); n != 2 {
					t.Fatalf("%d entries after that, want 2", n)
				}
			})
		})
	}
}

func TestAClockThatMovesOnBeforeTheEntriesExpireLeavesNoneBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, testClasses)
		mustGet(t, c, lookupOf("s", "n", 1))
		leap(c, 30*time.Minute)
		mustGet(t, c, lookupOf("s", "later", 1))
		// the first one is two hours old, of which the monotonic clock saw less
		time.Sleep(90*time.Minute + 3*clockLeap)
		if n := checkInStep(t, c); n != 1 || c.Len("s") != 1 {
			t.Fatalf("%d entries, Len %d, want 1", n, c.Len("s"))
		}
	})
}

func TestAnEntryFitsItsAllocation(t *testing.T) {
	if size := unsafe.Sizeof(entry[*int]{}); size > 96 {
		t.Errorf("an entry takes %d bytes: the allocation that fits takes 112", size)
	}
}
