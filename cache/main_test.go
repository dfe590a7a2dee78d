package cache_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errOutage = errors.New("out")
	errAbsent = errors.New("absent")
	errDenied = errors.New("denied")
	errOther  = errors.New("other")
)

func classify(err error) cache.Class {
	switch {
	case errors.Is(err, errOutage):
		return cache.ClassOutage
	case errors.Is(err, errAbsent):
		return cache.ClassAbsent
	case errors.Is(err, errDenied):
		return cache.ClassDenied
	}
	return cache.ClassOther
}

// standard is the policy of most tests. Jitter takes up to 6 minutes off the ttl.
var standard = cache.Policy{TTL: time.Hour, MaxStale: time.Hour, NegativeTTL: 10 * time.Second}

func newCache(t testing.TB) *cache.Cache[int] {
	t.Helper()
	return newCacheOf(t, cache.Config[int]{Classify: classify})
}

func newCacheOf(t testing.TB, cfg cache.Config[int]) *cache.Cache[int] {
	t.Helper()
	c, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// source is what lookups load from: the number of the load, counted from 1, or err when it is set.
type source struct {
	loads atomic.Int64
	err   atomic.Pointer[error]
	gate  chan struct{} // when not nil, each load waits for a token or its end
	began chan struct{} // when not nil, each load says here that it has begun
}

func (s *source) fail(err error) { s.err.Store(&err) }
func (s *source) recover()       { s.err.Store(nil) }

func (s *source) load(ctx context.Context, _ cache.Key) (int, error) {
	n := s.loads.Add(1)
	if s.began != nil {
		s.began <- struct{}{}
	}
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if err := s.err.Load(); err != nil {
		return 0, *err
	}
	return int(n), nil
}

func (s *source) lookup(name string) cache.Lookup[int] {
	return cache.Lookup[int]{Key: cache.Key{Space: "s", Name: name}, Policy: standard, Load: s.load}
}

func withMaxAge(l cache.Lookup[int], d time.Duration) cache.Lookup[int] {
	l.MaxAge = &d
	return l
}

func withMaxStale(l cache.Lookup[int], d time.Duration) cache.Lookup[int] {
	l.MaxStale = &d
	return l
}

type answer struct {
	cache.Result[int]
	err error
}

func get(t testing.TB, c *cache.Cache[int], l cache.Lookup[int]) answer {
	res, err := c.Get(t.Context(), l)
	return answer{res, err}
}

// goGet gets on a goroutine of its own.
func goGet(ctx context.Context, c *cache.Cache[int], l cache.Lookup[int]) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		res, err := c.Get(ctx, l)
		ch <- answer{res, err}
	}()
	return ch
}

func (a answer) wants(t testing.TB, value int, source cache.Source) {
	t.Helper()
	if a.err != nil || a.Value != value || a.Source != source {
		t.Fatalf("got value %d, source %d, error %v; want value %d, source %d", a.Value, a.Source,
			a.err, value, source)
	}
}

func (a answer) wantsErr(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(a.err, err) || a.Result != (cache.Result[int]{Source: a.Source}) {
		t.Fatalf("got %+v, error %v; want error %v", a.Result, a.err, err)
	}
}

func (s *source) wantsLoads(t testing.TB, n int64) {
	t.Helper()
	if got := s.loads.Load(); got != n {
		t.Fatalf("%d loads, want %d", got, n)
	}
}
