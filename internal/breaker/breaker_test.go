package breaker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("the service is down")

// inBubble runs a test of a new Breaker on a clock of its own.
func inBubble(t *testing.T, test func(t *testing.T, b *Breaker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, New(nil)) })
}

func key(group, name string) Key { return Key{Group: group, Name: name} }

// mustAllow lets a call through, or fails the test.
func mustAllow(t *testing.T, b *Breaker, key Key) Call {
	t.Helper()
	call, err := b.Allow(key)
	if err != nil {
		t.Fatalf("a call for %v is refused: %v", key, err)
	}
	return call
}

// mustRefuse fails the test when a call is let through.
func mustRefuse(t *testing.T, b *Breaker, key Key) {
	t.Helper()
	_ = refusalOf(t, b, key)
}

// refusalOf returns why a call is refused, or fails the test.
func refusalOf(t *testing.T, b *Breaker, key Key) *OpenError {
	t.Helper()
	call, err := b.Allow(key)
	open, ok := errors.AsType[*OpenError](err)
	if !ok {
		t.Fatalf("a call for %v is let through: %+v", key, call)
	}
	return open
}

// end lets a call through that ends at once.
func end(t *testing.T, b *Breaker, key Key, outcome Outcome) {
	t.Helper()
	mustAllow(t, b, key).Done(Result{Outcome: outcome, Err: errOf(outcome)})
}

func errOf(outcome Outcome) error {
	if outcome == Succeeded {
		return nil
	}
	return errDown
}

// failMany ends calls of as many keys of a group badly.
func failMany(t *testing.T, b *Breaker, group string, keys int) {
	t.Helper()
	for i := range keys {
		end(t, b, key(group, fmt.Sprint("bad", i)), Failed)
	}
}

func TestAKeyThatFailsIsHeldUpAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		end(t, b, key("secret", "bad"), Failed)
		refusal := refusalOf(t, b, key("secret", "bad"))
		if !errors.Is(refusal, errDown) || refusal.RetryAfter <= 0 || refusal.Trial != nil {
			t.Errorf("the refusal is %+v", refusal)
		}
		end(t, b, key("secret", "good"), Succeeded)
		// the good answer of another key says nothing about it
		mustRefuse(t, b, key("secret", "bad"))
		time.Sleep(refusal.RetryAfter)
		end(t, b, key("secret", "bad"), Succeeded)
		end(t, b, key("secret", "bad"), Succeeded)
	})
}

func TestThePausesOfAKeyBeginAt200MillisecondsAndDoubleTo4Seconds(t *testing.T) {
	for range 20 { // the pauses are drawn
		inBubble(t, func(t *testing.T, b *Breaker) {
			bad := key("secret", "bad")
			for _, millis := range []int{200, 400, 800, 1600, 3200, 4000, 4000, 4000} {
				end(t, b, bad, Failed)
				pause, want := refusalOf(t, b, bad).RetryAfter,
					time.Duration(millis)*time.Millisecond
				if pause < want*85/100-1 || pause > want*115/100+1 {
					t.Errorf("a pause takes %v, want %v and 15 %% more or less", pause, want)
				}
				time.Sleep(pause)
			}
			end(t, b, bad, Succeeded)
			end(t, b, bad, Failed)
			if pause := refusalOf(t, b, bad).RetryAfter; pause > 230*time.Millisecond+1 {
				t.Errorf("the pause after a success is %v: it should begin anew", pause)
			}
		})
	}
}

func TestThePausesDiffer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		pauses := map[time.Duration]bool{}
		for i := range 50 {
			bad := key(fmt.Sprint("group", i), "bad")
			end(t, b, bad, Failed)
			pauses[refusalOf(t, b, bad).RetryAfter] = true
		}
		if len(pauses) < 10 {
			t.Errorf("%d different pauses of 50: a fleet would ask in step", len(pauses))
		}
	})
}

func TestFiveKeysThatFailInARowOpenTheirGroupAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		failMany(t, b, "batch", manyKeys-1)
		mustAllow(t, b, key("batch", "other")).Done(Result{Outcome: Abandoned})
		mustAllow(t, b, key("batch", "another")).Done(Result{Outcome: Abandoned})
		end(t, b, key("batch", "fifth"), Failed)
		// it may show at once that the rest of the group is well
		probe := mustAllow(t, b, key("batch", "other"))
		mustRefuse(t, b, key("batch", "another"))
		end(t, b, key("secret", "app"), Succeeded)
		// the good answer of another group says nothing about it
		mustRefuse(t, b, key("batch", "another"))
		probe.Done(Result{Outcome: Failed, Err: errDown})
		mustRefuse(t, b, key("batch", "another"))
	})
}

func TestOneGoodAnswerClosesTheGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		failMany(t, b, "batch", manyKeys)
		end(t, b, key("batch", "good"), Succeeded)
		for i := range 10 {
			end(t, b, key("batch", fmt.Sprint("good", i)), Succeeded)
		}
		mustRefuse(t, b, key("batch", "bad0")) // it has its own pause
	})
}

func TestAGoodAnswerBetweenThemBeginsTheCountOfKeysAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		for range 10 {
			failMany(t, b, "batch", manyKeys-1)
			end(t, b, key("batch", "good"), Succeeded)
			time.Sleep(2 * maxPause)
		}
		mustAllow(t, b, key("batch", "one"))
		mustAllow(t, b, key("batch", "two"))
	})
}

func TestOneKeyThatFailsAgainAndAgainDoesNotOpenItsGroup(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		for range 5 * manyKeys {
			end(t, b, key("batch", "bad"), Failed)
			time.Sleep(2 * maxPause)
		}
		mustAllow(t, b, key("batch", "one"))
		mustAllow(t, b, key("batch", "two"))
	})
}

func TestGroupsThatFailHoldUpNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		for i := range 10 {
			failMany(t, b, fmt.Sprint("group", i), manyKeys)
		}
		mustAllow(t, b, key("secret", "one")).Done(Result{Outcome: Abandoned})
		mustAllow(t, b, key("secret", "two")).Done(Result{Outcome: Abandoned})
	})
}

func TestSilenceOpensTheCircuitForAllAndAnyAnswerClosesIt(t *testing.T) {
	for name, silence := range map[string]Outcome{"no connection": Silent,
		"no answer in time": TimedOut} {
		for answer, outcome := range map[string]Outcome{"a good answer": Succeeded,
			"a bad answer": Failed} {
			t.Run(name+", "+answer, func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *Breaker) {
					time.Sleep(time.Second)
					end(t, b, key("secret", "app"), silence)
					// it may have been the key's fault: the next one may show that at once
					if silence == TimedOut {
						end(t, b, key("other", "app"), Abandoned)
					}
					pause := refusalOf(t, b, key("other", "app")).RetryAfter
					if pause > 250*time.Millisecond {
						t.Errorf("the first pause is %v", pause)
					}
					time.Sleep(pause)
					end(t, b, key("other", "app"), outcome)
					mustAllow(t, b, key("third", "app"))
					// what was silent meanwhile may be tried at once
					mustAllow(t, b, key("secret", "app"))
				})
			})
		}
	}
}

func TestATimeoutStaysWithItsKeyWhenOthersWereAnsweredMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		hanging := mustAllow(t, b, key("secret", "hangs"))
		time.Sleep(time.Second)
		end(t, b, key("secret", "good"), Succeeded)
		time.Sleep(time.Second)
		hanging.Done(Result{Outcome: TimedOut, Err: errDown})
		mustRefuse(t, b, key("secret", "hangs"))
		end(t, b, key("secret", "good"), Succeeded)
		end(t, b, key("secret", "another"), Succeeded)
	})
}

func TestACallFromBeforeTheLastAnswerOpensNothingButItsKey(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		end(t, b, key("secret", "app"), Succeeded)
		time.Sleep(time.Second)
		old := make([]Call, 20)
		for i := range old {
			old[i] = mustAllow(t, b, key("secret", fmt.Sprint("old", i)))
		}
		time.Sleep(time.Second)
		end(t, b, key("secret", "app"), Succeeded)
		for _, call := range old { // they had the connections that are gone
			call.Done(Result{Outcome: Silent, Err: errDown})
		}
		mustRefuse(t, b, key("secret", "old0"))
		end(t, b, key("secret", "app"), Succeeded)
		end(t, b, key("secret", "new"), Succeeded)
	})
}

func TestAServiceThatServesNobodyOpensTheCircuitForAllUntilItDoesWhatItIsAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		end(t, b, key("secret", "app"), FailedAll)
		time.Sleep(refusalOf(t, b, key("other", "app")).RetryAfter)
		end(t, b, key("other", "app"), Failed) // an answer, but no good one
		time.Sleep(refusalOf(t, b, key("third", "app")).RetryAfter)
		end(t, b, key("third", "app"), Succeeded)
		end(t, b, key("secret", "app"), Succeeded)
	})
}

