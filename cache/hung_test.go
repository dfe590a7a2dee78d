package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

// loads hands each load of one key to the test, which says when and how it ends.
type loads struct {
	t     *testing.T
	begun []chan func() (int, error)
}

func (l *loads) lookup() cache.Lookup[int] {
	return cache.Lookup[int]{
		Key: cache.Key{Space: "s", Name: "n"}, Policy: standard,
		Load: func(ctx context.Context, _ cache.Key) (int, error) {
			end := make(chan func() (int, error))
			l.begun = append(l.begun, end)
			select {
			case how := <-end:
				return how()
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		},
	}
}

func (l *loads) fresh() cache.Lookup[int] { return withMaxAge(l.lookup(), 0) }

// get begins a Get and returns when it waits.
func (l *loads) get(c *cache.Cache[int], lookup cache.Lookup[int]) <-chan answer {
	a := goGet(l.t.Context(), c, lookup)
	synctest.Wait()
	return a
}

// end ends the load with the number, counted from 1.
func (l *loads) end(number, value int, err error) {
	l.endHow(number, func() (int, error) { return value, err })
}

func (l *loads) endHow(number int, how func() (int, error)) {
	l.begun[number-1] <- how
	synctest.Wait()
}

func (l *loads) wantBegun(n int) {
	l.t.Helper()
	if len(l.begun) != n {
		l.t.Fatalf("%d loads have begun, want %d", len(l.begun), n)
	}
}

// inBubble runs the test with an empty cache and no load begun.
func inBubble(t *testing.T, test func(t *testing.T, c *cache.Cache[int], l *loads)) {
	synctest.Test(t, func(t *testing.T) { test(t, newCache(t), &loads{t: t}) })
}

func wantWaiting(t *testing.T, a <-chan answer) {
	t.Helper()
	select {
	case got := <-a:
		t.Fatalf("answered with %+v, want it to wait", got)
	default:
	}
}

func TestAFreshGetDoesNotWaitForALoadThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		l.get(c, l.lookup())
		fresh := l.get(c, l.fresh())
		l.wantBegun(2)
		l.end(2, 2, nil)
		(<-fresh).wants(t, 2, cache.SourceLoad)
		get(t, c, l.lookup()).wants(t, 2, cache.SourceCache)
	})
}

func TestAGetThatTheHangingLoadIsTooOldForDoesNotWaitForIt(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		l.get(c, l.lookup())
		time.Sleep(5 * time.Second)
		joins := l.get(c, withMaxAge(l.lookup(), 5*time.Second))
		l.wantBegun(1)
		starts := l.get(c, withMaxAge(l.lookup(), 5*time.Second-1))
		l.wantBegun(2)
		l.end(2, 2, nil)
		(<-starts).wants(t, 2, cache.SourceLoad)
		(<-joins).wants(t, 2, cache.SourceLoad)
	})
}

func TestAtMostTwoLoadsOfAKeyRunAndOneIsQueued(t *testing.T) {
	for _, ends := range []int{1, 2} {
		t.Run(fmt.Sprintf("load %d ends first", ends), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
				l.get(c, l.lookup())
				l.get(c, l.fresh())
				var queued []<-chan answer
				for range 1000 {
					queued = append(queued, l.get(c, l.fresh()))
				}
				l.wantBegun(2)
				l.end(ends, ends, nil)
				l.wantBegun(3)
				later := l.get(c, l.fresh())
				l.wantBegun(3)
				l.end(3, 3, nil)
				for _, a := range queued {
					(<-a).wants(t, 3, cache.SourceLoad)
				}
				l.wantBegun(4)
				l.end(4, 4, nil)
				(<-later).wants(t, 4, cache.SourceLoad)
			})
		})
	}
}

func TestWhoeverALoadIsRecentEnoughForJoinsTheNewestOne(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		l.get(c, l.lookup())
		time.Sleep(time.Second)
		l.get(c, l.fresh())
		joins := l.get(c, l.lookup())
		l.wantBegun(2)
		l.end(2, 2, nil)
		(<-joins).wants(t, 2, cache.SourceLoad)
	})
}

func TestALoadThatEndsAnswersThoseWhoWaitForAnOlderOne(t *testing.T) {
	for _, tt := range []struct {
		err    error
		shared bool
	}{{nil, true}, {errAbsent, true}, {errDenied, true}, {errOutage, false}, {errOther, false}} {
		t.Run(fmt.Sprint(tt.err), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
				old := l.get(c, l.lookup())
				fresh := l.get(c, l.fresh())
				l.end(2, 2, tt.err)
				wants := func(a answer) {
					t.Helper()
					if tt.err != nil {
						a.wantsErr(t, tt.err)
						return
					}
					a.wants(t, 2, cache.SourceLoad)
				}
				wants(<-fresh)
				if tt.shared {
					wants(<-old)
					return
				}
				wantWaiting(t, old)
				l.end(1, 1, nil)
				(<-old).wants(t, 1, cache.SourceLoad)
				get(t, c, l.lookup()).wants(t, 1, cache.SourceCache)
			})
		})
	}
}

