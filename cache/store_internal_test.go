package cache

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var testPolicy = Policy{TTL: time.Hour, MaxStale: time.Hour, NegativeTTL: time.Minute}

func newTestCache[V any](t testing.TB, cfg Config[V]) *Cache[V] {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func lookupOf[V any](space, name string, value V) Lookup[V] {
	return Lookup[V]{
		Key: Key{Space: space, Name: name}, Policy: testPolicy,
		Load: func(context.Context, Key) (V, error) { return value, nil },
	}
}

func mustGet[V any](t testing.TB, c *Cache[V], l Lookup[V]) Result[V] {
	t.Helper()
	res, err := c.Get(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// checkInStep compares the index with the store: the same entries, none of them dropped, and counts
// that add up.
func checkInStep[V any](t testing.TB, c *Cache[V]) (entries int) {
	t.Helper()
	c.background.Wait() // a flight answers its waiters before it has reached the store
	c.store.mu.Lock()
	c.store.cache.Wait()
	held := make(map[*entry[V]]bool)
	c.store.cache.IterValues(func(e *entry[V]) bool {
		held[e] = true
		if e.isDropped() {
			t.Errorf("the store holds a dropped entry of %v", e.key())
		}
		return false
	})
	c.store.mu.Unlock()

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spaces {
		copies := make(map[string]bool)
		for e := range s.index.all {
			entries++
			if !held[e] {
				t.Errorf("the index holds an entry of %v that the store does not", e.key())
			}
			if e.isCopy() {
				copies[e.name] = true
			}
		}
		for name, v := range s.index.others {
			ofName := 0
			for _, e := range v.entries {
				if e.isCopy() {
					ofName++
				}
			}
			if len(v.entries) == 0 || ofName != v.copies {
				t.Errorf("%q counts %d copies, has %d among %d versions", name, v.copies, ofName,
					len(v.entries))
			}
		}
		if len(copies) != s.copies {
			t.Errorf("space %q counts %d copies, has %d", s.name(), s.copies, len(copies))
		}
		if len(s.flights) > 0 {
			t.Errorf("space %q: flights of %d names", s.name(), len(s.flights))
		}
		if s.waiting != 0 || s.unattended != 0 || len(s.running) != 0 {
			t.Errorf("space %q: %d waiting, %d unattended, %d running", s.name(), s.waiting,
				s.unattended, len(s.running))
		}
	}
	if entries != len(held) {
		t.Errorf("%d entries in the index, %d in the store", entries, len(held))
	}
	return entries
}

func TestEvictionAndRejectionKeepTheIndexInStep(t *testing.T) {
	const size, fit = 1000, 100
	c := newTestCache(t, Config[string]{
		MaxBytes: fit * (size + entryOverhead + 6), Size: func(s string) int { return len(s) },
	})
	value := strings.Repeat("x", size)
	for i := range 5000 {
		name := fmt.Sprintf("%05d", i%1000)
		l := lookupOf("s", name, value)
		switch i % 7 {
		case 3: // may replace something smaller
			zero := time.Duration(0)
			l.MaxAge = &zero
			l.Load = func(context.Context, Key) (string, error) { return value + value, nil }
		case 6: // too large for the whole cache
			l.Load = func(context.Context, Key) (string, error) {
				return strings.Repeat("x", 2*fit*size), nil
			}
		}
		mustGet(t, c, l)
		if i%20 == 0 {
			c.Drop("s", name)
		}
		c.background.Wait()
		if left := c.store.cache.RemainingCost(); left < 0 {
			t.Fatalf("over the bound by %d bytes", -left)
		}
	}
	if n := checkInStep(t, c); n < fit/2 || n > fit || c.Len("s") != n {
		t.Fatalf("%d entries, Len %d, want about %d", n, c.Len("s"), fit)
	}
}

func TestExpiryKeepsTheIndexInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, Config[int]{Classify: func(error) Class { return ClassAbsent }})
		for i := range 100 {
			mustGet(t, c, lookupOf("s", fmt.Sprint(i), i))
			absent := lookupOf("s", fmt.Sprint("absent", i), i)
			absent.Load = func(context.Context, Key) (int, error) { return 0, fmt.Errorf("absent") }
			if _, err := c.Get(t.Context(), absent); err == nil {
				t.Fatal("no error")
			}
		}
		if n := checkInStep(t, c); n != 200 {
			t.Fatalf("%d entries", n)
		}
		time.Sleep(testPolicy.NegativeTTL + 15*time.Second)
		if n := checkInStep(t, c); n != 100 {
			t.Fatalf("%d entries after the negative ttl", n)
		}
		time.Sleep(testPolicy.TTL + testPolicy.MaxStale)
		checkEmpty(t, c)
	})
}

