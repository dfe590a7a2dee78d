package cache_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

func TestStaleCopies(t *testing.T) {
	never, unbounded := standard, standard
	never.MaxStale = 0
	unbounded.MaxStale = 1<<63 - 1
	sec := func(n int) *time.Duration { d := time.Duration(n) * time.Second; return &d }
	for _, tt := range []struct {
		name     string
		age      time.Duration
		policy   cache.Policy
		maxAge   *time.Duration
		maxStale *time.Duration
		stale    bool
	}{
		{"a copy within ttl and max_stale stands in", 2 * time.Hour, standard, nil, nil, true},
		{"a copy beyond does not", 2*time.Hour + 1, standard, nil, nil, false},
		{"max_age zero gets a young copy, marked stale", 0, standard, sec(0), nil, true},
		{"max_age does not bound what an outage adds", 2 * time.Hour, standard, sec(1), nil, true},
		{"max_stale tightens", time.Hour + 2*time.Second, standard, nil, sec(1), false},
		{"max_stale is met to the instant", time.Hour + time.Second, standard, nil, sec(1), true},
		{"max_stale does not loosen", 2*time.Hour + 1, standard, nil, sec(1e6), false},
		{"max_stale zero is never, however young the copy", 0, standard, sec(0), sec(0), false},
		{"a negative max_stale is never", 0, standard, sec(0), sec(-1), false},
		{"a policy without max_stale is never", 0, never, sec(0), sec(60), false},
		{"a boundless max_stale does not overflow", 100 * time.Hour, unbounded, nil, nil, true},
	} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refused %v", tt.name, refused), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, src := newCache(t), &source{}
					l := src.lookup("n")
					l.Policy = tt.policy
					get(t, c, l).wants(t, 1, cache.SourceLoad)
					time.Sleep(tt.age)
					l.MaxAge, l.MaxStale = tt.maxAge, tt.maxStale
					if refused {
						l.Admit = func(cache.Key) error { return errOutage }
					} else {
						src.fail(errOutage)
					}
					if tt.stale {
						get(t, c, l).wants(t, 1, cache.SourceStale)
					} else {
						get(t, c, l).wantsErr(t, errOutage)
					}
					if loads := src.loads.Load(); refused && loads != 1 {
						t.Fatalf("%d loads though Admit refused", loads)
					}
				})
			})
		}
	}
}

func TestAStaleCopyIsJudgedWhenTheLoadHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		get(t, c, src.lookup("n"))
		time.Sleep(2*time.Hour - time.Second)
		src.gate = make(chan struct{})
		src.fail(errOutage)
		slow := goGet(t.Context(), c, src.lookup("n"))
		time.Sleep(2 * time.Second)
		close(src.gate)
		(<-slow).wantsErr(t, errOutage)
	})
}

func TestACopyDroppedWhileTheLoadFailsDoesNotStandIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		get(t, c, src.lookup("n"))
		src.gate = make(chan struct{})
		src.fail(errOutage)
		waits := goGet(t.Context(), c, withMaxAge(src.lookup("n"), 0))
		synctest.Wait()
		c.Drop("s", "n")
		close(src.gate)
		(<-waits).wantsErr(t, errOutage)
	})
}

func TestWhatAFailedLoadDoesToTheCopy(t *testing.T) {
	for _, tt := range []struct {
		failure error
		kept    bool
	}{{errOutage, true}, {errOther, true}, {errDenied, false}, {errAbsent, false}} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, refused %v", tt.failure, refused), func(t *testing.T) {
				c, src := newCache(t), &source{}
				get(t, c, src.lookup("n"))
				bad := withMaxStale(withMaxAge(src.lookup("n"), 0), 0)
				if refused {
					bad.Admit = func(cache.Key) error { return tt.failure }
				} else {
					src.fail(tt.failure)
				}
				get(t, c, bad).wantsErr(t, tt.failure)
				if tt.kept {
					get(t, c, src.lookup("n")).wants(t, 1, cache.SourceCache)
					return
				}
				if n := c.Len("s"); n != 0 {
					t.Fatalf("%d copies left", n)
				}
				src.fail(errOutage)
				get(t, c, withMaxAge(src.lookup("n"), 0)).wantsErr(t, errOutage)
			})
		}
	}
}

func TestALoopOnADenialCostsOneLoadASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		src.fail(errDenied)
		lookup := src.lookup("n")
		lookup.Policy.NegativeTTL = 0
		for range 1000 { // ten seconds
			get(t, c, lookup).wantsErr(t, errDenied)
			time.Sleep(10 * time.Millisecond)
		}
		src.wantsLoads(t, 10)
		src.recover()
		time.Sleep(time.Second)
		get(t, c, lookup).wants(t, 11, cache.SourceLoad)
	})
}

func TestADenialIsOfOneNameAndVersionAndNotForWhoWantsALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		src.fail(errDenied)
		get(t, c, src.lookup("n")).wantsErr(t, errDenied)
		src.recover()
		get(t, c, src.lookup("other")).wants(t, 2, cache.SourceLoad)
		get(t, c, withMaxAge(src.lookup("n"), 0)).wants(t, 3, cache.SourceLoad)
		src.fail(errDenied)
		get(t, c, withMaxAge(src.lookup("n"), 0)).wantsErr(t, errDenied)
		src.recover()
		get(t, c, src.lookup("n")).wantsErr(t, errDenied)
		c.Drop("s", "n")
		get(t, c, src.lookup("n")).wants(t, 5, cache.SourceLoad)
	})
}

func TestOtherErrorsAreNotRemembered(t *testing.T) {
	for _, failure := range []error{errOther, errOutage} {
		c, src := newCache(t), &source{}
		src.fail(failure)
		get(t, c, src.lookup("n")).wantsErr(t, failure)
		get(t, c, src.lookup("n")).wantsErr(t, failure)
		src.wantsLoads(t, 2)
	}
}

type detailedError struct{ detail string }

func (e *detailedError) Error() string { return e.detail }
func (e *detailedError) Unwrap() error { return errAbsent }

func TestAbsenceIsRememberedAsTheSameError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		loadErr := &detailedError{"no such secret"}
		src.fail(loadErr)
		get(t, c, src.lookup("n")).wantsErr(t, loadErr)
		time.Sleep(10 * time.Second)
		get(t, c, src.lookup("n")).wantsErr(t, loadErr)
		src.wantsLoads(t, 1)
		time.Sleep(1)
		src.recover()
		get(t, c, src.lookup("n")).wants(t, 2, cache.SourceLoad)
	})
}

func TestAbsenceIsSkippedByMaxAgeAndByAPolicyWithoutIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		src.fail(errAbsent)
		get(t, c, src.lookup("n"))
		get(t, c, withMaxAge(src.lookup("n"), 0)).wantsErr(t, errAbsent)
		src.wantsLoads(t, 2)
		time.Sleep(2 * time.Second)
		get(t, c, withMaxAge(src.lookup("n"), 2*time.Second)).wantsErr(t, errAbsent)
		src.wantsLoads(t, 2)
		get(t, c, withMaxAge(src.lookup("n"), time.Second)).wantsErr(t, errAbsent)
		src.wantsLoads(t, 3)
		l := src.lookup("n")
		l.Policy.NegativeTTL = 0
		get(t, c, l).wantsErr(t, errAbsent)
		get(t, c, l).wantsErr(t, errAbsent)
		src.wantsLoads(t, 5)
	})
}

func TestAdmitIsAskedOnMissesOnlyAndBeforeJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{}
		refusal := errors.Join(errOutage, errors.New("with a remedy"))
		refused := src.lookup("n")
		refused.Admit = func(cache.Key) error { return refusal }
		get(t, c, refused).wantsErr(t, refusal)
		src.wantsLoads(t, 0)

		src.gate = make(chan struct{})
		probe := goGet(t.Context(), c, src.lookup("n"))
		synctest.Wait()
		get(t, c, refused).wantsErr(t, refusal) // at once, though a load runs
		close(src.gate)
		(<-probe).wants(t, 1, cache.SourceLoad)
		get(t, c, refused).wants(t, 1, cache.SourceCache)
	})
}

func TestAQueuedLoadAsksAdmitAgainWhenItsTurnComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, src := newCache(t), &source{gate: make(chan struct{})}
		out := false
		l := src.lookup("n")
		l.Admit = func(cache.Key) error {
			if out {
				return errOutage
			}
			return nil
		}
		running := twoRunning(t, c, l)
		queued := goGet(t.Context(), c, withMaxAge(l, 0))
		synctest.Wait()
		out = true
		src.fail(errOutage)
		close(src.gate)
		for _, a := range []<-chan answer{running[0], running[1], queued} {
			(<-a).wantsErr(t, errOutage)
		}
		src.wantsLoads(t, 2)
	})
}
