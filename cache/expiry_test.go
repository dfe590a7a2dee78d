package cache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

// ending runs the test with a cache whose first value ends five minutes after the bubble's
// beginning; the later ones do not.
func ending(t *testing.T,
	test func(t *testing.T, c *cache.Cache[int], src *source, end time.Time)) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(5 * time.Minute)
		c := newCacheOf(t, cache.Config[int]{Classify: classify,
			ExpiresAt: func(value int) time.Time {
				if value == 1 {
					return end
				}
				return time.Time{}
			}})
		test(t, c, &source{}, end)
	})
}

func TestACopyAnswersNobodyOnceItsValueHasEnded(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, end time.Time) {
		first := get(t, c, src.lookup("n"))
		first.wants(t, 1, cache.SourceLoad)
		if !first.ExpiresAt.Equal(end) {
			t.Fatalf("it expires at %v, want %v", first.ExpiresAt, end)
		}
		time.Sleep(5*time.Minute - 1)
		hit := get(t, c, src.lookup("n"))
		hit.wants(t, 1, cache.SourceCache)
		if !hit.ExpiresAt.Equal(end) {
			t.Fatalf("the copy expires at %v, want %v", hit.ExpiresAt, end)
		}
		time.Sleep(1)
		get(t, c, src.lookup("n")).wants(t, 2, cache.SourceLoad)
	})
}

func TestACopyWhoseValueHasEndedDoesNotStandIn(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, _ time.Time) {
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceLoad)
		src.fail(errOutage)
		time.Sleep(5*time.Minute - 1)
		stale := get(t, c, withMaxAge(src.lookup("n"), 0))
		stale.wants(t, 1, cache.SourceStale)
		time.Sleep(1)
		get(t, c, src.lookup("n")).wantsErr(t, errOutage)
		get(t, c, withMaxAge(src.lookup("n"), 0)).wantsErr(t, errOutage)
	})
}

func TestAnEndBeyondTheTTLChangesNothing(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, end time.Time) {
		l := src.lookup("n")
		l.Policy = cache.Policy{TTL: time.Minute, RefreshAhead: time.Minute}
		if first := get(t, c, l); first.ExpiresAt.After(end.Add(-4 * time.Minute)) {
			t.Fatalf("it expires at %v", first.ExpiresAt)
		}
		time.Sleep(50 * time.Second)
		get(t, c, l).wants(t, 1, cache.SourceCache)
		synctest.Wait()
		get(t, c, l).wants(t, 2, cache.SourceCache) // it was refreshed
	})
}

func TestACopyIsNotRefreshedAheadOfItsValuesEnd(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, _ time.Time) {
		l := src.lookup("n")
		l.Policy.RefreshAhead = time.Hour
		for range 50 {
			get(t, c, l)
			synctest.Wait()
			time.Sleep(6 * time.Second)
		}
		src.wantsLoads(t, 1)
	})
}

// The clock may be ahead of the one by which the value ends: its source says that it is alive.
func TestAValueWhoseEndHasPassedAnswersThoseWhoWaitAndIsNotKept(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, end time.Time) {
		time.Sleep(6 * time.Minute)
		src.gate = make(chan struct{})
		var waits []<-chan answer
		for range 3 {
			waits = append(waits, goGet(t.Context(), c, src.lookup("n")))
		}
		synctest.Wait()
		close(src.gate)
		for _, a := range waits {
			got := <-a
			got.wants(t, 1, cache.SourceLoad)
			if got.ExpiresAt.After(end) {
				t.Fatalf("it expires at %v, want %v at the latest", got.ExpiresAt, end)
			}
		}
		if n := c.Len("s"); n != 0 {
			t.Fatalf("%d copies", n)
		}
		get(t, c, src.lookup("n")).wants(t, 2, cache.SourceLoad)
	})
}

func TestAValueThatEndsWhileItIsLoadedIsNotKept(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, _ time.Time) {
		src.gate = make(chan struct{})
		slow := goGet(t.Context(), c, src.lookup("n"))
		time.Sleep(6 * time.Minute)
		close(src.gate)
		(<-slow).wants(t, 1, cache.SourceLoad)
		get(t, c, src.lookup("n")).wants(t, 2, cache.SourceLoad)
	})
}

func TestACopyWhoseValueHasEndedIsNotCounted(t *testing.T) {
	ending(t, func(t *testing.T, c *cache.Cache[int], src *source, _ time.Time) {
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceLoad)
		if n := c.Len("s"); n != 1 {
			t.Fatalf("%d copies, want 1", n)
		}
		time.Sleep(5*time.Minute + 15*time.Second)
		if n := c.Len("s"); n != 0 {
			t.Fatalf("%d copies, want none", n)
		}
	})
}
