package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever Gets, drops, failures and callers who give up do to each other, nothing is left of them
// in the counts.
func TestNoPlaceIsLostAmongFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, Config[int]{
			Classify: func(error) Class { return Class(rand.IntN(int(ClassDenied) + 1)) },
			ExpiresAt: func(int) time.Time {
				return time.Now().Add(time.Duration(rand.IntN(4)-1) * time.Millisecond)
			},
		})
		l := lookupOf("s", "n", 1)
		l.Policy = Policy{TTL: time.Millisecond, MaxStale: time.Millisecond,
			NegativeTTL: time.Millisecond, RefreshAhead: time.Hour, MaxWaiting: 6}
		l.Load = func(context.Context, Key) (int, error) {
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			switch rand.IntN(10) {
			case 0:
				panic("load")
			case 1, 2, 3:
				return 0, errors.New("failure")
			}
			return 1, nil
		}
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for range 500 {
					ctx, cancel := context.WithTimeout(t.Context(),
						time.Duration(rand.IntN(3000))*time.Microsecond)
					asked := l
					asked.MaxAge = new(time.Duration(rand.IntN(3)) * 500 * time.Microsecond)
					_, _ = c.Get(ctx, asked)
					cancel()
					switch rand.IntN(40) {
					case 0:
						c.Drop("s", "n")
					case 1:
						c.DropSpace("s")
					}
				}
			})
		}
		workers.Wait()
		time.Sleep(time.Minute) // ristretto gives memory back some seconds late
		synctest.Wait()
		checkEmpty(t, c)
	})
}