func checkEmpty[V any](t testing.TB, c *Cache[V]) {
	t.Helper()
	checkInStep(t, c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spaces) != 0 {
		t.Errorf("%d spaces left", len(c.spaces))
	}
	if used := c.store.cache.MaxCost() - c.store.cache.RemainingCost(); used != 0 {
		t.Errorf("%d bytes still counted", used)
	}
}

func TestNothingIsLeftOfADroppedSpace(t *testing.T) {
	c := newTestCache(t, Config[int]{})
	fill := func() {
		for i := range 3000 {
			mustGet(t, c, lookupOf("s", fmt.Sprint(i), i))
		}
	}
	for name, drop := range map[string]func(){
		"DropSpace":    func() { c.DropSpace("s") },
		"DropMatching": func() { c.DropMatching("s", func(string) bool { return true }) },
		"Drop": func() {
			for i := range 3000 {
				c.Drop("s", fmt.Sprint(i))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			fill()
			drop()
			checkEmpty(t, c)
		})
	}
}

func TestASpaceWithoutEntriesGoesWhenItsLoadsAreOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, Config[int]{})
		gate := make(chan struct{})
		l := lookupOf("s", "n", 1)
		l.Load = func(context.Context, Key) (int, error) { <-gate; return 1, nil }
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = c.Get(ctx, l) }()
		synctest.Wait()
		c.DropSpace("s")
		cancel()
		synctest.Wait()
		close(gate)
		synctest.Wait()
		checkEmpty(t, c)

		l.Load = func(context.Context, Key) (int, error) { return 0, context.Canceled }
		_, _ = c.Get(t.Context(), l)
		l.Admit = func(Key) error { return context.Canceled }
		_, _ = c.Get(t.Context(), l)
		synctest.Wait()
		checkEmpty(t, c)
	})
}

func TestKeysOfOneHashAreNotTakenForEachOther(t *testing.T) {
	c := newTestCache(t, Config[string]{})
	c.store.hash = func(Key) uint64 { return 42 }
	tenants := []string{"a", "b", "c"}
	for range 10 {
		for _, tenant := range tenants {
			for range 3 {
				if got := mustGet(t, c, lookupOf(tenant, "n", "of "+tenant)); got.Value != "of "+
					tenant {
					t.Fatalf("tenant %s got the value %s", tenant, got.Value)
				}
				// or the one before may reach the store, and its only place, later
				c.background.Wait()
			}
		}
		checkInStep(t, c)
		if again := mustGet(t, c, lookupOf("c", "n", "")); again.Source != SourceCache {
			t.Fatal("the one that was loaded last is not cached")
		}
		c.Drop("a", "n") // not the holder of the place
		if again := mustGet(t, c, lookupOf("c", "n", "")); again.Source != SourceCache {
			t.Fatal("a drop of another key took it")
		}
	}
	for _, tenant := range tenants {
		c.DropSpace(tenant)
	}
	checkEmpty(t, c)
}

func TestSetMaxBytesShrinksAtOnceAndGrows(t *testing.T) {
	c := newTestCache(t, Config[int]{Size: func(int) int { return 1000 }})
	fill := func() {
		for i := range 2000 {
			mustGet(t, c, lookupOf("s", fmt.Sprint(i), i))
		}
	}
	fill()
	if n := checkInStep(t, c); n != 2000 {
		t.Fatalf("%d entries", n)
	}
	c.SetMaxBytes(1 << 20)
	if n := checkInStep(t, c); n < 100 || n > 740 || c.store.cache.RemainingCost() < 0 {
		t.Fatalf("%d entries after shrinking, %d bytes left", n, c.store.cache.RemainingCost())
	}
	c.SetMaxBytes(0)
	fill()
	if n := checkInStep(t, c); n != 2000 {
		t.Fatalf("%d entries after growing to the default", n)
	}
	c.SetMaxBytes(1)
	checkEmpty(t, c)
}

func TestMemoryStaysWithinTheBound(t *testing.T) {
	const bound = 32 << 20
	for _, size := range []int{100, 4000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			before := heap()
			c := newTestCache(t, Config[[]byte]{MaxBytes: bound, Size: func(b []byte) int {
				return len(b)
			}})
			empty := heap()
			for i := range 2 * bound / (size + entryOverhead) {
				mustGet(t, c, lookupOf(strings.Clone("space"),
					fmt.Sprintf("secret/data/team/%06d", i), make([]byte, size)))
			}
			n := checkInStep(t, c)
			used := heap() - empty
			t.Logf("%d entries, %.0f bytes each beside the value, %.2f of the bound; empty: %d KiB",
				n, float64(used)/float64(n)-float64(size), float64(used)/bound, (empty-before)>>10)
			// maps that have churned take more than fresh ones
			if used > bound*4/3 || used < bound/2 {
				t.Errorf("the heap grew by %d bytes under a bound of %d", used, bound)
			}
			runtime.KeepAlive(c)
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