func TestANodeThatServesNobodyWhileOthersServeHoldsUpItsKeyAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		var sealed []Call
		for i := range 3 * manyKeys {
			sealed = append(sealed, mustAllow(t, b, key("secret", fmt.Sprint("sealed", i))))
		}
		time.Sleep(time.Second)
		end(t, b, key("secret", "served"), Succeeded)
		time.Sleep(time.Second)
		for _, call := range sealed {
			call.Done(Result{Outcome: FailedAll, Err: errDown})
		}
		mustRefuse(t, b, key("secret", "sealed0"))
		end(t, b, key("secret", "served"), Succeeded)
		end(t, b, key("secret", "other"), Succeeded)
	})
}

func TestWhatFailsAloneNeverHoldsUpOthers(t *testing.T) {
	for name, outcome := range map[string]Outcome{"failed": Failed, "sealed": FailedAll,
		"silent": Silent, "timed out": TimedOut} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *Breaker) {
				time.Sleep(time.Second)
				for range 3 * manyKeys {
					for _, alone := range []string{"log in", "renew", "one", "two", "three",
						"four"} {
						mustAllow(t, b,
							key("auth", alone)).Done(Result{Outcome: outcome, Err: errDown,
							Alone: true})
						mustRefuse(t, b, key("auth", alone))
					}
					mustAllow(t, b, key("auth", "other")).Done(Result{Outcome: Abandoned})
					mustAllow(t, b, key("secret", "app")).Done(Result{Outcome: Abandoned})
					mustAllow(t, b, key("secret", "app")).Done(Result{Outcome: Abandoned})
					time.Sleep(2 * maxPause)
				}
			})
		})
	}
}

func TestRetryAfterIsHonouredUpTo8SecondsAndByItsKeyAlone(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		3 * time.Second: 3 * time.Second, 8 * time.Second: 8 * time.Second,
		time.Minute: 8 * time.Second,
	} {
		inBubble(t, func(t *testing.T, b *Breaker) {
			for i := range manyKeys {
				limited := key("batch", fmt.Sprint(i))
				mustAllow(t, b, limited).Done(Result{Outcome: Failed, Err: errDown,
					RetryAfter: asked})
				if got := refusalOf(t, b, limited).RetryAfter; got != want {
					t.Errorf("asked to wait for %v, the key waits for %v", asked, got)
				}
			}
			// By now the group is open. It goes by its own pauses.
			mustAllow(t, b, key("batch", "good")).Done(Result{Outcome: Abandoned})
			if got := refusalOf(t, b, key("batch", "good")).RetryAfter; got > 250*time.Millisecond {
				t.Errorf("the group waits for %v", got)
			}
			mustAllow(t, b, key("secret", "app"))
		})
	}
}

func TestRetryAfterOfAServiceThatServesNobodyHoldsForAll(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		mustAllow(t, b, key("secret", "app")).Done(Result{Outcome: FailedAll, Err: errDown,
			RetryAfter: time.Minute})
		if got := refusalOf(t, b, key("other", "app")).RetryAfter; got != retryAfterLimit {
			t.Errorf("all wait for %v", got)
		}
	})
}

func TestKeysThatKeepFailingDoNotTakeTheTurnsOfHealthyOnes(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		failMany(t, b, "secret", 4)
		end(t, b, key("secret", "good"), FailedAll)
		healthy := 0
		for range 6000 { // a minute
			for i := range 4 {
				mustRefuse(t, b, key("secret", fmt.Sprint("bad", i)))
			}
			if call, err := b.Allow(key("secret", "good")); err == nil {
				healthy++
				call.Done(Result{Outcome: FailedAll, Err: errDown})
			}
			time.Sleep(10 * time.Millisecond)
		}
		if healthy < 10 {
			t.Errorf("the healthy key had %d turns in a minute", healthy)
		}
	})
}

func TestKeysThatKeepFailingHaveTheirTurnsWhenNobodyElseAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		failMany(t, b, "secret", 4)
		end(t, b, key("secret", "good"), FailedAll)
		began := time.Now()
		for tried := false; !tried; time.Sleep(10 * time.Millisecond) {
			if call, err := b.Allow(key("secret", "bad0")); err == nil {
				call.Done(Result{Outcome: Succeeded})
				tried = true
			}
		}
		if took := time.Since(began); took > healthyFirst+time.Second {
			t.Errorf("the first turn came after %v", took)
		}
		mustAllow(t, b, key("secret", "good"))
	})
}

