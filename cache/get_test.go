package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

func TestAThousandConcurrentColdGetsCauseOneLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		var answers []<-chan answer
		for range 1000 {
			answers = append(answers, goGet(t.Context(), c, src.lookup("n")))
		}
		synctest.Wait()
		close(src.gate)
		for _, a := range answers {
			(<-a).wants(t, 1, cache.SourceLoad)
		}
		src.wantsLoads(t, 1)
	})
}

func TestAGetRightAfterALoadIsAHit(t *testing.T) {
	c := newCache(t)
	for i := range 5000 {
		src := &source{}
		name := fmt.Sprint(i)
		get(t, c, src.lookup(name)).wants(t, 1, cache.SourceLoad)
		get(t, c, src.lookup(name)).wants(t, 1, cache.SourceCache)
		get(t, c, withMaxAge(src.lookup(name), 0)).wants(t, 2, cache.SourceLoad)
		get(t, c, src.lookup(name)).wants(t, 2, cache.SourceCache)
		c.Drop("s", name)
		get(t, c, src.lookup(name)).wants(t, 3, cache.SourceLoad)
		get(t, c, src.lookup(name)).wants(t, 3, cache.SourceCache)
	}
}

func TestVersionsNamesAndSpacesAreCachedApart(t *testing.T) {
	c := newCache(t)
	for i, key := range []cache.Key{
		{Space: "s", Name: "n"}, {Space: "s", Name: "n", Version: 1}, {Space: "s", Name: "m"}, {Space: "r", Name: "n"},
		{Space: "sn"}, {Name: "sn"},
	} {
		l := cache.Lookup[int]{Key: key, Policy: standard,
			Load: func(context.Context, cache.Key) (int, error) {
				return i, nil
			}}
		get(t, c, l).wants(t, i, cache.SourceLoad)
		get(t, c, l).wants(t, i, cache.SourceCache)
	}
}

func TestFreshness(t *testing.T) {
	short := standard
	short.TTL = 10 * time.Minute
	long := standard
	long.TTL = 2 * time.Hour
	never := standard
	never.TTL = 0
	for _, tt := range []struct {
		name   string
		age    time.Duration
		policy cache.Policy
		maxAge time.Duration // negative: unset
		hit    bool
	}{
		{"young copy is a hit", 53 * time.Minute, standard, -1, true},
		{"copy past the ttl is not", time.Hour + 1, standard, -1, false},
		{"max_age is met to the instant", time.Minute, standard, time.Minute, true},
		{"max_age is exceeded by an instant", time.Minute + 1, standard, time.Minute, false},
		{"max_age beyond the ttl does not loosen it", time.Hour + 1, standard, 24 * time.Hour, false},
		{"max_age zero never is a hit, not even at age zero", 0, standard, 0, false},
		{"a shorter ttl counts for copies made before", 11 * time.Minute, short, -1, false},
		{"a longer ttl counts for copies made before", time.Hour + 10*time.Minute, long, -1, true},
		{"ttl zero never is a hit", 0, never, -1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, src := newCache(t), &source{}
				get(t, c, src.lookup("n")).wants(t, 1, cache.SourceLoad)
				time.Sleep(tt.age)
				l := src.lookup("n")
				l.Policy = tt.policy
				if tt.maxAge >= 0 {
					l = withMaxAge(l, tt.maxAge)
				}
				if tt.hit {
					get(t, c, l).wants(t, 1, cache.SourceCache)
				} else {
					get(t, c, l).wants(t, 2, cache.SourceLoad)
				}
			})
		})
	}
}

func TestTheAgeCountsFromWhenTheLoadBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, start := newCache(t), time.Now()
		src := &source{}
		slow := src.lookup("n")
		slow.Load = func(ctx context.Context, _ cache.Key) (int, error) {
			time.Sleep(time.Minute)
			return src.load(ctx, cache.Key{})
		}
		a := get(t, c, slow)
		a.wants(t, 1, cache.SourceLoad)
		if !a.FetchedAt.Equal(start) {
			t.Fatalf("FetchedAt is %v after the load began", a.FetchedAt.Sub(start))
		}
		get(t, c, withMaxAge(src.lookup("n"), time.Minute)).wants(t, 1, cache.SourceCache)
		time.Sleep(1)
		get(t, c, withMaxAge(src.lookup("n"), time.Minute)).wants(t, 2, cache.SourceLoad)
	})
}

