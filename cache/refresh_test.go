package cache_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

// refreshed is a lookup with a copy that a hit should refresh: 50 minutes old, with a refresh
// window of 15.
func refreshed(t *testing.T, c *cache.Cache[int], src *source) cache.Lookup[int] {
	l := src.lookup("n")
	l.Policy.RefreshAhead = time.Hour // counts as a quarter of the ttl
	get(t, c, l).wants(t, 1, cache.SourceLoad)
	time.Sleep(38 * time.Minute)
	get(t, c, l).wants(t, 1, cache.SourceCache)
	synctest.Wait()
	src.wantsLoads(t, 1) // too early: the window begins after 39 minutes at the soonest
	time.Sleep(12 * time.Minute)
	return l
}

func TestAHitShortlyBeforeExpiryRefreshesOnceWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		l := refreshed(t, c, src)
		src.gate = make(chan struct{})
		for range 100 {
			get(t, c, l).wants(t, 1, cache.SourceCache)
			synctest.Wait()
		}
		src.wantsLoads(t, 2)
		close(src.gate)
		synctest.Wait()
		for range 100 {
			get(t, c, l).wants(t, 2, cache.SourceCache)
			synctest.Wait()
		}
		src.wantsLoads(t, 2)
	})
}

func TestAShortRefreshAheadIsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		l := src.lookup("n")
		l.Policy.RefreshAhead = time.Minute
		expires := get(t, c, l).ExpiresAt
		time.Sleep(time.Until(expires) - time.Minute - 1)
		get(t, c, l)
		synctest.Wait()
		src.wantsLoads(t, 1)
		time.Sleep(1)
		get(t, c, l)
		synctest.Wait()
		src.wantsLoads(t, 2)
	})
}

func TestWithoutRefreshAheadNothingIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		expires := get(t, c, src.lookup("n")).ExpiresAt
		time.Sleep(time.Until(expires))
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceCache)
		synctest.Wait()
		src.wantsLoads(t, 1)
	})
}

func TestAFailedRefreshIsTriedAgainAfterASecond(t *testing.T) {
	for _, failure := range []error{errOutage, errOther} {
		synctest.Test(t, func(t *testing.T) {
			c, src := newCache(t), &source{}
			l := refreshed(t, c, src)
			src.fail(failure)
			for range 30 { // hits over three seconds
				get(t, c, l).wants(t, 1, cache.SourceCache)
				synctest.Wait()
				time.Sleep(100 * time.Millisecond)
			}
			src.wantsLoads(t, 4)
			src.recover()
			time.Sleep(time.Second)
			get(t, c, l).wants(t, 1, cache.SourceCache)
			synctest.Wait()
			get(t, c, l).wants(t, 5, cache.SourceCache)
		})
	}
}

func TestADenialOrAbsenceFoundByARefreshDropsTheCopy(t *testing.T) {
	for _, failure := range []error{errDenied, errAbsent} {
		synctest.Test(t, func(t *testing.T) {
			c, src := newCache(t), &source{}
			l := refreshed(t, c, src)
			src.fail(failure)
			get(t, c, l).wants(t, 1, cache.SourceCache)
			synctest.Wait()
			get(t, c, l).wantsErr(t, failure)
		})
	}
}

func TestARefreshRespectsAdmitAndTheBoundOnWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		l := refreshed(t, c, src)
		asked := 0
		refusing := l
		refusing.Admit = func(cache.Key) error { asked++; return errOutage }
		for range 10 {
			get(t, c, refusing).wants(t, 1, cache.SourceCache)
			synctest.Wait()
		}
		if asked != 1 {
			t.Fatalf("Admit was asked %d times", asked)
		}
		src.wantsLoads(t, 1)

		time.Sleep(time.Second)
		busy := &source{gate: make(chan struct{})}
		full := l
		full.Policy.MaxWaiting = 1
		waits := goGet(t.Context(), c, busy.lookup("other"))
		synctest.Wait()
		get(t, c, full).wants(t, 1, cache.SourceCache)
		synctest.Wait()
		src.wantsLoads(t, 1)
		close(busy.gate)
		<-waits

		time.Sleep(time.Second)
		get(t, c, full).wants(t, 1, cache.SourceCache)
		synctest.Wait()
		src.wantsLoads(t, 2)
	})
}

func TestARefreshTakesAPlaceAmongTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		l := refreshed(t, c, src)
		src.gate = make(chan struct{})
		get(t, c, l)
		synctest.Wait()
		other := (&source{}).lookup("other")
		other.Policy.MaxWaiting = 1
		get(t, c, other).wantsErr(t, cache.ErrOverloaded)
		close(src.gate)
		synctest.Wait()
		get(t, c, other).wants(t, 1, cache.SourceLoad)
	})
}

func TestCallersJoinARefreshOnceTheCopyHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		l := refreshed(t, c, src)
		src.gate = make(chan struct{})
		get(t, c, l).wants(t, 1, cache.SourceCache)
		time.Sleep(11 * time.Minute)
		joins := goGet(t.Context(), c, l)
		synctest.Wait()
		close(src.gate)
		(<-joins).wants(t, 2, cache.SourceLoad)
		src.wantsLoads(t, 2)
	})
}