func TestOthersMayWaitForATrialAndGoOnAtItsEnd(t *testing.T) {
	for name, outcome := range map[string]Outcome{"it succeeds": Succeeded, "it fails": FailedAll,
		"it is abandoned": Abandoned} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *Breaker) {
				end(t, b, key("secret", "app"), FailedAll)
				if refusalOf(t, b, key("secret", "one")).Trial != nil {
					t.Error("there is a trial before anybody was let through")
				}
				time.Sleep(time.Second)
				trial := mustAllow(t, b, key("secret", "one"))
				refusal := refusalOf(t, b, key("secret", "two"))
				if refusal.Trial == nil {
					t.Fatal("nobody may wait for the trial")
				}
				if err := b.Check(key("secret", "two")); err != nil {
					t.Errorf("Check refuses a call that may wait: %v", err)
				}
				var waiters sync.WaitGroup
				for range 10 {
					waiters.Go(func() { <-refusal.Trial })
				}
				trial.Done(Result{Outcome: outcome, Err: errOf(outcome)})
				waiters.Wait()
				if _, err := b.Allow(key("secret", "two")); (err == nil) != (outcome == Succeeded) {
					t.Errorf("after the trial: %v", err)
				}
			})
		})
	}
}

func TestInASilentOutageOthersWaitForTheFirstTrialAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		time.Sleep(time.Second)
		end(t, b, key("secret", "app"), Silent)
		for i := range 4 {
			time.Sleep(2 * maxPause)
			trial := mustAllow(t, b, key("secret", "one"))
			if waits := refusalOf(t, b, key("secret", "two")).Trial != nil; waits != (i == 0) {
				t.Errorf("trial %d: others may wait: %v", i, waits)
			}
			trial.Done(Result{Outcome: Silent, Err: errDown})
		}
	})
}

func TestCheckLetsNothingThrough(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		end(t, b, key("secret", "app"), FailedAll)
		if err := b.Check(key("secret", "app")); !errors.Is(err, errDown) {
			t.Errorf("Check says %v while the circuit is open", err)
		}
		time.Sleep(time.Second)
		for range 10 {
			if err := b.Check(key("secret", "app")); err != nil {
				t.Errorf("Check says %v when a call is due", err)
			}
		}
		mustAllow(t, b, key("secret", "app"))
	})
}

func TestTheMemoryIsBounded(t *testing.T) {
	for name, alone := range map[string]bool{"alone": true, "with their groups": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *Breaker) {
				for i := range 20_000 {
					// whatever is let through
					call := Call{breaker: b, key: key(fmt.Sprint(i%2000), fmt.Sprint(i)),
						began: time.Now()}
					call.Done(Result{Outcome: Failed, Err: errDown, Alone: alone})
				}
				if len(b.keys) > maxKeys || len(b.groups) > maxGroups {
					t.Errorf("%d keys and %d groups are kept", len(b.keys), len(b.groups))
				}
				for name, group := range b.groups {
					if len(group.failing) > manyKeys {
						t.Errorf("group %s keeps %d failing keys", name, len(group.failing))
					}
				}
			})
		})
	}
}

func TestRecoveredClosesTheCircuitForAllAndLeavesTheKeysTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int32
		b := New(func() { changes.Add(1) })
		end(t, b, key("secret", "bad"), Failed)
		end(t, b, key("secret", "app"), FailedAll)
		changes.Store(0)
		b.Recovered()
		b.Recovered()
		if _, failure := b.Failure(); failure != nil || changes.Load() != 1 {
			t.Errorf("the failure is %v, and %d changes were told of", failure, changes.Load())
		}
		end(t, b, key("secret", "app"), Succeeded)
		mustRefuse(t, b, key("secret", "bad"))
	})
}

func TestFailureIsTheLastCallsAndSaysWhen(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		if _, failure := b.Failure(); failure != nil {
			t.Errorf("before the first call: %v", failure)
		}
		for _, outcome := range []Outcome{Failed, FailedAll, Silent, TimedOut} {
			time.Sleep(time.Minute)
			end(t, b, key("secret", fmt.Sprint(outcome)), outcome)
			if at, failure := b.Failure(); !errors.Is(failure, errDown) || !at.Equal(time.Now()) {
				t.Errorf("outcome %d: failure %v at %v", outcome, failure, at)
			}
			at := time.Now()
			time.Sleep(time.Minute)
			end(t, b, key("secret", "app"), Abandoned)
			if then, failure := b.Failure(); failure == nil || !then.Equal(at) {
				t.Errorf("a call that was given up counts as an answer: %v at %v", failure, then)
			}
			time.Sleep(time.Minute)
			end(t, b, key("secret", "app"), Succeeded)
			if _, failure := b.Failure(); failure != nil {
				t.Errorf("after a success: %v", failure)
			}
		}
	})
}