func TestExpiriesAreUpToATenthEarlyAndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t)
		var earliest, latest time.Duration = time.Hour, 0
		for i := range 1000 {
			src := &source{}
			a := get(t, c, src.lookup(fmt.Sprint(i)))
			life := a.ExpiresAt.Sub(a.FetchedAt)
			earliest, latest = min(earliest, life), max(latest, life)
			if again := get(t, c, src.lookup(fmt.Sprint(i))); !again.ExpiresAt.Equal(a.ExpiresAt) {
				t.Fatal("the jitter was drawn twice")
			}
		}
		if earliest < 54*time.Minute || earliest > 55*time.Minute || latest > time.Hour ||
			latest < 59*time.Minute {
			t.Fatalf("lives from %v to %v, want them spread over 54m to 1h", earliest, latest)
		}
	})
}

func TestACopyIsFreshUntilExpiresAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		a := get(t, c, src.lookup("n"))
		time.Sleep(time.Until(a.ExpiresAt))
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceCache)
		time.Sleep(1)
		get(t, c, src.lookup("n")).wants(t, 2, cache.SourceLoad)
	})
}

func TestMaxAgeZeroIsAnsweredByALoadThatBeganLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		first := goGet(t.Context(), c, src.lookup("n"))
		synctest.Wait()
		var fresh []<-chan answer
		for range 1000 {
			fresh = append(fresh, goGet(t.Context(), c, withMaxAge(src.lookup("n"), 0)))
		}
		synctest.Wait()
		src.wantsLoads(t, 2)
		close(src.gate)
		for _, a := range fresh {
			if got := <-a; got.err != nil || got.Source != cache.SourceLoad || got.Value < 2 {
				t.Fatalf("got %+v", got)
			}
		}
		if got := <-first; got.err != nil {
			t.Fatal(got.err)
		}
		get(t, c, src.lookup("n")).wants(t, 3, cache.SourceCache)
		src.wantsLoads(t, 3)
	})
}

// The first begins one, the second, for which that is too old, another one; all others share a
// third.
func TestAThousandConcurrentMaxAgeZeroGetsCauseThreeLoadsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		var answers []<-chan answer
		for range 1000 {
			answers = append(answers, goGet(t.Context(), c, withMaxAge(src.lookup("n"), 0)))
		}
		synctest.Wait()
		src.wantsLoads(t, 2)
		close(src.gate)
		for _, a := range answers {
			if got := <-a; got.err != nil || got.Source != cache.SourceLoad {
				t.Fatalf("got %+v", got)
			}
		}
		src.wantsLoads(t, 3)
	})
}

func TestACallerWhoseContextEndsLeavesTheLoadRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		gone := goGet(ctx, c, src.lookup("n"))
		synctest.Wait()
		stays := goGet(t.Context(), c, src.lookup("n"))
		synctest.Wait()
		cancel()
		(<-gone).wantsErr(t, context.Canceled)
		src.gate <- struct{}{}
		(<-stays).wants(t, 1, cache.SourceLoad)
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceCache)
	})
}

func TestAnAbandonedLoadStillFillsTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer{err: func() error { _, err := c.Get(ctx, src.lookup("n")); return err }()}.
			wantsErr(t, context.DeadlineExceeded)
		src.gate <- struct{}{}
		synctest.Wait()
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceCache)
	})
}

func TestAQueuedLoadThatNobodyWaitsForIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		running := twoRunning(t, c, src.lookup("n"))
		ctx, cancel := context.WithCancel(t.Context())
		gone := goGet(ctx, c, withMaxAge(src.lookup("n"), 0))
		synctest.Wait()
		cancel()
		(<-gone).wantsErr(t, context.Canceled)
		close(src.gate)
		for _, a := range running {
			if got := <-a; got.err != nil {
				t.Fatal(got.err)
			}
		}
		synctest.Wait()
		src.wantsLoads(t, 2)
		get(t, c, withMaxAge(src.lookup("n"), 0)).wants(t, 3, cache.SourceLoad)
	})
}

