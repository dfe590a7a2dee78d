package cache_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/secret-sidecar/secret-sidecar/cache"
)

func hitLookup(c *cache.Cache[int], b *testing.B, n int) []cache.Lookup[int] {
	load := func(context.Context, cache.Key) (int, error) { return 1, nil }
	lookups := make([]cache.Lookup[int], n)
	for i := range lookups {
		lookups[i] = cache.Lookup[int]{
			Key:    cache.Key{Space: "prod", Name: fmt.Sprintf("secret/data/team/service%d", i)},
			Policy: standard, Load: load,
		}
		get(b, c, lookups[i])
	}
	return lookups
}

func BenchmarkHit(b *testing.B) {
	c := newCache(b)
	l := hitLookup(c, b, 1)[0]
	maxAge := time.Minute
	l.MaxAge = &maxAge
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHitParallel(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			c := newCache(b)
			lookups := hitLookup(c, b, n)
			ctx := b.Context()
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := c.Get(ctx, lookups[i%n]); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkMiss(b *testing.B) {
	c := newCache(b)
	l := withMaxAge(hitLookup(c, b, 1)[0], 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDrop1M drops a million entries of one space while another is read, and reports the hits'
// latencies.
func BenchmarkDrop1M(b *testing.B) {
	for name, drop := range map[string]func(c *cache.Cache[int]) int{
		"None":     func(c *cache.Cache[int]) int { return c.Len("big") }, // for comparison
		"Space":    func(c *cache.Cache[int]) int { return c.DropSpace("big") },
		"Matching": func(c *cache.Cache[int]) int { return c.DropMatching("big", func(string) bool { return true }) },
	} {
		b.Run(name, func(b *testing.B) {
			c := newCacheOf(b, cache.Config[int]{MaxBytes: 1 << 40})
			l := hitLookup(c, b, 1)[0]
			latencies := make([]time.Duration, 0, 1<<22)
			for b.Loop() {
				b.StopTimer()
				for i := range 1_000_000 {
					big := l
					big.Key = cache.Key{Space: "big", Name: fmt.Sprint(i)}
					get(b, c, big)
				}
				stop := make(chan struct{})
				var reader sync.WaitGroup
				reader.Go(func() { latencies = timeHits(b, c, l, stop, latencies) })
				b.StartTimer()
				if n := drop(c); n != 1_000_000 {
					b.Fatalf("dropped %d", n)
				}
				b.StopTimer()
				close(stop)
				reader.Wait()
				b.StartTimer()
			}
			slices.Sort(latencies)
			b.ReportMetric(float64(latencies[len(latencies)*999/1000].Nanoseconds()),
				"hit-p99.9-ns")
			b.ReportMetric(float64(latencies[len(latencies)-1].Microseconds()), "hit-max-µs")
		})
	}
}

func timeHits(b *testing.B, c *cache.Cache[int], l cache.Lookup[int], stop <-chan struct{},
	latencies []time.Duration) []time.Duration {
	ctx := b.Context()
	// memory is returned after the drop
	for stopped := false; !stopped || len(latencies) < 1_000_000; {
		start := time.Now()
		if _, err := c.Get(ctx, l); err != nil {
			b.Error(err)
		}
		latencies = append(latencies, time.Since(start))
		select {
		case <-stop:
			stopped = true
		default:
		}
	}
	return latencies
}