func TestTheResultOfAnOlderLoadNeverReplacesThatOfANewerOne(t *testing.T) {
	for _, newer := range []error{nil, errAbsent, errDenied} {
		for _, older := range []error{nil, errAbsent, errDenied, errOutage, errOther} {
			t.Run(fmt.Sprintf("newer %v, older %v", newer, older), func(t *testing.T) {
				inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
					l.get(c, l.lookup())
					l.get(c, l.fresh())
					l.end(2, 2, newer)
					l.end(1, 1, older)
					switch {
					case newer == nil:
						get(t, c, l.lookup()).wants(t, 2, cache.SourceCache)
					case errors.Is(newer, errAbsent):
						get(t, c, l.lookup()).wantsErr(t, errAbsent)
						l.wantBegun(2)
					default:
						get(t, c, l.lookup()).wantsErr(t, errDenied)
						l.wantBegun(2)
					}
				})
			})
		}
	}
}

func TestWhatTheOlderLoadBringsIsKeptUntilTheNewerOneEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		old := l.get(c, l.lookup())
		fresh := l.get(c, l.fresh())
		l.end(1, 1, nil)
		(<-old).wants(t, 1, cache.SourceLoad)
		get(t, c, l.lookup()).wants(t, 1, cache.SourceCache)
		wantWaiting(t, fresh)
		l.end(2, 2, nil)
		(<-fresh).wants(t, 2, cache.SourceLoad)
		get(t, c, l.lookup()).wants(t, 2, cache.SourceCache)
	})
}

// After a denial there is no copy. Who arrives then must not be handed what was read before it.
func TestNobodyJoinsALoadThatANewerOneHasOvertaken(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		l.get(c, l.lookup())
		l.get(c, l.fresh())
		l.end(2, 0, errDenied)
		time.Sleep(time.Second + 1) // the denial is remembered for a second
		late := l.get(c, l.lookup())
		l.wantBegun(3)
		queued := l.get(c, l.fresh())
		l.wantBegun(3) // the one that was overtaken still counts: its read is under way
		l.end(3, 3, nil)
		(<-late).wants(t, 3, cache.SourceLoad)
		l.end(1, 1, nil)
		l.end(4, 4, nil)
		(<-queued).wants(t, 4, cache.SourceLoad)
	})
}

func TestAPanicOrTheEndOfOneLoadLeavesTheOther(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() {
		panic("hunter2")
	}, "end of goroutine": runtime.Goexit} {
		for _, fails := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s of load %d", name, fails), func(t *testing.T) {
				inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
					waits := []<-chan answer{l.get(c, l.lookup()), l.get(c, l.fresh())}
					queued := l.get(c, l.fresh())
					l.endHow(fails, func() (int, error) { end(); return 0, nil })
					(<-waits[fails-1]).wantsErr(t, cache.ErrPanicked)
					wantWaiting(t, waits[2-fails])
					l.wantBegun(3)
					l.end(3, 3, nil)
					(<-queued).wants(t, 3, cache.SourceLoad)
					(<-waits[2-fails]).wants(t, 3, cache.SourceLoad)
				})
			})
		}
	}
}

func TestAfterADropNobodyWaitsForLoadsThatHang(t *testing.T) {
	forEachDrop(t, func(t *testing.T, drop func(*cache.Cache[int]) int) {
		inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
			old := []<-chan answer{l.get(c, l.lookup()), l.get(c, l.fresh())}
			queued := l.get(c, l.fresh())
			l.wantBegun(2)

			drop(c)
			synctest.Wait()
			l.wantBegun(3) // the queued one, which had not begun before the drop
			late := l.get(c, l.lookup())
			fresh := l.get(c, l.fresh())
			l.wantBegun(4)
			l.end(4, 4, nil)
			(<-late).wants(t, 4, cache.SourceLoad)
			(<-queued).wants(t, 4, cache.SourceLoad)
			(<-fresh).wants(t, 4, cache.SourceLoad)

			l.end(2, 2, nil)
			l.end(1, 1, nil)
			(<-old[0]).wants(t, 1, cache.SourceLoad)
			(<-old[1]).wants(t, 2, cache.SourceLoad)
			l.end(3, 3, nil)
			get(t, c, l.lookup()).wants(t, 4, cache.SourceCache)
		})
	})
}