func TestAChangeIsToldOnceAndWithNoLockHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		var b *Breaker
		b = New(func() {
			told++
			_, _ = b.Failure() // would hang with the lock held
		})
		ask := func(outcome Outcome, want int) {
			t.Helper()
			time.Sleep(2 * maxPause)
			end(t, b, key("secret", "app"), outcome)
			if told != want {
				t.Errorf("after outcome %d: told %d times, want %d", outcome, told, want)
			}
		}
		ask(Succeeded, 0)
		ask(FailedAll, 1)
		ask(FailedAll, 1)
		ask(Abandoned, 1)
		ask(Succeeded, 2)
		ask(Succeeded, 2)
		ask(Failed, 3)
		ask(Failed, 3)
		ask(Succeeded, 4)
	})
}

func TestACallSaysWhenItBegan(t *testing.T) {
	inBubble(t, func(t *testing.T, b *Breaker) {
		began := time.Now()
		call := mustAllow(t, b, key("secret", "app"))
		time.Sleep(time.Second)
		if !call.Began().Equal(began) {
			t.Errorf("it began at %v, want %v", call.Began(), began)
		}
	})
}

// load is many workers that ask a service for keys of their choice.
type load struct {
	b       *Breaker
	outcome atomic.Int32 // of every call: an Outcome
	through atomic.Int32 // calls that were let through
	stop    atomic.Bool
}

// work asks until the load stops. Each worker has keys of its own beside those that all ask for.
func (l *load) work(random *rand.Rand) {
	for !l.stop.Load() {
		asked := key(fmt.Sprint("group", random.IntN(4)), fmt.Sprint(random.IntN(10)))
		if call, err := l.b.Allow(asked); err == nil {
			l.through.Add(1)
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
			outcome := Outcome(l.outcome.Load())
			call.Done(Result{Outcome: outcome, Err: errOf(outcome),
				RetryAfter: time.Duration(random.IntN(3)) * 5 * time.Second})
		} else if open, ok := errors.AsType[*OpenError](err); ok && open.Trial != nil &&
			random.IntN(2) == 0 {
			<-open.Trial
		}
		time.Sleep(time.Duration(1+random.IntN(20)) * time.Millisecond)
	}
}

func TestWhateverIsAskedAnOutageIsCheapAndEveryKeyIsServedWithin10SecondsOfItsEnd(t *testing.T) {
	const (
		workers = 20
		outage  = time.Minute
		groups  = 4
		// allowed is what healthy and troubled keys of a group may use together: a pause each, of
		// 200 ms at first and 3.4 s at least in the end. Beside that, calls were under way when it
		// began, and the first failures show how far they reach.
		allowed = groups*(2*(5+int(outage/(maxPause*85/100)))+manyKeys+1) + workers + 10
	)
	for seed := range uint64(3) {
		for name, outcome := range map[string]Outcome{"failed": Failed, "sealed": FailedAll,
			"silent": Silent, "timed out": TimedOut} {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				inBubble(t, func(t *testing.T, b *Breaker) {
					l := &load{b: b}
					l.outcome.Store(int32(Succeeded))
					var all sync.WaitGroup
					for worker := range uint64(workers) {
						all.Go(func() { l.work(rand.New(rand.NewPCG(seed, worker))) })
					}
					time.Sleep(time.Second)
					l.outcome.Store(int32(outcome))
					l.through.Store(0)
					time.Sleep(outage)
					if n := int(l.through.Load()); n > allowed || n < 10 {
						t.Errorf("%d calls were let through in %v, at most %d are allowed", n,
							outage, allowed)
					}
					l.outcome.Store(int32(Succeeded))
					time.Sleep(10 * time.Second)
					l.stop.Store(true)
					all.Wait()
					for group := range 4 {
						for name := range 10 {
							mustAllow(t, b, key(fmt.Sprint("group", group), fmt.Sprint(name)))
						}
					}
				})
			})
		}
	}
}

func TestAGroupThatWasSilentIsTriedAtOnceAfterAnyOfItsAnswers(t *testing.T) {
	for name, answer := range map[string]Outcome{"a good one": Succeeded, "a bad one": Failed} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *Breaker) {
				end(t, b, key("other", "app"), Succeeded) // so that the silence is not everybody's
				for i := range 2 * manyKeys {
					if call, err := b.Allow(key("secret", fmt.Sprint(i))); err == nil {
						call.Done(Result{Outcome: TimedOut, Err: errDown})
					}
				}
				mustRefuse(t, b, key("secret", "0"))
				time.Sleep(2 * maxPause)
				end(t, b, key("secret", "back"), answer)
				for i := range 2 * manyKeys {
					mustAllow(t, b, key("secret", fmt.Sprint(i)))
				}
			})
		})
	}
}