func TestAQueuedCallerSurvivesTheCancellationOfTheOneWhoQueuedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		twoRunning(t, c, src.lookup("n"))
		queued := goGet(ctx, c, withMaxAge(src.lookup("n"), 0))
		synctest.Wait()
		stays := goGet(t.Context(), c, withMaxAge(src.lookup("n"), 0))
		synctest.Wait()
		cancel()
		(<-queued).wantsErr(t, context.Canceled)
		close(src.gate)
		(<-stays).wants(t, 3, cache.SourceLoad)
	})
}

// twoRunning begins as many loads as may run, so that a Get which needs a later one has to queue.
func twoRunning(t *testing.T, c *cache.Cache[int], l cache.Lookup[int]) (answers [2]<-chan answer) {
	for i := range answers {
		answers[i] = goGet(t.Context(), c, withMaxAge(l, 0))
		synctest.Wait()
	}
	return answers
}

func TestAGetWhoseContextHasEndedIsAnsweredFromTheCacheOnly(t *testing.T) {
	c, src := newCache(t), &source{}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Get(ended, src.lookup("n"))
	answer{err: err}.wantsErr(t, context.Canceled)
	src.wantsLoads(t, 0)
	get(t, c, src.lookup("n"))
	res, err := c.Get(ended, src.lookup("n"))
	answer{res, err}.wants(t, 1, cache.SourceCache)
}

func TestTheLoadSeesTheCallersValuesButNotItsEnd(t *testing.T) {
	type key struct{}
	c := newCache(t)
	ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "trace"), time.Hour)
	defer cancel()
	l := (&source{}).lookup("n")
	l.Load = func(ctx context.Context, _ cache.Key) (int, error) {
		if _, bounded := ctx.Deadline(); bounded || ctx.Value(key{}) != "trace" {
			t.Errorf("deadline %v, value %v", bounded, ctx.Value(key{}))
		}
		return 1, nil
	}
	_, err := c.Get(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
}

func TestAPanicInALoadIsAnErrorForAllWhoWait(t *testing.T) {
	for name, end := range map[string]func(){
		"panic":             func() { panic("hunter2") },
		"panic of an error": func() { panic(fmt.Errorf("hunter2")) },
		"runtime error":     func() { _ = any("hunter2").(int) },
		"end of goroutine":  runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, src := newCache(t), &source{gate: make(chan struct{})}
				l := src.lookup("n")
				l.Load = func(ctx context.Context, _ cache.Key) (int, error) {
					_, _ = src.load(ctx, cache.Key{})
					end()
					return 0, nil
				}
				a, b := goGet(t.Context(), c, l), goGet(t.Context(), c, l)
				synctest.Wait()
				close(src.gate)
				for _, got := range []answer{<-a, <-b} {
					got.wantsErr(t, cache.ErrPanicked)
					if strings.Contains(got.err.Error(), "hunter2") {
						t.Fatalf("the error shows the panic's text: %v", got.err)
					}
				}
				src.wantsLoads(t, 1)
				get(t, c, src.lookup("n")).wants(t, 2, cache.SourceLoad)
			})
		})
	}
}

func TestTheNextCallerIsRefusedWhenTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		bounded := func(name string) cache.Lookup[int] {
			l := src.lookup(name)
			l.Policy.MaxWaiting = 3
			return l
		}
		get(t, c, bounded("cached"))
		src.gate = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		a := goGet(ctx, c, bounded("a"))
		b := goGet(t.Context(), c, bounded("b"))
		synctest.Wait()
		b2 := goGet(t.Context(), c, withMaxAge(bounded("b"), 0))
		synctest.Wait()

		get(t, c, bounded("c")).wantsErr(t, cache.ErrOverloaded)
		get(t, c, bounded("b")).wantsErr(t, cache.ErrOverloaded)
		get(t, c, bounded("cached")).wants(t, 1, cache.SourceCache)
		other := bounded("c")
		other.Key.Space = "other"
		elsewhere := goGet(t.Context(), c, other)
		synctest.Wait()

		cancel() // leaves a load that nobody waits for: its place stays taken, but can be inherited
		(<-a).wantsErr(t, context.Canceled)
		get(t, c, bounded("c")).wantsErr(t, cache.ErrOverloaded)
		heir := goGet(t.Context(), c, bounded("a"))
		synctest.Wait()
		get(t, c, bounded("c")).wantsErr(t, cache.ErrOverloaded)

		close(src.gate)
		for _, waits := range []<-chan answer{b, b2, heir, elsewhere} {
			if got := <-waits; got.err != nil {
				t.Fatal(got.err)
			}
		}
		for range 5 { // no place was lost on the way
			get(t, c, withMaxAge(bounded("c"), 0))
		}
	})
}

