package cache_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

// waiterKey is under what a test's contexts carry their names.
type waiterKey struct{}

func TestALoadIsToldOfEveryGetThatJoinsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		var pairs []string
		l := src.lookup("n")
		l.Joined = func(waiter, load context.Context) {
			pairs = append(pairs, fmt.Sprint(waiter.Value(waiterKey{}), " joins ",
				load.Value(waiterKey{})))
		}
		var answers []<-chan answer
		for _, name := range []string{"first", "second", "third"} {
			answers = append(answers,
				goGet(context.WithValue(t.Context(), waiterKey{}, name), c, l))
			synctest.Wait()
		}
		close(src.gate)
		for _, one := range answers {
			(<-one).wants(t, 1, cache.SourceLoad)
		}
		if got, want := fmt.Sprint(pairs), "[second joins first third joins first]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

func TestALoadInTheBackgroundIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		var refreshes atomic.Int64
		l := refreshed(t, c, src)
		l.Refreshing = func() { refreshes.Add(1) }
		l.Joined = func(context.Context, context.Context) { t.Error("nobody waits") }
		for range 3 {
			get(t, c, l).wants(t, 1, cache.SourceCache)
		}
		synctest.Wait()
		src.wantsLoads(t, 2)
		if n := refreshes.Load(); n != 1 {
			t.Errorf("told of %d loads in the background, want 1", n)
		}
	})
}

func TestARememberedAbsenceSaysThatItIsFromTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		src.fail(errAbsent)
		for _, want := range []cache.Source{0, cache.SourceCache} {
			got := get(t, c, src.lookup("n"))
			got.wantsErr(t, errAbsent)
			if got.Source != want {
				t.Errorf("source is %d, want %d", got.Source, want)
			}
		}
	})
}

func TestStatsTellBytesAndWhatDidNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100 << 10
		c, src := newCacheOf(t, cache.Config[int]{MaxBytes: most, Size: func(int) int {
			return 1 << 10
		}}), &source{}
		if got := c.Stats(); got != (cache.Stats{MaxBytes: most}) {
			t.Errorf("an empty cache says %+v", got)
		}
		for i := range 200 {
			get(t, c, src.lookup(fmt.Sprint(i)))
		}
		got := c.Stats()
		if got.Bytes <= most/2 || got.Bytes > most {
			t.Errorf("%d bytes of at most %d", got.Bytes, most)
		}
		if out := int(got.Evictions + got.Rejections); out != 200-c.Len("s") {
			t.Errorf("%d evictions and %d rejections, and %d of 200 are there", got.Evictions,
				got.Rejections, c.Len("s"))
		}
		before := got.Evictions
		c.SetMaxBytes(most / 10)
		if got = c.Stats(); got.Evictions <= before || got.Bytes > most/10 {
			t.Errorf("after shrinking: %+v", got)
		}
	})
}

func TestStatsTellALargeEntryThatIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCacheOf(t, cache.Config[int]{MaxBytes: 4 << 10, Size: func(int) int {
			return 8 << 10
		}}), &source{}
		get(t, c, src.lookup("n"))
		if got := c.Stats(); got.Rejections != 1 || got.Evictions != 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestWhatExpiresOrIsDroppedIsNoEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		get(t, c, src.lookup("expires"))
		get(t, c, src.lookup("dropped"))
		c.Drop("s", "dropped")
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if got := c.Stats(); got.Evictions != 0 || got.Bytes != 0 {
			t.Errorf("%+v", got)
		}
		c.Close()
		if got := c.Stats(); got.Evictions != 0 {
			t.Errorf("closed: %+v", got)
		}
	})
}
