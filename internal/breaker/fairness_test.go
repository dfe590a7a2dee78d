package breaker_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/breaker"
)

// A bad key asks in every tick and before the good one, which asks once a second at least.
func TestGroupsThatGoOnFailingDoNotTakeTheTurnsOfOneThatIsWellAgain(t *testing.T) {
	for _, groups := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(groups, " bad groups"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFairness(t, groups) })
		})
	}
}

func testFairness(t *testing.T, groups int) {
	const tick = 20 * time.Millisecond
	b := breaker.New(nil)
	bad := breaker.Result{Outcome: breaker.Failed, Err: errors.New("internal error")}
	wellAt := time.Now().Add(30 * time.Second)
	for ticks := 0; time.Since(wellAt) < 10*time.Second; ticks++ {
		time.Sleep(tick)
		for key := range groups * 10 {
			if call, err := b.Allow(breaker.Key{Group: fmt.Sprint(key / 10),
				Name: fmt.Sprint(key % 10)}); err == nil {
				call.Done(bad)
			}
		}
		if ticks%15 != 0 {
			continue
		}
		call, err := b.Allow(breaker.Key{Group: "good", Name: "good"})
		switch {
		case err != nil:
		case time.Now().After(wellAt):
			call.Done(breaker.Result{Outcome: breaker.Succeeded})
			return
		default:
			call.Done(bad)
		}
	}
	t.Error("the good one has not had a turn within 10 s")
}