func TestCloseEndsLoadsAndRefusesWhatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		running := twoRunning(t, c, src.lookup("n"))
		queued := goGet(t.Context(), c, withMaxAge(src.lookup("n"), 0))
		synctest.Wait()
		c.Close()
		for _, a := range []<-chan answer{running[0], running[1], queued} {
			(<-a).wantsErr(t, cache.ErrClosed)
		}
		get(t, c, src.lookup("n")).wantsErr(t, cache.ErrClosed)
		src.wantsLoads(t, 2)

		c.SetMaxBytes(1)
		if n := c.Drop("s", "n") + c.DropSpace("s") + c.DropMatching("s", func(string) bool {
			return true
		}); n != 0 {
			t.Fatalf("dropped %d after Close", n)
		}
		c.Close()
	})
}

func TestCloseWaitsForLoadsThatDoNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(t)
		l := (&source{}).lookup("n")
		l.Load = func(context.Context, cache.Key) (int, error) {
			time.Sleep(time.Minute)
			return 7, nil
		}
		waits := goGet(t.Context(), c, l)
		synctest.Wait()
		start := time.Now()
		c.Close()
		if took := time.Since(start); took != time.Minute {
			t.Fatalf("Close took %v", took)
		}
		(<-waits).wants(t, 7, cache.SourceLoad)
	})
}

func TestCloseRacingWithEverythingElse(t *testing.T) {
	for range 50 {
		c, err := cache.New(cache.Config[int]{Classify: classify})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range 8 {
			src := &source{}
			wg.Go(func() {
				for i := range 300 {
					name := fmt.Sprint(i % 50)
					if w == 0 && i == 150 {
						c.Close()
					}
					if _, err := c.Get(t.Context(), src.lookup(name)); err != nil &&
						!errors.Is(err, cache.ErrClosed) {
						t.Error(err)
					}
					c.Drop("s", name)
					if i%100 == 0 {
						c.DropSpace("s")
						c.SetMaxBytes(int64(1000 * (i + 1)))
					}
				}
			})
		}
		wg.Wait()
		c.Close()
	}
}

func TestNewRefusesANegativeBound(t *testing.T) {
	if c, err := cache.New(cache.Config[int]{MaxBytes: -1}); err == nil {
		c.Close()
		t.Fatal("no error")
	}
}

func TestGetCachedAnswersWhatIsThereAndCausesNoLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src, none := newCache(t), &source{}, &source{}
		none.err.Store(&errAbsent)
		wants := func(what string, l cache.Lookup[int], wantOK bool, wantErr error) {
			t.Helper()
			found, ok, err := c.GetCached(t.Context(), l)
			if ok != wantOK || !errors.Is(err, wantErr) ||
				ok && err == nil && (found.Value != 1 || found.Source != cache.SourceCache) {
				t.Errorf("%s: %+v, %v, %v", what, found, ok, err)
			}
		}
		wants("nothing is known", src.lookup("n"), false, nil)
		src.wantsLoads(t, 0)
		get(t, c, src.lookup("n")).wants(t, 1, cache.SourceLoad)
		_, _ = c.Get(t.Context(), none.lookup("absent"))
		synctest.Wait() // until the store has them
		wants("a copy", src.lookup("n"), true, nil)
		wants("an absence", none.lookup("absent"), true, errAbsent)
		wants("max_age 0", withMaxAge(src.lookup("n"), 0), false, nil)
		time.Sleep(2 * time.Hour)
		wants("a copy past its ttl", src.lookup("n"), false, nil)
		c.Close()
		wants("closed", src.lookup("n"), false, nil)
		src.wantsLoads(t, 1)
		none.wantsLoads(t, 1)
	})
}