func TestAnOutageThatBothLoadsMeetIsAnsweredWithTheCopy(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		first := l.get(c, l.lookup())
		l.end(1, 1, nil)
		(<-first).wants(t, 1, cache.SourceLoad)
		out := false
		lookup := l.fresh()
		lookup.Admit = func(cache.Key) error {
			if out {
				return errOutage
			}
			return nil
		}
		two := []<-chan answer{l.get(c, lookup), l.get(c, lookup)}
		queued := l.get(c, lookup)
		out = true
		l.end(2, 0, errOutage)
		(<-two[0]).wants(t, 1, cache.SourceStale)
		(<-queued).wants(t, 1, cache.SourceStale)
		l.wantBegun(3) // the queued one has asked Admit again, and was refused
		l.end(3, 0, errOutage)
		(<-two[1]).wants(t, 1, cache.SourceStale)
	})
}

func TestEveryCallerOfEveryLoadCountsAsWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		bounded := func(lookup cache.Lookup[int]) cache.Lookup[int] {
			lookup.Policy.MaxWaiting = 3
			return lookup
		}
		old := l.get(c, bounded(l.lookup()))
		fresh := l.get(c, bounded(l.fresh()))
		queued := l.get(c, bounded(l.fresh()))
		get(t, c, bounded(l.fresh())).wantsErr(t, cache.ErrOverloaded)
		l.end(2, 2, nil) // answers the first two; the first load goes on for nobody
		(<-fresh).wants(t, 2, cache.SourceLoad)
		(<-old).wants(t, 2, cache.SourceLoad)
		other := l.get(c, bounded(l.fresh()))
		get(t, c, bounded(l.fresh())).wantsErr(t, cache.ErrOverloaded)
		l.end(1, 1, nil)
		l.end(3, 3, nil)
		(<-queued).wants(t, 3, cache.SourceLoad)
		l.end(4, 4, nil)
		(<-other).wants(t, 4, cache.SourceLoad)
		three := []<-chan answer{l.get(c, bounded(l.fresh())), l.get(c, bounded(l.fresh())),
			l.get(c, bounded(l.fresh()))}
		l.wantBegun(6) // no place was lost on the way
		l.end(5, 5, nil)
		l.end(6, 6, nil)
		l.end(7, 7, nil)
		for _, a := range three {
			if got := <-a; got.err != nil {
				t.Fatal(got.err)
			}
		}
	})
}

func TestAHitRefreshesThoughAnOvertakenLoadHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cache.Cache[int], l *loads) {
		lookup := l.lookup()
		lookup.Policy.RefreshAhead = time.Hour
		l.get(c, lookup)
		l.get(c, l.fresh())
		l.end(2, 2, nil)
		time.Sleep(50 * time.Minute)
		get(t, c, lookup).wants(t, 2, cache.SourceCache)
		synctest.Wait()
		l.wantBegun(3)
		l.end(1, 1, nil)
		get(t, c, lookup).wants(t, 2, cache.SourceCache)
		synctest.Wait()
		l.wantBegun(3) // the refresh that runs is not begun again
		l.end(3, 3, nil)
		get(t, c, lookup).wants(t, 3, cache.SourceCache)
	})
}

// A value is the time at which it was read. Whoever begins to ask when a value has been answered
// never gets an older one, though loads of any age end in any order. Times are multiples of 100 µs
// of the bubble's clock, so that many things happen at once.
func TestNobodyIsAnsweredWithAnOlderValueThanOneAnsweredBefore(t *testing.T) {
	for _, drops := range []bool{false, true} {
		t.Run(fmt.Sprintf("drops %v", drops), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCache(t)
				var answered, running atomic.Int64
				start := time.Now()
				lookup := cache.Lookup[int]{
					Key: cache.Key{Space: "s", Name: "n"},
					Policy: cache.Policy{TTL: time.Millisecond, MaxStale: time.Hour,
						RefreshAhead: time.Hour},
					Load: func(context.Context, cache.Key) (int, error) {
						if n := running.Add(1); n > 2 && !drops {
							t.Errorf("%d loads are under way", n)
						}
						defer running.Add(-1)
						value := time.Since(start)
						pause(20)
						return int(value), nil
					},
				}
				ask := func(l cache.Lookup[int]) {
					before := answered.Load()
					got := get(t, c, l)
					if got.err != nil || int64(got.Value) < before {
						t.Errorf("got %d, error %v, after %d was answered", got.Value, got.err,
							before)
					}
					for seen := answered.Load(); int64(got.Value) > seen &&
						!answered.CompareAndSwap(seen, int64(got.Value)); {
						seen = answered.Load()
					}
				}
				var workers sync.WaitGroup
				for i := range 8 {
					workers.Go(func() {
						for round := range 500 {
							l := lookup
							if (i+round)%3 == 0 {
								l = withMaxAge(l, time.Duration(round%4)*200*time.Microsecond)
							}
							ask(l)
							if drops && (i+round)%50 == 0 {
								c.Drop("s", "n")
							}
							pause(5)
						}
					})
				}
				workers.Wait()
			})
		})
	}
}
