package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

// drops are the ways of dropping the name "n" of the space "s".
var drops = map[string]func(c *cache.Cache[int]) int{
	"Drop":         func(c *cache.Cache[int]) int { return c.Drop("s", "n") },
	"DropMatching": func(c *cache.Cache[int]) int { return c.DropMatching("s", func(n string) bool { return n == "n" }) },
	"DropSpace":    func(c *cache.Cache[int]) int { return c.DropSpace("s") },
}

func forEachDrop(t *testing.T, test func(t *testing.T, drop func(*cache.Cache[int]) int)) {
	for name, drop := range drops {
		t.Run(name, func(t *testing.T) { test(t, drop) })
	}
}

// TestTheFence: the backend changes its value, then a drop runs; whoever gets after it has returned
// sees the new value, though slow loads of the old one, hits, refreshes and max_age=0 callers are
// all in flight. Times are multiples of 100 µs of the bubble's clock, so that many things happen at
// the same instant, in parallel.
func TestTheFence(t *testing.T) {
	forEachDrop(t, func(t *testing.T, drop func(*cache.Cache[int]) int) {
		synctest.Test(t, func(t *testing.T) {
			c := newCache(t)
			var current atomic.Int64
			lookup := cache.Lookup[int]{
				Key: cache.Key{Space: "s", Name: "n"},
				Policy: cache.Policy{TTL: time.Millisecond, MaxStale: time.Hour,
					RefreshAhead: time.Hour},
				Load: func(context.Context, cache.Key) (int, error) {
					// the backend has answered; what follows is the way back
					value := current.Load()
					pause(4)
					return int(value), nil
				},
			}
			stop := make(chan struct{})
			var noise sync.WaitGroup
			defer noise.Wait()
			defer close(stop)
			for i := range 8 {
				noise.Go(func() { getUntil(t, stop, c, fenceLookup(lookup, i)) })
			}
			for round := range 1000 {
				pause(4)
				value := current.Add(1)
				drop(c)
				got := get(t, c, fenceLookup(lookup, round))
				if got.err != nil || int64(got.Value) < value {
					t.Fatalf("round %d: got %d, error %v, after a drop that followed %d", round,
						got.Value, got.err, value)
				}
			}
		})
	})
}

func pause(most int) { time.Sleep(time.Duration(rand.IntN(most)) * 100 * time.Microsecond) }

// fenceLookup varies the lookup: two versions, and every fourth one wants a load of its own.
func fenceLookup(l cache.Lookup[int], i int) cache.Lookup[int] {
	l.Key.Version = uint32(i % 2)
	if i%8 >= 6 {
		l = withMaxAge(l, 0)
	}
	return l
}

func getUntil(t *testing.T, stop <-chan struct{}, c *cache.Cache[int], l cache.Lookup[int]) {
	for {
		select {
		case <-stop:
			return
		default:
			if _, err := c.Get(t.Context(), l); err != nil {
				t.Error(err)
				return
			}
			pause(3)
		}
	}
}

func TestAFencedLoadAnswersOnlyThoseWhoCameBeforeAndIsNotKept(t *testing.T) {
	forEachDrop(t, func(t *testing.T, drop func(*cache.Cache[int]) int) {
		synctest.Test(t, func(t *testing.T) {
			c, before, after := newCache(t), &source{gate: make(chan struct{})},
				&source{gate: make(chan struct{})}
			after.loads.Store(100)
			early := goGet(t.Context(), c, before.lookup("n"))
			synctest.Wait()
			queued := goGet(t.Context(), c, withMaxAge(before.lookup("n"), 0))
			synctest.Wait()

			if n := drop(c); n != 0 {
				t.Fatalf("dropped %d, nothing was cached", n)
			}
			late := goGet(t.Context(), c, after.lookup("n"))
			synctest.Wait()
			before.wantsLoads(t, 2) // the queued one need not wait for the fenced one

			after.gate <- struct{}{}
			(<-late).wants(t, 101, cache.SourceLoad)
			close(before.gate)
			if got := <-early; got.err != nil || got.Value >= 100 {
				t.Fatalf("got %+v", got)
			}
			if got := <-queued; got.err != nil || got.Value >= 100 {
				t.Fatalf("got %+v", got)
			}
			synctest.Wait()
			get(t, c, after.lookup("n")).wants(t, 101, cache.SourceCache)
		})
	})
}

func TestAFencedFailureDoesNotTouchTheNewCopy(t *testing.T) {
	for _, failure := range []error{errAbsent, errDenied} {
		synctest.Test(t, func(t *testing.T) {
			c, before, after := newCache(t), &source{gate: make(chan struct{})}, &source{}
			before.fail(failure)
			early := goGet(t.Context(), c, before.lookup("n"))
			synctest.Wait()
			c.Drop("s", "n")
			get(t, c, after.lookup("n")).wants(t, 1, cache.SourceLoad)
			close(before.gate)
			(<-early).wantsErr(t, failure)
			get(t, c, after.lookup("n")).wants(t, 1, cache.SourceCache)
		})
	}
}

func TestAFencedRefreshIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		l := src.lookup("n")
		l.Policy.RefreshAhead = 15 * time.Minute
		get(t, c, l)
		time.Sleep(50 * time.Minute)
		src.gate = make(chan struct{})
		get(t, c, l).wants(t, 1, cache.SourceCache)
		synctest.Wait()
		src.wantsLoads(t, 2)
		c.Drop("s", "n")
		close(src.gate)
		synctest.Wait()
		get(t, c, l).wants(t, 3, cache.SourceLoad)
	})
}

func TestADropEndsStaleCopiesAndRememberedErrors(t *testing.T) {
	forEachDrop(t, func(t *testing.T, drop func(*cache.Cache[int]) int) {
		c, src := newCache(t), &source{}
		get(t, c, src.lookup("n"))
		drop(c)
		src.fail(errOutage)
		get(t, c, src.lookup("n")).wantsErr(t, errOutage)

		src.fail(errAbsent)
		get(t, c, src.lookup("n")).wantsErr(t, errAbsent)
		if n := c.Len("s") + drop(c); n != 0 {
			t.Fatalf("a remembered error counts: %d", n)
		}
		src.recover()
		get(t, c, src.lookup("n")).wants(t, 4, cache.SourceLoad)
	})
}

func TestDropsCountNamesAndLeaveTheRest(t *testing.T) {
	c, src := newCache(t), &source{}
	fill := func() {
		for i := range 5000 {
			for version := range uint32(2) {
				l := src.lookup(fmt.Sprintf("team%d/%d", i%5, i))
				l.Key.Version = version
				get(t, c, l)
			}
		}
		get(t, c, cache.Lookup[int]{Key: cache.Key{Space: "r", Name: "team1/1"}, Policy: standard,
			Load: src.load})
	}
	wants := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: %d, want %d", what, got, want)
		}
	}
	fill()
	wants("Len", c.Len("s"), 5000)
	wants("Drop", c.Drop("s", "team1/1"), 1)
	wants("Drop again", c.Drop("s", "team1/1"), 0)
	wants("Drop of nothing", c.Drop("s", "none")+c.Drop("none", "none"), 0)
	wants("DropMatching", c.DropMatching("s", func(n string) bool {
		return strings.HasPrefix(n, "team1/")
	}), 999)
	wants("DropMatching again", c.DropMatching("s", func(n string) bool {
		return strings.HasPrefix(n, "team1/")
	}), 0)
	wants("Len", c.Len("s"), 4000)
	wants("DropSpace", c.DropSpace("s"), 4000)
	wants("Len", c.Len("s"), 0)
	wants("Len of the other space", c.Len("r"), 1)
	wants("Len of no space", c.Len("none"), 0)
	fill()
	wants("DropMatching all", c.DropMatching("s", func(string) bool { return true }), 5000)
}

func TestOverlappingDropsAreEachComplete(t *testing.T) {
	c := newCache(t)
	names := make([]string, 3000)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	for round := range 5 {
		var current atomic.Int64
		lookup := func(name string) cache.Lookup[int] {
			return cache.Lookup[int]{Key: cache.Key{Space: "s", Name: name}, Policy: standard,
				Load: func(context.Context, cache.Key) (int, error) {
					return int(current.Load()), nil
				}}
		}
		for _, n := range names {
			get(t, c, lookup(n))
		}
		current.Store(1)
		var wg sync.WaitGroup
		wg.Go(func() { c.DropSpace("s") })
		wg.Go(func() { c.DropMatching("s", func(string) bool { return true }) })
		for _, name := range []string{"7", "1500", "2999"} {
			wg.Go(func() {
				c.Drop("s", name)
				get(t, c, lookup(name)).wantsValue(t, 1)
			})
		}
		wg.Wait()
		for _, n := range names {
			get(t, c, lookup(n)).wantsValue(t, 1)
		}
		if n := c.DropSpace("s"); n != len(names) {
			t.Fatalf("round %d: %d names, want %d", round, n, len(names))
		}
	}
}

func (a answer) wantsValue(t testing.TB, value int) {
	t.Helper()
	if a.err != nil || a.Value != value {
		t.Errorf("got value %d, error %v; want value %d", a.Value, a.err, value)
	}
}

func TestAMatcherThatPanicsLeavesTheCacheUsable(t *testing.T) {
	c, src := newCache(t), &source{}
	get(t, c, src.lookup("n"))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		c.DropMatching("s", func(string) bool { panic("matcher") })
	}()
	get(t, c, src.lookup("n")).wants(t, 1, cache.SourceCache)
}

func TestAMatcherMayUseTheCache(t *testing.T) {
	c, src := newCache(t), &source{}
	get(t, c, src.lookup("n"))
	n := c.DropMatching("s", func(name string) bool {
		get(t, c, src.lookup(name)).wants(t, 1, cache.SourceCache)
		get(t, c, src.lookup("m"))
		return c.Len("s") == 2
	})
	if n == 0 {
		t.Fatal("nothing dropped")
	}
}
